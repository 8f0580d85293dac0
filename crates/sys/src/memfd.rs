//! Files in memory that can't be changed any more, and memory that forked processes share.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::Errno;

/// A sealed copy of a file's content, for exec: whoever reaches it by /proc/PID/exe can't write it.
pub fn sealed_copy(name: &str, source: impl AsFd) -> io::Result<OwnedFd> {
    let memory = create(name)?;
    let mut offset = 0;
    let size = u64::try_from(fstat(&source)?.st_size).unwrap_or(0);
    while offset < size {
        let rest = usize::try_from(size - offset).unwrap_or(usize::MAX).min(1 << 30);
        if rustix::fs::sendfile(&memory, &source, Some(&mut offset), rest)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    seal(memory)
}

/// A sealed file with this content.
pub fn sealed_bytes(name: &str, mut bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = create(name)?;
    while !bytes.is_empty() {
        let len = rustix::io::retry_on_intr(|| rustix::io::write(&memory, bytes))?;
        bytes = &bytes[len..];
    }
    seal(memory)
}

/// Whether nobody can change this file any more.
pub fn is_sealed(file: impl AsFd) -> io::Result<bool> {
    match fcntl_get_seals(file) {
        Ok(seals) => Ok(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 a sysctl may make memfds not executable unless they say so; older kernels do not know the flag.
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

fn seal(memory: OwnedFd) -> io::Result<OwnedFd> {
    fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(memory)
}

/// Anonymous memory, shared with the children that are forked while it is mapped. Zero at first; pages that nobody has touched cost
/// nothing.
///
/// No reference to its bytes is ever given out, since another process may write them at any time: they are copied in and out. What
/// orders the two sides is up to them, by the atomics. Offsets out of range are an error, never undefined.
#[derive(Debug)]
pub struct SharedMap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is only reached by copies and by atomics, which may happen from any thread.
unsafe impl Send for SharedMap {}
// SAFETY: as above; racing copies may tear bytes, just as those of the other process may.
unsafe impl Sync for SharedMap {}

fn out_of_range() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl SharedMap {
    pub fn new(len: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: no address is asked for, so no mapping of ours is replaced.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or_else(out_of_range)?;
        Ok(Self { start, len })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&self, offset: usize, len: usize) -> io::Result<*mut u8> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(out_of_range());
        }
        // SAFETY: `offset` is inside of the mapping, or just behind it with `len` 0.
        Ok(unsafe { self.start.as_ptr().add(offset) })
    }

    /// A word at this offset. Panics if it is out of range or not aligned: offsets of words are constants of the program.
    #[must_use]
    pub fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.len,
            "a word at {offset} of {}",
            self.len
        );
        // SAFETY: in range and aligned (mappings begin on a page), and valid as long as `self`; other processes use the same atomics.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// As [`Self::atomic_u64`].
    #[must_use]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset + 4 <= self.len,
            "a word at {offset} of {}",
            self.len
        );
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: in range; a slice of ours can't overlap the mapping, of which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes out, behind what `out` holds.
    pub fn append_to(&self, offset: usize, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        self.place(offset, len)?;
        let before = out.len();
        out.resize(before + len, 0);
        self.read(offset, &mut out[before..])
    }

    /// One read(2) from a descriptor straight into the mapping; `None` if it would block, 0 = end of file.
    pub fn fill_from(&self, offset: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        let place = self.place(offset, len)?;
        loop {
            // SAFETY: the kernel writes at most `len` bytes into the mapping.
            let read = unsafe { libc::read(fd.as_raw_fd(), place.cast(), len) };
            if let Ok(read) = usize::try_from(read) {
                return Ok(Some(read));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(error),
            }
        }
    }

    /// One write(2) straight out of the mapping; `None` if it would block.
    pub fn drain_to(&self, offset: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        let place = self.place(offset, len)?;
        loop {
            // SAFETY: the kernel reads at most `len` bytes of the mapping.
            let written = unsafe { libc::write(fd.as_raw_fd(), place.cast(), len) };
            if let Ok(written) = usize::try_from(written) {
                return Ok(Some(written));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(error),
            }
        }
    }

    /// Gives the memory of this range back (MADV_REMOVE); it reads as zeros. Whole pages only: the part pages at both ends stay.
    pub fn release(&self, offset: usize, len: usize) -> io::Result<()> {
        let page = rustix::param::page_size();
        let (first, end) = (offset.next_multiple_of(page), (offset + len) / page * page);
        if first >= end {
            return Ok(());
        }
        let place = self.place(first, end - first)?;
        // SAFETY: the range is inside of our mapping, whose bytes nobody has a reference to.
        Ok(unsafe { rustix::mm::madvise(place.cast(), end - first, rustix::mm::Advice::LinuxRemove) }?)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and every borrow of it has ended.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_sealed_file_runs_and_cannot_be_written() {
        let source = std::fs::File::open("/proc/self/exe").unwrap();
        let copy = sealed_copy("test", &source).unwrap();
        assert!(is_sealed(&copy).unwrap() && !is_sealed(&source).unwrap());
        assert_eq!(rustix::io::write(&copy, b"x").unwrap_err(), Errno::PERM);
        assert_eq!(
            fstat(&copy).unwrap().st_size,
            source.metadata().unwrap().len().cast_signed()
        );
    }

    #[test]
    fn a_child_sees_what_is_written_and_answers() {
        let map = SharedMap::new(8192).unwrap();
        map.write(100, b"hello").unwrap();
        match crate::process::fork().unwrap() {
            crate::process::Fork::Child => {
                let mut bytes = [0; 5];
                let good = map.read(100, &mut bytes).is_ok() && &bytes == b"hello";
                map.atomic_u64(8).store(if good { 42 } else { 1 }, Ordering::Release);
                crate::process::exit_now(0)
            }
            crate::process::Fork::Parent { pid } => {
                crate::process::wait(pid).unwrap();
            }
        }
        assert_eq!(map.atomic_u64(8).load(Ordering::Acquire), 42);
    }

    #[test]
    fn nothing_reaches_past_the_end() {
        let map = SharedMap::new(4096).unwrap();
        for (offset, len) in [(4096, 1), (4090, 7), (usize::MAX, 2), (0, 4097)] {
            assert!(map.write(offset, &vec![1; len]).is_err(), "{offset}+{len}");
            assert!(map.append_to(offset, len, &mut Vec::new()).is_err(), "{offset}+{len}");
        }
        assert!(map.write(4096, &[]).is_ok());
    }

    #[test]
    fn a_pipe_goes_in_and_out_and_pages_are_released() {
        let map = SharedMap::new(16384).unwrap();
        let (reader, writer) = crate::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"some bytes").unwrap();
        assert_eq!(map.fill_from(5000, 100, reader.as_fd()).unwrap(), Some(10));
        assert_eq!(map.drain_to(5000, 4, writer.as_fd()).unwrap(), Some(4));
        let mut out = b"> ".to_vec();
        map.append_to(5000, 10, &mut out).unwrap();
        assert_eq!(out, b"> some bytes");
        crate::file::set_nonblocking(&reader, true).unwrap();
        let mut rest = [0; 9];
        assert_eq!(crate::file::read_some(&reader, &mut rest).unwrap(), Some(4));
        assert_eq!(map.fill_from(0, 10, reader.as_fd()).unwrap(), None);
        map.release(0, 16384).unwrap();
        out.clear();
        map.append_to(5000, 10, &mut out).unwrap();
        assert_eq!(out, [0; 10]);
    }
}

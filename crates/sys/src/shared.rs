//! Memory that a process shares with those that it forks.
//!
//! The mapping is never a Rust reference to bytes: other processes change it. Words are atomics; bytes are only copied in and
//! out, or moved by the kernel. Which bytes are whose at what time is the caller's protocol; a broken one gives wrong bytes,
//! never undefined values.

use std::{io, ops::Range, os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// An anonymous shared mapping, zero at first. A page that nobody has touched costs nothing.
#[derive(Debug)]
pub struct SharedMap {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access goes through atomics, copies or the kernel.
unsafe impl Send for SharedMap {}

impl SharedMap {
    /// `len` is rounded up to whole pages by the kernel; only `len` bytes can be used.
    pub fn new(len: usize) -> io::Result<SharedMap> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(SharedMap { base, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The 64-bit word at byte `at`, a multiple of 8.
    ///
    /// # Panics
    /// If it is not inside the map or not aligned: a mistake in the caller's layout.
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at < self.len && self.len - at >= 8,
            "word {at} of {}",
            self.len
        );
        // SAFETY: inside the mapping (checked), aligned (checked; pages are), and lives as long as `self`. Atomic accesses of
        // several processes to the same address are what atomics are for.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Appends a copy of the bytes to `out`.
    pub fn copy_out(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let (from, len) = self.bytes(&range);
        out.reserve(len);
        // SAFETY: `from` has `len` readable bytes (checked), `out` has room for them and can't overlap a mapping of ours; any
        // byte is a valid u8.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// Copies `bytes` in, from byte `at` on.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        let (to, len) = self.bytes(&(at..at + bytes.len()));
        // SAFETY: `to` has `len` writable bytes (checked) and can't overlap `bytes`, which is not in this mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
    }

    /// One readv(2) into the two pieces, in order.
    pub fn read_from(&self, fd: impl AsFd, pieces: [Range<usize>; 2]) -> io::Result<usize> {
        let pieces = pieces.map(|piece| self.iovec(&piece));
        self.vectored(libc::SYS_readv, fd, &pieces)
    }

    /// One writev(2) from the two pieces, in order.
    pub fn write_to(&self, fd: impl AsFd, pieces: [Range<usize>; 2]) -> io::Result<usize> {
        let pieces = pieces.map(|piece| self.iovec(&piece));
        self.vectored(libc::SYS_writev, fd, &pieces)
    }

    fn vectored(&self, call: libc::c_long, fd: impl AsFd, pieces: &[libc::iovec; 2]) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        // SAFETY: both pieces lie in the mapping; the kernel copies, and no reference to those bytes exists.
        let done = unsafe { libc::syscall(call, fd.as_fd().as_raw_fd(), pieces.as_ptr(), pieces.len()) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    fn iovec(&self, range: &Range<usize>) -> libc::iovec {
        let (base, len) = self.bytes(range);
        libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        }
    }

    fn bytes(&self, range: &Range<usize>) -> (*mut u8, usize) {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        // SAFETY: inside the mapping or one past its end (checked).
        (unsafe { self.base.as_ptr().add(range.start) }, range.end - range.start)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; references to it end with `self`. An error can't be told and means a leak.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod test {
    use std::{io::Write, sync::atomic::Ordering};

    use super::*;

    #[test]
    fn a_child_sees_what_the_parent_writes_and_back() {
        let map = SharedMap::new(8192).expect("map");
        map.copy_in(4096, b"hello");
        match crate::process::fork().expect("fork") {
            crate::process::Fork::Child => {
                let mut seen = Vec::new();
                map.copy_out(4096..4101, &mut seen);
                map.word(8).store(u64::from(seen == b"hello"), Ordering::SeqCst);
                crate::process::exit_now(0)
            }
            crate::process::Fork::Parent { pid } => {
                crate::process::wait(pid).expect("wait");
                assert_eq!(map.word(8).load(Ordering::SeqCst), 1);
            }
        }
    }

    #[test]
    fn the_kernel_moves_bytes_in_two_pieces() {
        let map = SharedMap::new(64).expect("map");
        let (reader, writer) = crate::pipe::pipe().expect("pipe");
        std::fs::File::from(writer.try_clone().expect("dup"))
            .write_all(b"abcdef")
            .expect("write");
        assert_eq!(map.read_from(&reader, [60..64, 0..2]).expect("readv"), 6);
        assert_eq!(map.write_to(&writer, [60..62, 0..2]).expect("writev"), 4);
        let mut seen = Vec::new();
        map.copy_out(0..2, &mut seen);
        map.copy_out(60..64, &mut seen);
        assert_eq!(seen, b"efabcd");
    }

    #[test]
    #[should_panic(expected = "word 60 of 64")]
    fn a_wrong_layout_panics() {
        SharedMap::new(64).expect("map").word(60);
    }
}

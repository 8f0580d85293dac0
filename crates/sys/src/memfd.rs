//! Files in memory that can't be changed any more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A sealed copy of a file's content, for exec: whoever reaches it by /proc/PID/exe can't write it.
pub fn sealed_copy(name: &str, source: impl AsFd) -> io::Result<OwnedFd> {
    seal(copy(name, source)?)
}

/// [`sealed_copy`] of a program that many processes will run at once: zeros may follow the content, so that the kernel can keep it in
/// large pages. A process maps sixteen small ones at a page fault one by one, and forgets them one by one at its end; pieces of a
/// large one in a single step.
pub fn sealed_program(name: &str, source: impl AsFd) -> io::Result<OwnedFd> {
    let memory = copy(name, source)?;
    let Some(large) = large_page() else {
        return seal(memory);
    };
    let length = u64::try_from(fstat(&memory)?.st_size)
        .unwrap_or(0)
        .next_multiple_of(large);
    ftruncate(&memory, length)?;
    let memory = seal(memory)?;
    // It runs as well without, where memory is in too small pieces or the kernel can't.
    let _ = collect(&memory, length, large);
    Ok(memory)
}

/// The size of large pages, where they are small enough to fill.
fn large_page() -> Option<u64> {
    const HIGHEST: u64 = 4 << 20;
    let text = crate::file::read_text("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    text.trim().parse().ok().filter(|size| (1..=HIGHEST).contains(size))
}

/// Moves the file's pages into large ones.
fn collect(memory: &OwnedFd, length: u64, large: u64) -> io::Result<()> {
    let (Ok(length), Ok(large)) = (usize::try_from(length), usize::try_from(large)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let room = length + large;
    // SAFETY: new mappings only: one at an address of the kernel's choice, one in its place; both go at once below. Nobody has a
    // reference into them. madvise(2) changes no content.
    unsafe {
        let reserved = mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE)?;
        let aligned = reserved.byte_add(reserved.addr().next_multiple_of(large) - reserved.addr());
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let advised = mmap(aligned, length, ProtFlags::READ, flags, memory, 0)
            .map_err(io::Error::from)
            .and_then(|mapped| crate::check(libc::madvise(mapped, length, libc::MADV_COLLAPSE)));
        munmap(reserved, room)?;
        advised
    }
}

fn copy(name: &str, source: impl AsFd) -> io::Result<OwnedFd> {
    let memory = create(name)?;
    let mut offset = 0;
    let size = u64::try_from(fstat(&source)?.st_size).unwrap_or(0);
    while offset < size {
        let rest = usize::try_from(size - offset).unwrap_or(usize::MAX).min(1 << 30);
        if rustix::fs::sendfile(&memory, &source, Some(&mut offset), rest)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(memory)
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

/// How long something in the kernel may hold a page of a new file.
const HELD: Duration = Duration::from_secs(10);

/// F_ADD_SEALS says EBUSY while anybody holds a page of the file: whoever moves or ages pages does so for a moment. It waits for that
/// some 150 ms itself, and nothing tells when the page is let go: so it is asked again.
fn seal(memory: OwnedFd) -> io::Result<OwnedFd> {
    let end = Instant::now() + HELD;
    loop {
        match fcntl_add_seals(&memory, SEALS) {
            Err(Errno::BUSY) if Instant::now() < end => {}
            done => return Ok(done.map(|()| memory)?),
        }
    }
}

const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

#[cfg(test)]
mod test {
    use super::*;

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
    fn a_program_in_large_pages_is_the_same_and_cannot_be_written() {
        let source = std::fs::File::open("/proc/self/exe").unwrap();
        let program = sealed_program("test", &source).unwrap();
        assert!(is_sealed(&program).unwrap());
        let read =
            |fd: &OwnedFd| std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).unwrap();
        let (own, copied) = (std::fs::read("/proc/self/exe").unwrap(), read(&program));
        let (content, rest) = copied.split_at(own.len());
        assert!(content == own && rest.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_page_that_is_held_for_a_while_is_waited_for() {
        let memory = create("test").unwrap();
        assert_eq!(rustix::io::write(&memory, &[1; 4096]).unwrap(), 4096);
        // A pipe that holds the page itself, not a copy.
        let (read, write) = rustix::pipe::pipe().unwrap();
        let flags = rustix::pipe::SpliceFlags::empty();
        assert_eq!(
            rustix::pipe::splice(&memory, Some(&mut 0), &write, None, 4096, flags).unwrap(),
            4096
        );
        let busy = || fcntl_add_seals(&memory, SEALS).unwrap_err();
        assert_eq!(busy(), Errno::BUSY);
        std::thread::scope(|scope| {
            let other = memory.try_clone().unwrap();
            let sealing = scope.spawn(|| seal(other));
            // Each takes as long as the kernel waits, and the file's lock lets nobody overtake twice: the other's first try has failed as
            // well.
            assert_eq!([busy(), busy(), busy()], [Errno::BUSY; 3]);
            assert_eq!(rustix::io::read(&read, &mut [0; 4096]).unwrap(), 4096);
            assert!(is_sealed(sealing.join().unwrap().unwrap()).unwrap());
        });
    }
}

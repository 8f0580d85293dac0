//! Files in memory that can't be changed any more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

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

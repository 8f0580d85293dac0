//! Files in memory that can't be changed any more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

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
}

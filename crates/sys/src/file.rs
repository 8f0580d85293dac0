//! Files by folder descriptor and name: bounded reads, whole replacement, space kept in advance, locks.
//!
//! Symlinks are never followed in the last component. Modes are exact, whatever the umask.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, fchmod, flock, openat, renameat, unlinkat};
use rustix::io::Errno;

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Read,
    Write,
    ReadWrite,
    /// Written at the end.
    Append,
}

fn flags(how: Open) -> OFlags {
    OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | match how {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::WRONLY,
            Open::ReadWrite => OFlags::RDWR,
            Open::Append => OFlags::WRONLY | OFlags::APPEND,
        }
}

/// A file that is there.
pub fn open_at(folder: impl AsFd, name: impl AsRef<OsStr>, how: Open) -> io::Result<OwnedFd> {
    Ok(openat(folder, name.as_ref(), flags(how), Mode::empty())?)
}

/// A file that is made if it is not there, with this mode.
pub fn create_at(folder: impl AsFd, name: impl AsRef<OsStr>, how: Open, mode: u32) -> io::Result<OwnedFd> {
    let file = openat(
        folder,
        name.as_ref(),
        flags(how) | OFlags::CREATE,
        Mode::from_raw_mode(mode & 0o700),
    )?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(file)
}

/// A file that must not be there yet.
pub fn create_new_at(folder: impl AsFd, name: impl AsRef<OsStr>, how: Open, mode: u32) -> io::Result<OwnedFd> {
    let new = OFlags::CREATE | OFlags::EXCL;
    let file = openat(
        folder,
        name.as_ref(),
        flags(how) | new,
        Mode::from_raw_mode(mode & 0o700),
    )?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(file)
}

/// The whole content; InvalidData if it is longer than `limit`, and if it is no regular file (so it can't block).
pub fn read_at(folder: impl AsFd, name: impl AsRef<OsStr>, limit: u64) -> io::Result<Vec<u8>> {
    let file = openat(
        folder,
        name.as_ref(),
        flags(Open::Read) | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    read_whole(File::from(file), limit)
}

/// As [`read_at`], by path; symlinks are followed.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = openat(
        CWD,
        path,
        OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    read_whole(File::from(file), limit)
}

/// A file of the kernel's, of /proc or of a cgroup. Nothing tells its length beforehand: it is read in one piece where it fits into
/// a page, in place of the dozen of growing pieces in which `std::fs::read` feels its way.
pub fn read_page(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut page = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        match file.read(&mut page) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&page[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As [`read_page`]; InvalidData if it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read_page(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes"));
    if meta.len() > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(too_long())
    } else {
        Ok(bytes)
    }
}

fn aside(name: &OsStr) -> OsString {
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(".new");
    aside
}

/// Replaces a file whole: written aside as `.NAME.new`, then renamed. A reader sees the old or the new content, never a part. One
/// writer a name. Not synced.
pub fn write_aside(folder: impl AsFd, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(name.as_ref());
    let truncate = flags(Open::Write) | OFlags::CREATE | OFlags::TRUNC;
    let file = openat(&folder, &aside, truncate, Mode::from_raw_mode(mode & 0o700))?;
    let written = fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(io::Error::from)
        .and_then(|()| File::from(file).write_all(bytes))
        .and_then(|()| Ok(renameat(&folder, &aside, &folder, name.as_ref())?));
    if written.is_err() {
        // What could not be written whole must not take the space that is missing.
        let _ = unlinkat(&folder, &aside, AtFlags::empty());
    }
    written
}

/// Makes a file of `size` blanks, for [`overwrite`]: the space is there from now on, even on a full tmpfs.
pub fn reserve(folder: impl AsFd, name: impl AsRef<OsStr>, size: usize, mode: u32) -> io::Result<()> {
    let truncate = flags(Open::Write) | OFlags::CREATE | OFlags::TRUNC;
    let file = openat(&folder, name.as_ref(), truncate, Mode::from_raw_mode(mode & 0o700))?;
    let written = fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(io::Error::from)
        .and_then(|()| File::from(file).write_all(&vec![b' '; size]));
    if written.is_err() {
        let _ = unlinkat(&folder, name.as_ref(), AtFlags::empty());
    }
    written
}

/// Writes over a reserved file and cuts it to the new length, which needs no space as long as it was reserved.
pub fn overwrite(folder: impl AsFd, name: impl AsRef<OsStr>, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::from(openat(&folder, name.as_ref(), flags(Open::Write), Mode::empty())?);
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Whether a file or folder belongs to the caller and nobody else may write to it.
pub fn is_ours_alone(file: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    Ok(stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

/// In the same folder; replaces what is there.
pub fn rename_at(folder: impl AsFd, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(renameat(&folder, from.as_ref(), &folder, to.as_ref())?)
}

/// Nothing there = done.
pub fn unlink_at(folder: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    match unlinkat(folder, name.as_ref(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Also true for a dangling symlink.
pub fn exists_at(folder: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<bool> {
    match rustix::fs::statat(folder, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the exclusive lock of an open file (flock), or says false if another has it. It goes with the last copy of the descriptor.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Size and free space of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub free: u64,
}

pub fn space(file: impl AsFd) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(Space {
        total: stat.f_blocks * stat.f_frsize,
        free: stat.f_bavail * stat.f_frsize,
    })
}

/// Reads what is there; `None` if a non-blocking descriptor has nothing, 0 = end of file.
pub fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut *buffer)) {
        Ok(len) => Ok(Some(len)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes what fits; `None` if a non-blocking descriptor is full. SIGPIPE must be ignored by the program for a pipe.
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match rustix::io::retry_on_intr(|| rustix::io::write(&fd, bytes)) {
        Ok(len) => Ok(Some(len)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes several pieces in one call; `None` if a non-blocking descriptor is full.
pub fn write_pieces(fd: impl AsFd, pieces: &[io::IoSlice<'_>]) -> io::Result<Option<usize>> {
    match rustix::io::retry_on_intr(|| rustix::io::writev(&fd, pieces)) {
        Ok(len) => Ok(Some(len)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies a descriptor, close-on-exec.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)
}

/// Cuts a file, or makes it longer with a hole.
pub fn set_len(file: impl AsFd, len: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(file, len)?)
}

pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(&fd)?;
    flags.set(OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(&fd, flags)?)
}

/// /dev/null, to read and write.
pub fn dev_null() -> io::Result<OwnedFd> {
    Ok(openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

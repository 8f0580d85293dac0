//! Named pipes that somebody else has made.
//!
//! Opening is never blocking and never waits for a peer: the file is looked at first as a mere place (O_PATH), so that a device or a
//! symlink is not opened by mistake.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::ioctl_fionread;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Succeeds at once, also without a writer.
    Read,
    /// ENXIO if there is no reader.
    Write,
    /// Succeeds at once and keeps the pipe from ending while no peer is there.
    Both,
}

/// Opens one end, non-blocking. InvalidInput if the path is no FIFO.
pub fn open(path: &Path, end: End) -> io::Result<OwnedFd> {
    let place = openat(
        CWD,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if !is_fifo(&place)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    let how = match end {
        End::Read => OFlags::RDONLY,
        End::Write => OFlags::WRONLY,
        End::Both => OFlags::RDWR,
    };
    // The very file that was looked at.
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(openat(
        CWD,
        place,
        how | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Another end of one that is held, to write; non-blocking. ENXIO if nobody, not even the holder, reads.
pub fn open_writer(held: impl AsFd) -> io::Result<OwnedFd> {
    let place = format!("/proc/self/fd/{}", held.as_fd().as_raw_fd());
    let how = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(CWD, place, how, Mode::empty())?)
}

/// Whether somebody has it open to read, by an end that writes.
pub fn has_reader(writer: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&writer, PollFlags::empty())];
    // As for any pipe: a writer without readers is an error (pipe(7)).
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(!fds[0].revents().contains(PollFlags::ERR))
}

/// How many bytes are written and not read.
pub fn unread(end: impl AsFd) -> io::Result<u64> {
    Ok(ioctl_fionread(end)?)
}

pub fn is_fifo(file: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Fifo)
}

/// Makes a FIFO with exactly this mode in a folder.
pub fn make_at(folder: impl AsFd, name: &str, mode: u32) -> io::Result<()> {
    rustix::fs::mkfifoat(&folder, name, Mode::from_raw_mode(mode & 0o700))?;
    Ok(rustix::fs::chmodat(
        &folder,
        name,
        Mode::from_raw_mode(mode),
        rustix::fs::AtFlags::empty(),
    )?)
}

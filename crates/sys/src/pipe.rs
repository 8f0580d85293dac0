//! Pipes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

/// Reader and writer, close-on-exec, blocking. See [`crate::file::set_nonblocking`]: it is set for one end alone, since the other
/// becomes a container's.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Asks for a capacity; gives what it is now. EPERM above /proc/sys/fs/pipe-max-size.
pub fn set_capacity(pipe: impl AsFd, bytes: usize) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_setpipe_size(pipe, bytes)?)
}

/// Bytes that are waiting to be read.
pub fn waiting(pipe: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(pipe)?)
}

/// Moves bytes between two descriptors of which one is a pipe, without copying; `None` if it would block, 0 = end of file.
pub fn splice(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<Option<usize>> {
    use rustix::pipe::SpliceFlags;
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    match rustix::io::retry_on_intr(|| rustix::pipe::splice(&from, None, &to, None, len, flags)) {
        Ok(moved) => Ok(Some(moved)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

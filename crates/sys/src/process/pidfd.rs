//! Processes by pidfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags};

pub(super) fn raw(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Close-on-exec, and readable when the process has ended.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(raw(pid)?, PidfdFlags::empty())?)
}

/// The pidfd of a process that was noted down, or `None` if it is gone: the start time is compared after the pidfd is open, so a
/// number that was used again is never taken for it. The boot id is the caller's to compare.
pub fn open_known(pid: u32, start_time: u64) -> io::Result<Option<OwnedFd>> {
    let pidfd = match pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    match super::start_time(pid) {
        Ok(found) if found == start_time && !has_ended(&pidfd)? => Ok(Some(pidfd)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a signal by number (0 only asks); ESRCH if it has been reaped.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a descriptor, a number, no siginfo. rustix takes named signals only; real-time ones are needed too.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A copy of a descriptor of that process, which the caller must be allowed to trace.
pub fn pidfd_take(pidfd: impl AsFd, number: i32) -> io::Result<OwnedFd> {
    let flags = rustix::process::PidfdGetfdFlags::empty();
    Ok(rustix::process::pidfd_getfd(pidfd, number, flags)?)
}

/// Whether the process has ended (it may still be a zombie).
pub fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    wait_until_ended(pidfd, Some(Duration::ZERO))
}

/// Waits for the process's end, reaped or not; false if `timeout` came first.
pub fn wait_until_ended(pidfd: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(rustix::event::Timespec::try_from).transpose();
        let left = left.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

//! For the parent and for the child right after a fork: what the child keeps open, and ending a child with all of its group.

use std::io;
use std::os::fd::RawFd;

/// Closes every descriptor that is not in `keep`. For a child right after a fork, before it opens anything: an `OwnedFd` of a closed
/// number must be neither used nor dropped, so such a child ends by [`super::exit_now`] or an exec.
pub fn close_except(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: closes descriptors only; the caller's obligation is stated above.
            match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
                0 => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// SIGKILL to the process group that this child leads. Only for a child that is not reaped: its number is then still its own.
pub fn kill_group(leader: u32) -> io::Result<()> {
    Ok(rustix::process::kill_process_group(
        super::pidfd::raw(leader)?,
        rustix::process::Signal::KILL,
    )?)
}

//! For a caller that stays with its container until the end, as `berth-oci run` does.

use std::os::fd::{AsFd, BorrowedFd};

use berth_sys::process;

use crate::error::{Context, OciError};

/// What the container leaves behind becomes the caller's child, so that [`wait`] can reap it.
///
/// # Errors
/// As prctl(2) PR_SET_CHILD_SUBREAPER.
pub fn adopt_orphans() -> Result<(), OciError> {
    process::set_child_subreaper().step("become", "subreaper")
}

/// Waits for one child and answers its exit code. Reaps every other that ends meanwhile: the init of a pid namespace
/// does not end before the processes that others brought into it are reaped.
///
/// # Errors
/// As waitid(2); `ECHILD` if it is no child.
pub fn wait(pid: u32) -> Result<i32, OciError> {
    loop {
        let (ended, how) = process::wait_any().step("wait for", pid)?;
        if ended == pid {
            return Ok(i32::try_from(how.code()).unwrap_or(255));
        }
    }
}

/// Sends the pidfd of a process over a connected socket, with the word that says what process it is, as runc does.
///
/// # Errors
/// As pidfd_open(2), sendmsg(2).
pub fn send_pidfd(socket: BorrowedFd<'_>, pid: u32, what: &str) -> Result<(), OciError> {
    let pidfd = process::pidfd_open(pid).step("open process", pid)?;
    berth_sys::socket::send_fds(socket, what.as_bytes(), &[pidfd.as_fd()]).step("send pidfd of", pid)?;
    Ok(())
}

/// The number of a signal by its name or number, `None` for what is none.
#[must_use]
pub fn signal_by_name(name: &str) -> Option<i32> {
    berth_sys::signal::by_name(name)
}

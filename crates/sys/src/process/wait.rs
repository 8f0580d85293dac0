//! Waiting for children: peek first, reap only what is ours.

use std::io;

use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
    Signaled { signal: u8, core: bool },
}

impl Ended {
    /// As shells and runtimes tell it: 0 to 255, or 128 + signal.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Exited(code) => u32::from(code),
            Self::Signaled { signal, .. } => 128 + u32::from(signal),
        }
    }

    fn of(status: &WaitIdStatus) -> Self {
        let signal = status
            .terminating_signal()
            .map(|signal| u8::try_from(signal).unwrap_or(u8::MAX));
        match signal {
            Some(signal) => Self::Signaled {
                signal,
                core: status.dumped(),
            },
            // The kernel masks the status to 8 bits.
            None => Self::Exited((status.exit_status().unwrap_or(255) & 0xff) as u8),
        }
    }
}

fn ask(id: WaitId<'_>, options: WaitIdOptions) -> io::Result<Option<WaitIdStatus>> {
    match rustix::io::retry_on_intr(|| waitid(id.clone(), WaitIdOptions::EXITED | options)) {
        Ok(status) => Ok(status),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn child(pid: u32) -> io::Result<WaitId<'static>> {
    super::pidfd::raw(pid).map(WaitId::Pid)
}

/// A child that has ended, without reaping it; `None` if there is none. The caller decides by the pid whose it is.
pub fn peek() -> io::Result<Option<(u32, Ended)>> {
    // rustix's status hides the pid, so this one is asked for by hand.
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: `info` is a valid place for one siginfo_t.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
    // SAFETY: waitid filled the SIGCHLD variant, or left the zeros of above, which read as pid 0.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let byte = (status & 0xff) as u8;
    let ended = match info.si_code {
        libc::CLD_KILLED => Ended::Signaled {
            signal: byte,
            core: false,
        },
        libc::CLD_DUMPED => Ended::Signaled {
            signal: byte,
            core: true,
        },
        _ => Ended::Exited(byte),
    };
    Ok(Some((pid.unsigned_abs(), ended)))
}

/// Whether this child has ended, without reaping it. `None` also if it is no child.
pub fn peek_pid(pid: u32) -> io::Result<Option<Ended>> {
    let options = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(ask(child(pid)?, options)?.as_ref().map(Ended::of))
}

/// Reaps this child if it has ended.
pub fn reap(pid: u32) -> io::Result<Option<Ended>> {
    Ok(ask(child(pid)?, WaitIdOptions::NOHANG)?.as_ref().map(Ended::of))
}

/// Waits for whichever child ends next and reaps it: for a program that owns all of its children.
///
/// # Errors
/// As waitid(2); `ECHILD` if there is none.
pub fn wait_any() -> io::Result<(u32, Ended)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for one int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid > 0 {
            let ended = if libc::WIFSIGNALED(status) {
                Ended::Signaled {
                    signal: libc::WTERMSIG(status) as u8,
                    core: libc::WCOREDUMP(status),
                }
            } else {
                Ended::Exited(libc::WEXITSTATUS(status) as u8)
            };
            return Ok((pid.unsigned_abs(), ended));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits for this child's end, however long, and reaps it. `None` if it is no child (any more).
pub fn wait(pid: u32) -> io::Result<Option<Ended>> {
    Ok(ask(child(pid)?, WaitIdOptions::empty())?.as_ref().map(Ended::of))
}

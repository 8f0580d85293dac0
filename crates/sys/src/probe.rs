//! For tests that ask what confines a process: a system call by its number, and the session keyring.

use std::io;

use crate::process::{self, Ended, Fork};

/// What became of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered; 0 = success, else the error number.
    Answered(u32),
    /// It ended its caller.
    Killed,
    /// It is not tried: whatever its arguments it ends, stops or slows its caller, or does something.
    NotTried,
}

/// exit, fork, vfork, pause, rt_sigreturn, vhangup, sync, exit_group of x86-64.
const NEVER: [i64; 8] = [60, 57, 58, 34, 15, 153, 162, 231];

/// Tries the system call in a child, with arguments that no call can do anything with: no descriptor, no memory, no process.
/// For a single-threaded caller.
///
/// # Errors
/// As fork(2), waitpid(2).
pub fn try_call(number: i64) -> io::Result<Verdict> {
    if NEVER.contains(&number) {
        return Ok(Verdict::NotTried);
    }
    match process::fork()? {
        Fork::Child => {
            // SAFETY: every argument is -1: as a pointer it faults in the kernel, which answers EFAULT; as a descriptor, process
            // or flag it is refused. The calls that need no argument are in NEVER or harmless to a child that ends at once.
            let done = unsafe { libc::syscall(number, -1i64, -1i64, -1i64, -1i64, -1i64, -1i64) };
            let code = if done == -1 {
                io::Error::last_os_error().raw_os_error().unwrap_or(0)
            } else {
                0
            };
            process::exit_now(code)
        }
        Fork::Parent { pid } => Ok(match process::wait(pid)? {
            Some(Ended::Exited(code)) => Verdict::Answered(u32::from(code)),
            _ => Verdict::Killed,
        }),
    }
}

/// What keyctl(2) says of the session keyring: type, owner, permissions, name.
///
/// # Errors
/// As keyctl(2) KEYCTL_DESCRIBE.
pub fn session_keyring() -> io::Result<String> {
    const KEYCTL_DESCRIBE: libc::c_ulong = 6;
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    let mut text = [0u8; 256];
    // SAFETY: the buffer and its length describe `text`.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            KEY_SPEC_SESSION_KEYRING,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let end = (length as usize).saturating_sub(1).min(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// I/O priority of the calling process, as ioprio_get(2) packs it.
///
/// # Errors
/// As ioprio_get(2).
pub fn io_priority() -> io::Result<i64> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    match unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) } {
        -1 => Err(io::Error::last_os_error()),
        packed => Ok(packed),
    }
}

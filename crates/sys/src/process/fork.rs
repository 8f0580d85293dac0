//! fork, with a pidfd or as a sibling.
//!
//! All of them are for **single-threaded** callers: the child has the calling thread only, so a lock that another thread holds
//! (malloc's, stdout's) would stay locked in it for ever. Nothing here is memory-unsafe because of that; it can hang.
//! A program with threads uses [`super::spawn`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Child,
    Parent { pid: u32 },
}

/// Which side of a fork this is, with the child's pidfd (close-on-exec) on the parent's.
#[derive(Debug)]
pub enum ForkPidfd {
    Child,
    Parent { pid: u32, pidfd: OwnedFd },
}

/// fork(2), by way of glibc: its own fork handlers run.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the child gets a copy of everything; single-threadedness is documented above and only guards against hanging.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent {
            pid: pid.unsigned_abs(),
        }),
    }
}

/// fork that gives the child's pidfd in the same call: it can't be another process's, even if the child ends at once.
pub fn fork_pidfd() -> io::Result<ForkPidfd> {
    clone(libc::CLONE_PIDFD, libc::SIGCHLD)
}

/// fork with CLONE_PARENT: the new process is a child of the caller's own parent, which gets its SIGCHLD and reaps it.
pub fn fork_sibling() -> io::Result<ForkPidfd> {
    // The kernel takes the exit signal from the caller and refuses one here.
    clone(libc::CLONE_PIDFD | libc::CLONE_PARENT, 0)
}

/// Where glibc keeps the calling thread's id in memory (raise and abort use it): it gave that address to the kernel when the thread
/// began. With it the kernel updates a child's copy, just as glibc's own fork asks for. 0 = the kernel does not tell.
pub(crate) fn tid_address() -> usize {
    let mut address: usize = 0;
    // SAFETY: PR_GET_TID_ADDRESS writes one pointer to the given address.
    match unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) } {
        0 => address,
        _ => 0,
    }
}

fn clone(flags: libc::c_int, exit_signal: libc::c_int) -> io::Result<ForkPidfd> {
    let tid_address = tid_address();
    let tid_flags = if tid_address != 0 {
        libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID
    } else {
        0
    };

    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((flags | tid_flags).cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    args.child_tid = tid_address as u64;
    args.exit_signal = u64::from(exit_signal.cast_unsigned());
    // SAFETY: without CLONE_VM the child runs on a copy of this stack, as after fork; `args` lives through the call, `pidfd` is a
    // valid place for one int, and `child_tid` is the address that this thread's libc has registered.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(ForkPidfd::Child),
        pid => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD); nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(ForkPidfd::Parent {
                pid: u32::try_from(pid).unwrap_or_default(),
                pidfd,
            })
        }
    }
}

//! Safe small functions over Linux. The only crate of Berth with unsafe code.
//!
//! Invariants: descriptors are `OwnedFd` and close-on-exec; nothing here keeps state, logs or decides; every function says what it
//! does in terms of the system call behind it, and its errors are the kernel's own (`io::Error`): callers add operation, id and path.

pub mod bpf;
pub mod cgroup;
pub mod credentials;
pub mod dir;
pub mod epoll;
pub mod eventfd;
pub mod execve;
pub mod fifo;
pub mod file;
pub mod heap;
pub mod inotify;
pub mod inroot;
pub mod limits;
pub mod memfd;
pub mod mounts;
pub mod namespaces;
pub mod net_dev;
pub mod newmount;
pub mod pipe;
pub mod probe;
pub mod process;
pub mod pty;
pub mod random;
pub mod rtnetlink;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod time;
pub mod timer;
pub mod unguarded;

/// The result of a libc call that says -1 and errno.
pub(crate) fn check(result: i32) -> std::io::Result<()> {
    if result == -1 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

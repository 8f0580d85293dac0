//! Signals: what a new program inherits, and reading them from a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset makes a valid set of the zeroed one; sigaddset refuses bad numbers by itself.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

fn set_disposition(signal: i32, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: a zeroed sigaction with SIG_DFL or SIG_IGN is valid: no handler of ours runs.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Every disposition is the default and nothing is blocked: what a container's process must begin with. (Rust's runtime ignores
/// SIGPIPE, and an ignored signal survives execve.) Makes system calls only.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // Two can't be changed, and libc keeps two or three for itself: those are never ignored.
        if !matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32..34) {
            set_disposition(signal, libc::SIG_DFL)?;
        }
    }
    set_mask(&set_of(&[]))
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads one valid set.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::from_ref(set), std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Blocks these signals in the calling thread, and no others.
pub fn block_signals(signals: &[i32]) -> io::Result<()> {
    set_mask(&set_of(signals))
}

/// Ignored SIGCHLD: children do not become zombies, and can't be waited for.
pub fn ignore_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Signals as a descriptor, non-blocking, readable when one is pending.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the signals (and no others) in this thread and opens the descriptor.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        block_signals(signals)?;
        let set = set_of(signals);
        // SAFETY: reads one valid set, makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next pending signal's number.
    pub fn read(&self) -> io::Result<Option<i32>> {
        // SAFETY: all-zero is a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for `size` bytes and any bytes are valid in it.
        let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        if read == -1 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        Ok(Some(info.ssi_signo.cast_signed()))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

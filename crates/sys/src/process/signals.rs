//! Signals: what a new program inherits, and reading them from a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Signals, by bit, whose disposition may be another than the default: all of them until [`reset_signals`] was called once. A fork
/// inherits it with what it is about, so that of a row of processes only the first must set all 64.
static CHANGED: AtomicU64 = AtomicU64::new(u64::MAX);

fn bit(signal: i32) -> u64 {
    1u64.checked_shl(signal.cast_unsigned().wrapping_sub(1))
        .unwrap_or(u64::MAX)
}

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
    if handler != libc::SIG_DFL {
        CHANGED.fetch_or(bit(signal), Ordering::Relaxed);
    }
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
/// SIGPIPE, and an ignored signal survives execve.) Makes system calls only. Whoever has called it changes dispositions by
/// [`ignore_signal`] alone, or the next call does not find them.
pub fn reset_signals() -> io::Result<()> {
    let changed = CHANGED.load(Ordering::Relaxed);
    for signal in 1..=64 {
        match signal {
            _ if changed & bit(signal) == 0 => {}
            // Can't be changed, and so never is.
            libc::SIGKILL | libc::SIGSTOP => {}
            32..34 => unignore_internal(signal)?,
            _ => set_disposition(signal, libc::SIG_DFL)?,
        }
    }
    CHANGED.store(0, Ordering::Relaxed);
    set_mask(&set_of(&[]))
}

/// The two signals that glibc keeps for itself and does not let sigaction(3) touch. Its posix_spawn leaves them ignored in the
/// programs that it starts, so a daemon may have inherited that. A handler of glibc's own is left: execve takes it away.
fn unignore_internal(signal: i32) -> io::Result<()> {
    // The kernel's struct is handler, flags, (restorer,) mask: never more than this, and the handler comes first. All zero = default.
    let mut old = [0usize; 8];
    let default = [0usize; 8];
    // The size that the kernel wants is that of its mask, 64 bits.
    const MASK_SIZE: usize = 8;
    let none = std::ptr::null::<usize>();
    // SAFETY: the kernel writes at most its struct into `old`, which is longer.
    let asked = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, old.as_mut_ptr(), MASK_SIZE) };
    if asked == 0 && old[0] != libc::SIG_IGN {
        return Ok(());
    }
    // SAFETY: the kernel reads at most its struct out of `default`, which is longer; the default runs no code of ours.
    let set = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, MASK_SIZE) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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

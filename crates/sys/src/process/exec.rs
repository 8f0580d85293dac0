//! Replacing the program ([`exec`]), or making a process with another one ([`spawn`]); environment and descriptors are built, not
//! inherited.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    Path(&'a Path),
    /// A descriptor of the file, such as a sealed memfd.
    Fd(BorrowedFd<'a>),
}

/// A program and all that it gets.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    pub program: Program<'a>,
    /// With argument 0.
    pub args: &'a [&'a OsStr],
    /// `NAME=VALUE`, all of it.
    pub env: &'a [&'a OsStr],
    /// Descriptors and the numbers that they get; all others are closed by the exec.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
}

/// Everything allocated before the fork: what follows it may only make system calls.
struct Prepared {
    program: CString,
    /// Kept open until the exec; empty path + AT_EMPTY_PATH.
    by_fd: Option<OwnedFd>,
    _strings: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// Sources that lie above every target, so that no move can hit one.
    fds: Vec<(OwnedFd, RawFd)>,
    above: u32,
}

fn c_string(bytes: &OsStr) -> io::Result<CString> {
    CString::new(bytes.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL in an argument"))
}

impl Prepared {
    fn new(what: &Exec<'_>) -> io::Result<Self> {
        let above = what.fds.iter().map(|(_, target)| *target).max().unwrap_or(2).max(2) + 1;
        let lift = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, above);
        let (program, by_fd) = match what.program {
            Program::Path(path) => (c_string(path.as_os_str())?, None),
            Program::Fd(fd) => (CString::default(), Some(lift(fd)?)),
        };
        let args = what
            .args
            .iter()
            .map(|arg| c_string(arg))
            .collect::<io::Result<Vec<_>>>()?;
        let env = what
            .env
            .iter()
            .map(|entry| c_string(entry))
            .collect::<io::Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| {
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([std::ptr::null()])
                .collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&args), pointers(&env));
        let fds = what
            .fds
            .iter()
            .map(|(fd, target)| Ok((lift(*fd)?, *target)))
            .collect::<io::Result<Vec<_>>>()?;
        let strings = args.into_iter().chain(env).collect();
        Ok(Self {
            program,
            by_fd,
            _strings: strings,
            argv,
            envp,
            fds,
            above: above.unsigned_abs(),
        })
    }

    /// Only system calls in here. Returns if something failed.
    fn run(&self) -> io::Error {
        for (fd, target) in &self.fds {
            // SAFETY: plain descriptors; `target` becomes the new program's. dup2 clears close-on-exec.
            if unsafe { libc::dup2(fd.as_raw_fd(), *target) } == -1 {
                return io::Error::last_os_error();
            }
        }
        // SAFETY: marks descriptors only; those above 2 that are no target go when the exec succeeds.
        if unsafe { libc::syscall(libc::SYS_close_range, self.above, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } == -1 {
            return io::Error::last_os_error();
        }
        // Numbers between 3 and the highest target that nobody asked for.
        for number in 3..self.above.cast_signed() {
            if !self.fds.iter().any(|(_, target)| *target == number) {
                // SAFETY: sets a flag on a descriptor, or fails with EBADF if there is none.
                unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
        }
        let (fd, flags) = self
            .by_fd
            .as_ref()
            .map_or((libc::AT_FDCWD, 0), |fd| (fd.as_raw_fd(), libc::AT_EMPTY_PATH));
        // SAFETY: argv and envp are null-terminated arrays of strings that `self` keeps alive.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd,
                self.program.as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
                flags,
            );
        }
        io::Error::last_os_error()
    }
}

/// Replaces this process's program. Returns only if that failed.
///
/// Signals are the caller's business: see [`super::reset_signals`].
#[must_use]
pub fn exec(what: &Exec<'_>) -> io::Error {
    match Prepared::new(what) {
        Ok(prepared) => prepared.run(),
        Err(error) => error,
    }
}

/// Makes a process with another program; safe in a program with threads. Signal dispositions are defaults in it and nothing is
/// blocked. An exec that failed is an error here. The child must be waited for ([`super::wait()`], [`super::reap`]).
pub fn spawn(what: &Exec<'_>) -> io::Result<u32> {
    start(what, false)
}

/// [`spawn`]; a `bound` program is its maker's tool: it ends with the maker's thread, leads a process group, and has umask 022 and
/// no protection from the OOM killer.
pub(crate) fn start(what: &Exec<'_>, bound: bool) -> io::Result<u32> {
    let prepared = Prepared::new(what)?;
    let (reader, low) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Above every target, so that the moves in the child leave it alone.
    let writer = fcntl_dupfd_cloexec(&low, prepared.above.cast_signed())?;
    drop(low);
    debug_assert!(fcntl_getfd(&writer).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC)));
    let parent = super::getpid().cast_signed();
    // SAFETY: the child makes system calls only (`bind`, `reset_signals`, `run`, write, _exit), which is allowed after a fork with
    // threads.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            if bound {
                bind(parent);
            }
            let failed = super::reset_signals().err().unwrap_or_else(|| prepared.run());
            let errno = failed.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes();
            // SAFETY: writes 4 bytes of a local array; _exit ends this process without running anything of the parent's.
            unsafe {
                libc::write(writer.as_raw_fd(), errno.as_ptr().cast(), errno.len());
                libc::_exit(127)
            }
        }
        pid => pid.unsigned_abs(),
    };
    drop(writer);
    let mut errno = [0; 4];
    // End of file: the exec closed the writer. The peer is our own child between fork and exec, so this does not wait long.
    match rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut errno))? {
        0 => Ok(pid),
        _ => {
            let _ = super::wait(pid);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
        }
    }
}

/// The child's half of a bound [`start`]. Only system calls in here.
fn bind(parent: libc::pid_t) {
    // SAFETY: plain system calls on integers and constants.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(127);
        }
        libc::umask(0o022);
        // Lowering fails without CAP_SYS_RESOURCE: fine.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
        }
    }
}

/// Marks a descriptor as kept or closed by an exec.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    Ok(fcntl_setfd(fd, if on { FdFlags::CLOEXEC } else { FdFlags::empty() })?)
}

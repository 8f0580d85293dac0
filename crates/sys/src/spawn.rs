//! Runs another program to its end, with nothing inherited that was not meant to be.
//!
//! The program gets: the arguments and environment given, fds 0, 1 and 2 and no other, default signal dispositions, an
//! empty signal mask, umask 022, `oom_score_adj` 0, a process group of its own, and SIGKILL when its parent dies. A failed
//! execve is an error of [`spawn`], not an exit status.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What to run.
#[derive(Debug)]
pub struct Program<'a> {
    pub path: &'a Path,
    /// `argv[0]`; `None` = the path.
    pub name: Option<&'a OsStr>,
    /// Without `argv[0]`.
    pub args: &'a [&'a OsStr],
    /// `NAME=value` strings: the whole environment.
    pub env: &'a [&'a str],
    pub stdio: [BorrowedFd<'a>; 3],
}

/// A program that runs. Dropping it leaves it running and unreaped.
#[derive(Debug)]
pub struct Running {
    pid: i32,
    pidfd: OwnedFd,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed(i32),
    /// The deadline passed; its process group was killed.
    TooLate,
}

/// The bounded rest of what a program wrote to a pipe of ours. The pipe is emptied in any case, so it never blocks.
#[derive(Debug)]
pub struct Capture {
    from: Option<File>,
    kept: Vec<u8>,
    limit: usize,
    keep: Keep,
    cut: bool,
}

/// Which part a [`Capture`] keeps of what is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Head,
    Tail,
}

impl Capture {
    /// A capture and the end that the program gets.
    pub fn new(keep: Keep, limit: usize) -> io::Result<(Capture, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((
            Capture {
                from: Some(File::from(reader)),
                kept: Vec::new(),
                limit,
                keep,
                cut: false,
            },
            writer,
        ))
    }

    /// What was kept, and whether there was more.
    pub fn into_parts(self) -> (Vec<u8>, bool) {
        (self.kept, self.cut)
    }

    /// Reads what is there now, at most a few pipes full so that an endless writer can't hold the caller past its deadline.
    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        for _ in 0..64 {
            let Some(from) = &mut self.from else { return };
            match from.read(&mut buffer) {
                Ok(0) => self.from = None,
                Ok(n) => self.keep(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.from = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        match self.keep {
            Keep::Head => {
                let room = self.limit - self.kept.len();
                self.cut |= bytes.len() > room;
                self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Keep::Tail => {
                self.kept.extend_from_slice(bytes);
                if self.kept.len() > self.limit {
                    self.cut = true;
                    self.kept.drain(..self.kept.len() - self.limit);
                }
            }
        }
    }
}

/// Starts the program. An error is the reason why it could not be executed, or why no process could be made for it.
pub fn spawn(program: &Program<'_>) -> io::Result<Running> {
    // Everything that allocates happens before the fork: another thread may hold the allocator's lock.
    let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let path = c(program.path.as_os_str().as_bytes())?;
    let args = program
        .args
        .iter()
        .map(|arg| c(arg.as_bytes()))
        .collect::<io::Result<Vec<_>>>()?;
    let env = program
        .env
        .iter()
        .map(|var| c(var.as_bytes()))
        .collect::<io::Result<Vec<_>>>()?;
    let name = program.name.map(|name| c(name.as_bytes())).transpose()?;
    let mut argv = vec![name.as_ref().unwrap_or(&path).as_ptr()];
    argv.extend(args.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]));
    let mut envp: Vec<_> = env.iter().map(|var| var.as_ptr()).collect();
    envp.push(std::ptr::null());

    // Above fds 0 to 2, whatever the caller has closed, so that the child's dup2 can't hit them.
    let high = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let stdio = [
        high(program.stdio[0])?,
        high(program.stdio[1])?,
        high(program.stdio[2])?,
    ];
    let (failure, low) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let report = high(low.as_fd())?;
    drop(low);
    let parent = rustix::process::getpid().as_raw_nonzero().get();

    // SAFETY: the child calls only async-signal-safe functions, on memory prepared above, and ends in execve or _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let stdio = [stdio[0].as_raw_fd(), stdio[1].as_raw_fd(), stdio[2].as_raw_fd()];
        // SAFETY: we are the child; argv and envp are null-terminated arrays of C strings that are still alive.
        unsafe { become_program(&path, &argv, &envp, stdio, report.as_raw_fd(), parent) }
    }
    drop(report);
    let mut errno = [0; 4];
    let told = File::from(failure).read_exact(&mut errno);
    if told.is_ok() {
        reap(pid);
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)));
    }
    let pidfd = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(|pid| Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?));
    match pidfd {
        Ok(pidfd) => Ok(Running { pid, pidfd }),
        Err(error) => {
            // SAFETY: kill takes no pointer; the child is not reaped, so the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            reap(pid);
            Err(error)
        }
    }
}

/// The child's half of [`spawn`].
///
/// # Safety
/// Only in a forked child; `argv` and `envp` must be null-terminated arrays of valid C strings.
unsafe fn become_program(
    path: &CStr,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    stdio: [RawFd; 3],
    report: RawFd,
    parent: i32,
) -> ! {
    // SAFETY: plain system calls on integers and on memory of our own stack; see the caller's promise for execve.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(127);
        }
        let signals = crate::process::reset_signals();
        libc::umask(0o022);
        // The shim is protected from the OOM killer, what it starts is not. Lowering fails without CAP_SYS_RESOURCE: fine.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
        }
        let mut failed = signals.is_err();
        for (target, fd) in (0..).zip(stdio) {
            failed |= libc::dup2(fd, target) < 0;
        }
        // Marks rather than closes: the report must live until execve succeeds.
        failed |= libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0;
        if !failed {
            libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        let errno = (*libc::__errno_location()).to_ne_bytes();
        libc::write(report, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

/// Takes a dead child's status away.
fn reap(pid: i32) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for an int.
        let done = unsafe { libc::waitpid(pid, &mut status, 0) };
        if done == pid || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return status;
        }
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the program's own end, not for those that hold its pipes, and empties the captures meanwhile.
    pub fn wait(self, deadline: Instant, captures: &mut [Capture]) -> io::Result<Ended> {
        let ended = self.wait_for_end(deadline, captures)?;
        if ended {
            captures.iter_mut().for_each(Capture::drain);
            let status = reap(self.pid);
            return Ok(if libc::WIFSIGNALED(status) {
                Ended::Killed(libc::WTERMSIG(status))
            } else {
                Ended::Exited(libc::WEXITSTATUS(status))
            });
        }
        // SAFETY: kill takes no pointer; the leader is not reaped, so the group's number is still its own.
        unsafe { libc::kill(-self.pid, libc::SIGKILL) };
        // One in uninterruptible sleep does not die of it: it is left to the subreaper.
        if self.wait_for_end(Instant::now() + Duration::from_secs(1), captures)? {
            captures.iter_mut().for_each(Capture::drain);
            reap(self.pid);
        }
        Ok(Ended::TooLate)
    }

    /// False when the deadline came first.
    fn wait_for_end(&self, deadline: Instant, captures: &mut [Capture]) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(
                captures
                    .iter()
                    .filter_map(|c| c.from.as_ref())
                    .map(|from| PollFd::new(from, PollFlags::IN)),
            );
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ended = !fds[0].revents().is_empty();
            drop(fds);
            captures.iter_mut().for_each(Capture::drain);
            if ended {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

/// An unnamed file in memory, closed on exec..
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(
        name,
        rustix::fs::MemfdFlags::CLOEXEC,
    )?))
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::file::dev_null;

    fn run(script: &str, timeout: Duration) -> (Ended, String) {
        run_as(None, script, timeout)
    }

    fn run_as(name: Option<&str>, script: &str, timeout: Duration) -> (Ended, String) {
        let null = dev_null().expect("null");
        let (capture, out) = Capture::new(Keep::Tail, 64).expect("pipe");
        let running = spawn(&Program {
            path: Path::new("/bin/sh"),
            name: name.map(OsStr::new),
            args: &[OsStr::new("-c"), OsStr::new(script)],
            env: &["PATH=/usr/bin:/bin"],
            stdio: [null.as_fd(), out.as_fd(), out.as_fd()],
        })
        .expect("spawn");
        drop(out);
        let mut captures = [capture];
        let ended = running.wait(Instant::now() + timeout, &mut captures).expect("wait");
        let [capture] = captures;
        (ended, String::from_utf8(capture.into_parts().0).expect("text"))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn tells_how_a_program_ended() {
        assert_eq!(run("echo out; exit 7", LONG), (Ended::Exited(7), "out\n".into()));
        assert_eq!(run("kill -9 $$", LONG).0, Ended::Killed(9));
        assert_eq!(
            run("sleep 1000 & sleep 1000", Duration::from_millis(100)).0,
            Ended::TooLate
        );
    }

    #[test]
    fn does_not_wait_for_those_who_hold_the_pipe() {
        let began = Instant::now();
        assert_eq!(run("sleep 3 & echo gone", LONG), (Ended::Exited(0), "gone\n".into()));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_chatty_program_never_blocks_and_the_tail_is_kept() {
        let (ended, tail) = run("head -c 3000000 /dev/zero | tr '\\0' x; echo end", LONG);
        assert_eq!(ended, Ended::Exited(0));
        assert_eq!(tail.len(), 64);
        assert!(tail.ends_with("xend\n"));
    }

    #[test]
    fn inherits_three_fds_and_the_given_environment() {
        let _leak = memory_file("leak").expect("memfd");
        let (_, text) = run(
            "ls /proc/self/fd | tr '\\n' ' '; umask; /usr/bin/env | sort | head -1",
            LONG,
        );
        assert!(text.starts_with("0 1 2 3 0022\nPATH=/usr/bin:/bin\n"), "{text}");
    }

    #[test]
    fn a_program_goes_by_the_name_that_it_is_given() {
        let (ended, said) = run_as(Some("its-name"), "tr '\\0' ' ' </proc/$$/cmdline", LONG);
        assert_eq!(ended, Ended::Exited(0));
        assert!(said.starts_with("its-name -c"), "{said}");
    }

    #[test]
    fn a_failed_execve_is_an_error() {
        let null = dev_null().expect("null");
        for (path, error) in [("/nowhere/at/all", libc::ENOENT), ("/etc/passwd", libc::EACCES)] {
            let program = Program {
                path: Path::new(path),
                name: None,
                args: &[],
                env: &[],
                stdio: [null.as_fd(); 3],
            };
            assert_eq!(
                spawn(&program).expect_err("no such program").raw_os_error(),
                Some(error)
            );
        }
    }
}

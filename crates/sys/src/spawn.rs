//! Runs another program to its end, with nothing inherited that was not meant to be.
//!
//! The program gets: the arguments and environment given, fds 0, 1 and 2 and no other, default signal dispositions, an
//! empty signal mask, umask 022, `oom_score_adj` 0, a process group of its own, and SIGKILL when its parent dies. A failed
//! execve is an error of [`spawn`], not an exit status.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::{self, Exec};

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
    pid: u32,
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
    let name = program.name.unwrap_or(program.path.as_os_str());
    let args: Vec<&OsStr> = std::iter::once(name).chain(program.args.iter().copied()).collect();
    let env: Vec<&OsStr> = program.env.iter().map(OsStr::new).collect();
    let [stdin, stdout, stderr] = program.stdio;
    let exec = Exec {
        program: process::Program::Path(program.path),
        args: &args,
        env: &env,
        fds: &[(stdin, 0), (stdout, 1), (stderr, 2)],
    };
    let pid = process::start(&exec, true)?;
    match process::pidfd_open(pid) {
        Ok(pidfd) => Ok(Running { pid, pidfd }),
        Err(error) => {
            // Not reaped, so the group's number is still its own.
            let _ = process::kill_group(pid);
            let _ = process::wait(pid);
            Err(error)
        }
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the program's own end, not for those that hold its pipes, and empties the captures meanwhile.
    pub fn wait(self, deadline: Instant, captures: &mut [Capture]) -> io::Result<Ended> {
        let ended = self.wait_for_end(deadline, captures)?;
        if ended {
            captures.iter_mut().for_each(Capture::drain);
            return match process::wait(self.pid)? {
                Some(process::Ended::Signaled { signal, .. }) => Ok(Ended::Killed(signal.into())),
                Some(process::Ended::Exited(code)) => Ok(Ended::Exited(code.into())),
                // Somebody else has reaped it, and how it ended is lost.
                None => Err(io::Error::from_raw_os_error(libc::ECHILD)),
            };
        }
        // The leader is not reaped, so the group's number is still its own.
        let _ = process::kill_group(self.pid);
        // One in uninterruptible sleep does not die of it: it is left to the subreaper.
        if self.wait_for_end(Instant::now() + Duration::from_secs(1), captures)? {
            captures.iter_mut().for_each(Capture::drain);
            let _ = process::wait(self.pid);
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
    use std::os::fd::AsFd;

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

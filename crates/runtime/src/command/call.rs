//! One run of a runtime's binary: flags, file descriptors, deadline, and what its end means.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    time::Instant,
};

use berth_sys::{
    file::dev_null,
    spawn::{Capture, Ended, Keep, Program, memory_file, spawn},
};

use super::{Command, message, own_fd, seen_from_outside};
use crate::{Call, Error, Stdio};

/// The whole environment of a runtime: where it finds `newuidmap`, `criu` and hooks without a path.
const ENV: &[&str] = &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
const LOG_LIMIT: u64 = 64 << 10;
const STDERR_LIMIT: usize = 8 << 10;
const STDOUT_LIMIT: usize = 1 << 20;

pub(super) struct Run<'a> {
    operation: &'static str,
    call: &'a Call<'a>,
    deadline: Instant,
}

/// What a run that ended with 0 left.
pub(super) struct Output {
    pub printed: String,
    /// What it said all the same; for the error if its work turns out not to be done.
    pub last_line: String,
}

impl<'a> Run<'a> {
    pub fn new(operation: &'static str, call: &'a Call<'a>) -> Run<'a> {
        Run {
            operation,
            call,
            deadline: Instant::now() + call.timeout,
        }
    }

    /// With the driver's flags before `command`, and a log. `stdio` only where a process of the container's is made.
    pub fn with_flags(
        &self,
        driver: &Command,
        command: Vec<OsString>,
        stdio: Option<Stdio<'_>>,
    ) -> Result<Output, Error> {
        let mut log = memory_file("runtime-log").map_err(|source| self.io("make a log in memory", source))?;
        let mut args: Vec<OsString> = driver.args.iter().map(OsString::from).collect();
        if !driver.root.as_os_str().is_empty() {
            args.extend(["--root".into(), driver.root.clone().into_os_string()]);
        }
        let log_path = seen_from_outside(&own_fd(log.as_raw_fd()));
        args.extend(["--log".into(), log_path, "--log-format".into(), "json".into()]);
        if driver.systemd_cgroup {
            args.push("--systemd-cgroup".into());
        }
        args.extend(command);
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let (ended, printed, stderr) = self.execute(&driver.binary, &args, stdio)?;
        let log = read_log(&mut log).map_err(|source| self.io("read the log", source))?;
        let last_line = message::last_line(&log, &stderr);
        self.judge(driver, ended, last_line)
            .map(|last_line| Output { printed, last_line })
    }

    /// Without any flag; gives what it printed.
    pub fn bare(&self, binary: &Path, args: &[&str]) -> Result<String, Error> {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let (ended, printed, stderr) = self.execute(binary, &args, None)?;
        let driver = Command::default();
        self.judge(&driver, ended, message::last_line(b"", &stderr))
            .map(|_| printed)
    }

    fn execute(
        &self,
        binary: &Path,
        args: &[&OsStr],
        stdio: Option<Stdio<'_>>,
    ) -> Result<(Ended, String, Vec<u8>), Error> {
        let pipe = |keep, limit| Capture::new(keep, limit).map_err(|source| self.io("make a pipe", source));
        let null = dev_null().map_err(|source| self.io("open /dev/null", source))?;
        let (out, out_end) = pipe(Keep::Head, STDOUT_LIMIT)?;
        let (err, err_end) = pipe(Keep::Tail, STDERR_LIMIT)?;
        let stdio = match stdio {
            Some(Stdio::Fds { stdin, stdout, stderr }) => [stdin, stdout, stderr],
            Some(Stdio::Console { .. }) | None => [null.as_fd(), out_end.as_fd(), err_end.as_fd()],
        };
        let running = spawn(&Program {
            path: binary,
            name: None,
            args,
            env: ENV,
            stdio,
        })
        .map_err(|source| self.unable(binary, source))?;
        drop((out_end, err_end));
        let mut captures = [out, err];
        let ended = running
            .wait(self.deadline, &mut captures)
            .map_err(|source| self.io("wait for the runtime", source))?;
        let [out, err] = captures;
        let (printed, _) = out.into_parts();
        Ok((
            ended,
            String::from_utf8_lossy(&printed).into_owned(),
            err.into_parts().0,
        ))
    }

    fn unable(&self, binary: &Path, source: io::Error) -> Error {
        let (operation, id, binary) = (self.operation, self.call.id.to_owned(), binary.to_owned());
        match source.kind() {
            // A script whose interpreter is missing gives the same errno, but the file is there.
            io::ErrorKind::NotFound if !binary.exists() => Error::Missing { operation, id, binary },
            // No process could be made: that is not the binary's fault.
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => self.io("start the runtime", source),
            _ => Error::NotExecutable {
                operation,
                id,
                binary,
                source,
            },
        }
    }

    fn judge(&self, driver: &Command, ended: Ended, last_line: String) -> Result<String, Error> {
        let (operation, id) = (self.operation, self.call.id.to_owned());
        match ended {
            Ended::Exited(0) => Ok(last_line),
            Ended::Exited(status) => {
                let code = message::code(operation, &driver.root, &id, &last_line);
                Err(Error::Refused {
                    operation,
                    id,
                    status,
                    code,
                    last_line,
                })
            }
            Ended::Killed(signal) => Err(Error::Killed {
                operation,
                id,
                signal,
                last_line,
            }),
            Ended::TooLate => Err(Error::Timeout {
                operation,
                id,
                timeout: self.call.timeout,
                last_line,
            }),
        }
    }

    fn io(&self, what: &'static str, source: io::Error) -> Error {
        Error::io(self.operation, self.call.id, what, source)
    }
}

/// The end of the log: the last error is what counts.
fn read_log(log: &mut File) -> io::Result<Vec<u8>> {
    let len = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(len.saturating_sub(LOG_LIMIT)))?;
    let mut bytes = Vec::new();
    log.take(LOG_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

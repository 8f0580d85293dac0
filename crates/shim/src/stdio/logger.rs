//! A program that takes a process's output, by containerd's rules: the two streams come at 3 and 4, closing 5 says that it is ready,
//! and its environment is the two names of what it logs and nothing else. It ends when the streams do.
//!
//! Invariant: it is no child of the loop's making: the creator starts it and waits for its word, and the loop reaps it as it
//! reaps every orphan.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::process::{self, Exec, Program};
use berth_sys::{file, pipe::pipe};
use berth_wire::shim;

#[derive(Debug)]
pub struct Logger {
    program: PathBuf,
    args: Vec<String>,
    /// Closing 5 without a byte is a failure.
    strict: bool,
}

impl From<&shim::Logger> for Logger {
    fn from(logger: &shim::Logger) -> Self {
        Logger {
            program: logger.program.clone().into(),
            args: logger.args.clone(),
            strict: logger.strict,
        }
    }
}

impl Logger {
    /// Starts it and waits until it is ready; gives the process's ends: stdin, stdout, stderr. `id` is the container's or the exec's.
    pub fn start(&self, namespace: &str, id: &str) -> io::Result<[OwnedFd; 3]> {
        let null = file::dev_null()?;
        let (stdout, out) = pipe()?;
        let (stderr, err) = pipe()?;
        let (ready, said) = pipe()?;
        let env = [format!("CONTAINER_ID={id}"), format!("CONTAINER_NAMESPACE={namespace}")];
        let args: Vec<&OsStr> = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsStr::new))
            .collect();
        process::spawn(&Exec {
            program: Program::Path(&self.program),
            args: &args,
            env: &env.each_ref().map(OsStr::new),
            fds: &[
                (null.as_fd(), 0),
                (null.as_fd(), 1),
                (null.as_fd(), 2),
                (stdout.as_fd(), 3),
                (stderr.as_fd(), 4),
                (said.as_fd(), 5),
            ],
        })?;
        drop(said);
        // However long it takes: the start's own deadline ends the wait, and the creator with it.
        match file::read_some(&ready, &mut [0; 1])? {
            Some(0) if self.strict => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "it ended before it was ready",
            )),
            _ => Ok([null, out, err]),
        }
    }
}

#[cfg(test)]
mod test {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_gets_both_streams_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("berth-logger.{}", process::getpid()));
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("logger");
        let text = "#!/bin/sh\ncd ${0%/*}\ntr '\\0' '\\n' </proc/$$/environ >env\necho $* >args\n[ $1 = mute ] && exit\necho r >&5\n\
                    exec 5>&-\ncat <&4 >err\ncat <&3 >out\necho done >end\n";
        fs::write(&program, text).expect("a script");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
        let logger = |args: &[&str], strict| Logger {
            program: program.clone(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            strict,
        };
        let [_, out, err] = logger(&["a", "b c"], true).start("moby", "one").expect("ready");
        fs::File::from(out).write_all(b"to out").expect("written");
        fs::File::from(err).write_all(b"to err").expect("written");
        // It says so with its last step: until then it writes into the folder.
        let finished = || {
            while fs::remove_file(folder.join("end")).is_err() {
                std::thread::yield_now();
            }
        };
        finished();
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
        assert_eq!(
            (read("out"), read("err"), read("args")),
            ("to out".into(), "to err".into(), "a b c\n".into())
        );
        let mut env: Vec<_> = read("env").lines().map(str::to_owned).collect();
        env.sort();
        assert_eq!(env, ["CONTAINER_ID=one", "CONTAINER_NAMESPACE=moby"]);
        assert!(logger(&["mute"], true).start("moby", "one").is_err(), "not a byte");
        assert!(
            logger(&["mute"], false).start("moby", "one").is_ok(),
            "closing is enough"
        );
        let absent = Logger {
            program: folder.join("absent"),
            ..logger(&[], false)
        };
        assert_eq!(
            absent.start("moby", "one").expect_err("absent").kind(),
            io::ErrorKind::NotFound
        );
        fs::remove_dir_all(&folder).expect("removed");
    }
}

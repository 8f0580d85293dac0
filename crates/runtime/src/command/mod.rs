//! Any OCI runtime with runc's command line: runc, crun, youki, runsc.
//!
//! A call is one run of the binary. Its log goes to a file in memory, so that a full disk can't hide the reason of a failure
//! and nothing is left over; its stderr is always emptied. A `create` or `exec` without a terminal hands the container's own
//! stdio to the runtime, because that is how the container gets it.

mod call;
mod message;

use std::{
    ffi::OsString,
    io::{ErrorKind, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use berth_core::ErrorCode;
use berth_sys::spawn::memory_file;
use serde::Deserialize;

use self::call::{Output, Run};
use crate::{Call, CreateArgs, Created, Driver, Error, ExecArgs, Features, State, Status, Stdio};

/// How long the clean-up after a failed create may take.
const UNDO: Duration = Duration::from_secs(10);
/// How long the processes of a killed runtime may take to be gone.
const CGROUP_EMPTIES: Duration = Duration::from_secs(1);

/// The driver's parameters; it holds nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// Absolute path of the binary.
    pub binary: PathBuf,
    /// Before everything else on its command line.
    pub args: Vec<String>,
    /// Empty = the runtime's own default.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
}

impl Driver for Command {
    fn create(&self, args: &CreateArgs<'_>) -> Result<Created, Error> {
        let made = self.make("create", &args.call, "init", args.stdio, |command| {
            command.push("--bundle".into());
            command.push(seen_from_outside(args.bundle));
            for (wanted, flag) in [
                (self.no_pivot_root, "--no-pivot"),
                (self.no_new_keyring, "--no-new-keyring"),
            ] {
                if wanted {
                    command.push(flag.into());
                }
            }
        });
        if made
            .as_ref()
            .is_err_and(|error| error.code() != ErrorCode::AlreadyExists)
        {
            self.undo_create(args);
        }
        made
    }

    fn start(&self, call: &Call<'_>) -> Result<(), Error> {
        self.simple("start", call, &["start"])
    }

    fn exec(&self, args: &ExecArgs<'_>) -> Result<Created, Error> {
        let fail = |source| Error::io("exec", args.call.id, "keep the process in memory", source);
        let mut process = memory_file("process").map_err(fail)?;
        process.write_all(args.process).map_err(fail)?;
        self.make("exec", &args.call, args.exec_id, args.stdio, |command| {
            command.extend(["--detach".into(), "--process".into()]);
            command.push(seen_from_outside(&own_fd(process.as_raw_fd())));
        })
    }

    fn kill_all(&self, call: &Call<'_>, signal: u32) -> Result<(), Error> {
        let signal = OsString::from(signal.to_string());
        let command = vec!["kill".into(), "--all".into(), call.id.into(), signal];
        match self.run("kill", call, command) {
            // It is gone, or its last process ended first: nobody is left to signal.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::WrongState) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn pause(&self, call: &Call<'_>) -> Result<(), Error> {
        self.simple("pause", call, &["pause"])
    }

    fn resume(&self, call: &Call<'_>) -> Result<(), Error> {
        self.simple("resume", call, &["resume"])
    }

    fn update(&self, call: &Call<'_>, resources: &[u8]) -> Result<(), Error> {
        let fail = |source| Error::io("update", call.id, "keep the resources in memory", source);
        let mut file = memory_file("resources").map_err(fail)?;
        file.write_all(resources).map_err(fail)?;
        let path = seen_from_outside(&own_fd(file.as_raw_fd()));
        self.run(
            "update",
            call,
            vec!["update".into(), "--resources".into(), path, call.id.into()],
        )
        .map(|_| ())
    }

    fn delete(&self, call: &Call<'_>, force: bool) -> Result<(), Error> {
        let done = if force {
            self.simple("delete", call, &["delete", "--force"])
        } else {
            self.simple("delete", call, &["delete"])
        };
        match done {
            Err(error) if error.code() == ErrorCode::NotFound => Ok(()),
            other => other,
        }
    }

    fn state(&self, call: &Call<'_>) -> Result<State, Error> {
        Ok(self.full_state(call)?.0)
    }

    fn features(&self, timeout: Duration) -> Result<Features, Error> {
        let call = Call {
            id: "",
            work: Path::new("/"),
            timeout,
        };
        // Without flags of ours: not every runtime takes them here.
        let bare = |command: &str| {
            let args: Vec<&str> = self.args.iter().map(String::as_str).chain([command]).collect();
            Run::new("features", &call).bare(&self.binary, &args)
        };
        let version = bare("--version")?;
        let first = version.lines().next().unwrap_or_default().trim();
        if first.is_empty() {
            return Err(Error::broken(
                "features",
                "",
                "it did not tell its version",
                String::new(),
            ));
        }
        // runc before 1.1, crun before 1.8.6 and others know no such command: that is no error.
        let features = bare("features").ok().and_then(|text| serde_json::from_str(&text).ok());
        Ok(Features {
            version: message::one_line(first),
            features: features.unwrap_or_default(),
        })
    }
}

/// What `state` prints; other fields do not matter.
#[derive(Deserialize)]
struct PrintedState {
    #[serde(default)]
    pid: i64,
    status: String,
    #[serde(default)]
    bundle: PathBuf,
}

impl Command {
    fn simple(&self, operation: &'static str, call: &Call<'_>, command: &[&str]) -> Result<(), Error> {
        let command = command.iter().copied().chain([call.id]).map(OsString::from).collect();
        self.run(operation, call, command).map(|_| ())
    }

    /// Runs a command that makes no process of the container's; gives what it printed.
    fn run(&self, operation: &'static str, call: &Call<'_>, command: Vec<OsString>) -> Result<Output, Error> {
        Run::new(operation, call).with_flags(self, command, None)
    }

    /// `create` and `exec`: a process, with stdio or a terminal, that tells its pid in a file.
    fn make(
        &self,
        operation: &'static str,
        call: &Call<'_>,
        name: &str,
        stdio: Stdio<'_>,
        flags: impl FnOnce(&mut Vec<OsString>),
    ) -> Result<Created, Error> {
        let pid_file = call.work.join(format!("{name}.pid"));
        let mut command = vec![OsString::from(operation)];
        flags(&mut command);
        command.push("--pid-file".into());
        command.push(seen_from_outside(&pid_file));
        if let Stdio::Console { socket } = stdio {
            command.push("--console-socket".into());
            command.push(seen_from_outside(socket));
        }
        command.push(call.id.into());
        // One of an earlier try must not be believed.
        remove(&pid_file);
        let ran = Run::new(operation, call).with_flags(self, command, Some(stdio));
        let pid = ran.and_then(|output| {
            read_pid(&pid_file).map_err(|problem| Error::broken(operation, call.id, &problem, output.last_line))
        });
        remove(&pid_file);
        Ok(Created { pid: pid?, known: None })
    }

    /// Removes what a failed `create` left, unless the name turns out to be another bundle's container.
    fn undo_create(&self, args: &CreateArgs<'_>) {
        let call = Call {
            timeout: UNDO,
            ..args.call
        };
        let foreign = self
            .full_state(&call)
            .is_ok_and(|(_, bundle)| !same_folder(&bundle, args.bundle));
        if !foreign {
            // The failure that brought us here is told; what this one leaves is found by the next delete.
            let _ = self.delete(&call, true);
            if !self.systemd_cgroup {
                remove_cgroup(args.bundle, call.id);
            }
        }
    }

    fn full_state(&self, call: &Call<'_>) -> Result<(State, PathBuf), Error> {
        let output = self.run("state", call, vec!["state".into(), call.id.into()])?;
        let broken = |problem: &str| Error::broken("state", call.id, problem, message::one_line(&output.printed));
        let printed: PrintedState =
            serde_json::from_str(&output.printed).map_err(|_| broken("what it printed is not a state"))?;
        let status = match printed.status.as_str() {
            "creating" => Status::Creating,
            "created" => Status::Created,
            "running" => Status::Running,
            "paused" => Status::Paused,
            "stopped" => Status::Stopped,
            _ => return Err(broken("it told an unknown status")),
        };
        Ok((
            State {
                pid: u32::try_from(printed.pid).unwrap_or(0),
                status,
            },
            printed.bundle,
        ))
    }
}

/// A runtime that was killed before it had written its state down has forgotten the cgroup that it made. Only the folder itself
/// goes, and only if neither a process nor another group is in it: the name may be one that others use.
fn remove_cgroup(bundle: &Path, id: &str) {
    let config = berth_sys::file::read(&bundle.join("config.json"), crate::CONFIG_LIMIT).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let name = match config["linux"]["cgroupsPath"].as_str() {
        Some(path) if !path.is_empty() => path.to_owned(),
        // What runc and crun call it then.
        _ => format!("/{id}"),
    };
    // A relative one is below the runtime's own; nobody knows which that was.
    let group = berth_sys::cgroup::Hierarchies::detect().and_then(|all| all.group_named(&name));
    let Ok(group) = group else { return };
    // Its last process has got the kill, and ends in its own time.
    let until = Instant::now() + CGROUP_EMPTIES;
    let busy = |folder: &&Path| std::fs::remove_dir(folder).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy);
    while group.folders().into_iter().filter(busy).count() > 0 && Instant::now() < until {
        // cgroup v1 tells nobody when the last process has left a group.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A bundle given through `/proc/self/fd` is told back by another name.
fn same_folder(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        // One that was removed meanwhile is at least not somebody else's living bundle.
        _ => a == b || !a.exists(),
    }
}

fn remove(path: &Path) {
    // Usually it is not there; if it can't be removed, reading it tells more than this error would.
    let _ = std::fs::remove_file(path);
}

/// A pid file is one number; the reason if it is not.
fn read_pid(path: &Path) -> Result<u32, String> {
    let text = berth_sys::file::read(path, 64).map_err(|error| format!("its pid file can't be read: {error}"))?;
    let number = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    match number {
        Some(pid) if pid > 0 && i32::try_from(pid).is_ok() => Ok(pid),
        _ => Err(format!("its pid file holds {:?}", String::from_utf8_lossy(&text))),
    }
}

fn own_fd(fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{fd}"))
}

/// A path as another process sees it: our `/proc/self` is its `/proc/PID`.
fn seen_from_outside(path: &Path) -> OsString {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc")
            .join(std::process::id().to_string())
            .join(rest)
            .into_os_string(),
        Err(_) => path.as_os_str().to_owned(),
    }
}

#[cfg(test)]
mod test;

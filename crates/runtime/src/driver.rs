//! The trait that every way to make a container implements, and the values of its calls.

use std::{os::fd::BorrowedFd, path::Path, time::Duration};

use crate::Error;

/// One way to make containers. Each method blocks until it is done or the call's timeout has passed.
///
/// The processes that `create` and `exec` make end up as children of the nearest subreaper above the caller: the shim.
pub trait Driver {
    /// Makes the container up to the point where `start` only has to let it run. On failure nothing is left of it.
    fn create(&self, args: &CreateArgs<'_>) -> Result<Created, Error>;
    /// `create`, then `start` if `go` says so: it is asked once the process is made. A driver that still holds the process then needs
    /// not find it again. A failure after `go` was asked leaves the container to a `delete`.
    fn run(&self, args: &CreateArgs<'_>, go: &mut dyn FnMut(&Created) -> bool) -> Result<Created, Error> {
        let created = self.create(args)?;
        if go(&created) {
            self.start(&args.call)?;
        }
        Ok(created)
    }
    /// Lets the init process execute the container's command.
    fn start(&self, call: &Call<'_>) -> Result<(), Error>;
    /// Starts another process in the container. Returns its pid as this pid namespace sees it.
    fn exec(&self, args: &ExecArgs<'_>) -> Result<Created, Error>;
    /// Signals every process of the container. A container that is gone or has no process is success.
    fn kill_all(&self, call: &Call<'_>, signal: u32) -> Result<(), Error>;
    /// Freezes every process of the container.
    fn pause(&self, call: &Call<'_>) -> Result<(), Error>;
    /// Undoes `pause`.
    fn resume(&self, call: &Call<'_>) -> Result<(), Error>;
    /// Changes limits: `resources` is an OCI `LinuxResources` object as JSON.
    fn update(&self, call: &Call<'_>, resources: &[u8]) -> Result<(), Error>;
    /// Removes what the runtime keeps of the container. Can be repeated: an unknown container is success.
    /// With `force` what still runs is killed first.
    fn delete(&self, call: &Call<'_>, force: bool) -> Result<(), Error>;
    /// What the runtime says about the container.
    fn state(&self, call: &Call<'_>) -> Result<State, Error>;
    /// The runtime's version and what it can do. Needs no container.
    fn features(&self, timeout: Duration) -> Result<Features, Error>;
}

/// What every call about a container has.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The container's name for the runtime. Unique below the runtime's root.
    pub id: &'a str,
    /// A folder for files that live as long as the call: the container's own. `/proc/self/fd/N` is allowed here and in
    /// every other path of a call; a runtime sees it through the caller's pid.
    pub work: &'a Path,
    /// How long the call may take, a clean-up after it not counted.
    pub timeout: Duration,
}

/// Where a new process's output and input go.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'a> {
    /// These become its fds 0, 1 and 2.
    Fds {
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// It gets a terminal; the runtime sends the master by SCM_RIGHTS to this listening socket.
    /// The path must fit into a socket address (107 bytes): give `/proc/self/fd/N/NAME` for a long one.
    Console { socket: &'a Path },
}

impl Stdio<'_> {
    /// Whether the process gets a terminal.
    pub fn terminal(&self) -> bool {
        matches!(self, Stdio::Console { .. })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct CreateArgs<'a> {
    pub call: Call<'a>,
    /// Absolute. Checked by `Bundle::load` before.
    pub bundle: &'a Path,
    /// Its config.json, if it was read before.
    pub config: Option<&'a [u8]>,
    pub stdio: Stdio<'a>,
}

#[derive(Debug, Clone, Copy)]
pub struct ExecArgs<'a> {
    pub call: Call<'a>,
    pub exec_id: &'a str,
    /// A whole OCI process object as JSON; see `exec_process`.
    pub process: &'a [u8],
    pub stdio: Stdio<'a>,
}

/// A process that a driver made. Its parent is the subreaper, so the pid is good until that one reaps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub pid: u32,
    /// What a driver knows of it that made everything itself; otherwise /proc has to tell.
    pub known: Option<Known>,
}

/// What need not be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// The group that counts what the OOM killer does was made for this container.
    pub has_new_group: bool,
    /// Its pid namespace was made for it.
    pub has_new_pids: bool,
}

/// What a runtime says about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// 0 when it is stopped.
    pub pid: u32,
    pub status: Status,
}

/// The OCI states, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// What a runtime says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Its first line about its version, such as `runc version 1.1.5`.
    pub version: String,
    /// The object of its `features` command, null if it has none.
    pub features: serde_json::Value,
}

//! Ways to make a container: any OCI runtime's command (`command`), later the embedded one.
//!
//! A driver blocks. Only a creator, a child that the shim forks for one call and that may be killed with its process group
//! at any instruction, calls one; so a driver holds no state, and whatever it leaves behind `delete` with `force` removes.
#![forbid(unsafe_code)]

mod error;

pub use error::{Error, Kind};

use std::os::fd::BorrowedFd;
use std::path::Path;

/// Where the process's fds 0, 1 and 2 come from.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'a> {
    /// Given to the process as they are.
    Fds { stdin: BorrowedFd<'a>, stdout: BorrowedFd<'a>, stderr: BorrowedFd<'a> },
    /// The process gets a terminal, and its master is sent to the unix socket that listens at this (short) path.
    Console { socket: &'a Path },
}

/// One container to create.
#[derive(Debug)]
pub struct Create<'a> {
    pub id: &'a str,
    pub bundle: &'a Path,
    pub stdio: Stdio<'a>,
    /// A short path of a folder that is only this container's, for files of the driver's own (pid file, log). They are removed
    /// again before the call ends.
    pub work: &'a Path,
}

/// One more process in a running container.
#[derive(Debug)]
pub struct Exec<'a> {
    pub id: &'a str,
    /// Names the driver's files in `work`, so that execs at one time do not meet.
    pub exec_id: &'a str,
    /// A whole OCI process object.
    pub process_json: &'a [u8],
    pub stdio: Stdio<'a>,
    pub work: &'a Path,
}

/// What a kind of runtime must be able to do. Each call blocks until it is done.
///
/// `work` is as in [`Create`].
pub trait Driver {
    /// Makes the container and leaves it before execve; its init is a child of the nearest subreaper. Answers its pid.
    fn create(&self, args: &Create<'_>) -> Result<i32, Error>;
    /// Lets the created container's init execve.
    fn start(&self, id: &str, work: &Path) -> Result<(), Error>;
    /// Runs one more process, a child of the nearest subreaper. Answers its pid, which may have ended already.
    fn exec(&self, args: &Exec<'_>) -> Result<i32, Error>;
    /// Sends a signal to every process of the container.
    fn kill_all(&self, id: &str, signal: i32, work: &Path) -> Result<(), Error>;
    fn pause(&self, id: &str, work: &Path) -> Result<(), Error>;
    fn resume(&self, id: &str, work: &Path) -> Result<(), Error>;
    /// `resources_json` is an OCI LinuxResources object.
    fn update(&self, id: &str, resources_json: &[u8], work: &Path) -> Result<(), Error>;
    /// Removes what the runtime keeps of the container. What is not there is removed: it succeeds.
    fn delete(&self, id: &str, force: bool, work: &Path) -> Result<(), Error>;
    /// The runtime's own `features` document, where it has one.
    fn features(&self) -> Result<Option<Vec<u8>>, Error>;
}

//! Ways to make a container, behind one trait: [`Driver`].
//!
//! Every call blocks, has a deadline and runs in a *creator*: a child that the shim forked for this one call. So nothing
//! here may keep state that the next call needs: a driver is a value that any creator can build again from its parameters.
//!
//! Invariants: a runtime inherits an environment, a signal state and file descriptors that were built for it, never the
//! shim's; what a failed `create` left half made is undone before the error is told; no file of ours outlives a call.
#![forbid(unsafe_code)]

mod bundle;
mod command;
mod driver;
mod embedded;
mod error;
mod process;
mod rootfs;
#[cfg(test)]
mod testing;

pub use bundle::{Bundle, CONFIG_LIMIT};
pub use command::Command;
pub use driver::{Call, CreateArgs, Created, Driver, ExecArgs, Features, Known, State, Status, Stdio};
pub use embedded::Embedded;
pub use error::Error;
pub use process::{Overrides, Rlimit, check_process, exec_process};
pub use rootfs::{RootfsMount, mount_rootfs};

//! The embedded OCI runtime: from a bundle to a running container, by system calls and without another program.
//!
//! Called in a creator (a forked, single-threaded process that may block, change its namespaces and die), by the shim or
//! by `berth-oci`. Invariants: no thread, no async, no global state; every path inside a root filesystem goes through
//! [`berth_sys::inroot`]; a failed call leaves nothing behind.
#![forbid(unsafe_code)]

mod between;
mod cgroup;
mod channel;
mod check;
mod clock;
mod console;
mod control;
mod create;
mod error;
mod events;
mod exec;
mod features;
mod foreground;
mod guard;
mod hooks;
mod init;
mod labels;
mod last;
mod netdev;
mod parse;
mod plan;
mod process;
mod rdt;
mod rehearse;
mod rootfs;
mod seccomp;
mod sources;
mod spec;
mod state;
mod sysctl;

pub use cgroup::Cgroups;
pub use clock::rfc3339;
pub use control::{delete, list};
pub use create::{CreateOptions, create, run};
pub use error::OciError;
pub use events::Event;
pub use exec::{ExecOptions, exec};
pub use features::features;
pub use foreground::{adopt_orphans, send_pidfd, signal_by_name, wait};
pub use guard::leave_own_file;
pub use oci_spec;
pub use process::capability_sets;
pub use rehearse::{rehearse_config, rehearse_process};
pub use rootfs::{RootfsMount, mount_rootfs};
pub use seccomp::Filter;
pub use spec::{load, load_telling, load_text, read_process};
pub use state::{Container, Status};

/// The version of the OCI runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.2.0";

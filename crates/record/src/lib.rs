//! Run-time records that daemon and shim share: where they lie, how they are written, what they mean after a restart; and the
//! journal of events.
//!
//! Invariants: a record is replaced whole and carries version and checksum; what is broken costs one container; nothing is synced
//! (the state folder dies with the boot); an exit needs no free space; everything is bounded when read.
#![forbid(unsafe_code)]

mod convert;
pub mod envelope;
mod error;
mod folder;
pub mod journal;
mod layout;
pub mod log;
pub mod random;
mod scan;
#[cfg(test)]
mod test;
mod types;

pub use error::Error;
pub use folder::{Folder, SOCKET};
pub use journal::{Journal, Limits};
pub use layout::{FILTERS, Layout, Lock, folder_name, parse_folder_name};
pub use scan::{Index, Loaded, Verdict, judge, known, load, scan};
pub use types::{
    ContainerRecord, DriverKind, ExecRecord, ExitRecord, FormatRecord, PolicyRecord, ProcessRecord, ReasonRecord,
    RestartPolicyRecord, RestartRecord, RuntimeRecord, ShimRecord, ShimState, StageRecord, StateRecord, StdioRecord,
    StdioToRecord,
};

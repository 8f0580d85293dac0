//! Decisions: ids, the state table, the start queue, idempotency, event numbers, exits, stdio, error codes.
//!
//! Nothing here does I/O, reads a clock or knows tokio: values in, values out. `berth-supervisor` applies what is decided here.
#![forbid(unsafe_code)]

mod error;
mod event;
mod exit;
mod id;
pub mod queue;
pub mod request;
pub mod restart;
mod signal;
pub mod state;
mod stdio;

pub use error::{Error, ErrorCode};
pub use event::{Cursor, EventKind};
pub use exit::{ExitReason, ExitStatus};
pub use id::{ContainerId, ContainerKey, ExecId, Incarnation, Namespace};
pub use request::RequestId;
pub use restart::RestartPolicy;
pub use signal::Signal;
pub use stdio::{
    FifoSpec, LogDefaults, LogFormat, LogPolicy, LogSpec, LoggerSpec, Stdio, StdioTo, Stream, TerminalSize,
};

//! Why a shim refuses or fails a call, with the code that the user's client will see.

use std::io;

use berth_core::ErrorCode;
use berth_wire::rpc::CallError;
use berth_wire::shim::Failure;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation}: {problem}")]
    Invalid { operation: &'static str, problem: String },
    #[error("{operation}: {problem}")]
    State { operation: &'static str, problem: String },
    #[error("{operation}: no {what}")]
    NotFound { operation: &'static str, what: String },
    #[error("{operation}: {what} is there already")]
    Exists { operation: &'static str, what: String },
    /// The driver's own words, as a creator reported them.
    #[error("{message}")]
    Driver {
        code: u32,
        message: String,
        runtime_message: String,
        exit_code: u32,
    },
    #[error("{operation}: not done within {after_ms} ms; it was undone")]
    Timeout { operation: &'static str, after_ms: u64 },
    #[error("{operation}: given up for a delete")]
    Cancelled { operation: &'static str },
    #[error("{operation}: the creator ended without an answer")]
    Creator { operation: &'static str },
    #[error("{operation}: only a daemon may ask this")]
    Tool { operation: &'static str },
    #[error("{operation} {path}: {source}")]
    Io {
        operation: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("{operation}: {source}")]
    Record {
        operation: &'static str,
        source: berth_record::Error,
    },
    #[error(transparent)]
    Call(#[from] CallError),
}

/// ENOSPC, EMFILE, ENFILE, ENOMEM, EAGAIN (no more processes), EDQUOT.
const EXHAUSTED: [i32; 6] = [28, 24, 23, 12, 11, 122];

impl Error {
    pub fn io(operation: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }

    /// Of `berth.v1.ErrorCode`.
    pub fn code(&self) -> u32 {
        let code = match self {
            Error::Driver { code, .. } => return *code,
            Error::Invalid { .. } | Error::Call(_) => ErrorCode::InvalidArgument,
            Error::State { .. } | Error::Tool { .. } => ErrorCode::WrongState,
            Error::NotFound { .. } => ErrorCode::NotFound,
            Error::Exists { .. } => ErrorCode::AlreadyExists,
            Error::Timeout { .. } => ErrorCode::Timeout,
            Error::Cancelled { .. } => ErrorCode::Cancelled,
            Error::Creator { .. } => ErrorCode::Runtime,
            Error::Io { source, .. } if source.raw_os_error().is_some_and(|e| EXHAUSTED.contains(&e)) => {
                ErrorCode::Resources
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorCode::InvalidArgument,
            Error::Io { .. } => ErrorCode::Internal,
            Error::Record { .. } => ErrorCode::Resources,
        };
        code.number()
    }

    pub fn failure(&self) -> Failure {
        match self {
            Error::Driver {
                code,
                runtime_message,
                exit_code,
                ..
            } => Failure {
                code: *code,
                runtime_message: runtime_message.clone(),
                exit_code: *exit_code,
            },
            other => Failure {
                code: other.code(),
                ..Failure::default()
            },
        }
    }
}

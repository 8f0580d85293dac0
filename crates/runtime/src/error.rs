//! What can go wrong with a runtime, and which code the user's client sees for it.

use std::{io, path::PathBuf, time::Duration};

use berth_core::ErrorCode;

/// A failed call. `operation` is the trait's method.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("bundle {}: {problem}", path.display())]
    Bundle { path: PathBuf, problem: String },
    /// The request's own values are wrong: an unknown user, a bad rlimit.
    #[error("{operation}: {problem}")]
    Invalid { operation: &'static str, problem: String },
    #[error("{operation} {id}: runtime {} does not exist", binary.display())]
    Missing {
        operation: &'static str,
        id: String,
        binary: PathBuf,
    },
    #[error("{operation} {id}: runtime {} can't be executed: {source}", binary.display())]
    NotExecutable {
        operation: &'static str,
        id: String,
        binary: PathBuf,
        source: io::Error,
    },
    #[error(
        "{operation} {id}: the runtime did not end within {timeout:?} and was killed{}",
        tail(last_line)
    )]
    Timeout {
        operation: &'static str,
        id: String,
        timeout: Duration,
        last_line: String,
    },
    #[error("{operation} {id}: the runtime was killed by signal {signal}{}", tail(last_line))]
    Killed {
        operation: &'static str,
        id: String,
        signal: i32,
        last_line: String,
    },
    /// The runtime's own refusal, with what is known about its reason.
    #[error("{operation} {id}: {}", or_status(last_line, *status))]
    Refused {
        operation: &'static str,
        id: String,
        status: i32,
        code: ErrorCode,
        last_line: String,
    },
    /// It said "done" and what it should have made is not there.
    #[error("{operation} {id}: the runtime ended with success, but {problem}{}", tail(last_line))]
    Broken {
        operation: &'static str,
        id: String,
        problem: String,
        last_line: String,
    },
    #[error("{operation} {id}: {what}: {source}")]
    Io {
        operation: &'static str,
        id: String,
        what: &'static str,
        source: io::Error,
    },
}

fn tail(line: &str) -> String {
    if line.is_empty() {
        String::new()
    } else {
        format!(": {line}")
    }
}

fn or_status(line: &str, status: i32) -> String {
    if line.is_empty() {
        format!("the runtime ended with {status} and said nothing")
    } else {
        line.to_owned()
    }
}

impl Error {
    pub(crate) fn io(operation: &'static str, id: &str, what: &'static str, source: io::Error) -> Error {
        Error::Io {
            operation,
            id: id.to_owned(),
            what,
            source,
        }
    }

    pub(crate) fn broken(operation: &'static str, id: &str, problem: &str, last_line: String) -> Error {
        Error::Broken {
            operation,
            id: id.to_owned(),
            problem: problem.to_owned(),
            last_line,
        }
    }

    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Bundle { .. } => ErrorCode::Bundle,
            Error::Invalid { .. } => ErrorCode::InvalidArgument,
            Error::Missing { .. } | Error::NotExecutable { .. } | Error::Killed { .. } | Error::Broken { .. } => {
                ErrorCode::Runtime
            }
            Error::Timeout { .. } => ErrorCode::Timeout,
            Error::Refused { code, .. } => *code,
            Error::Io { source, .. } => match source.raw_os_error() {
                Some(
                    number::EAGAIN | number::ENOMEM | number::ENFILE | number::EMFILE | number::ENOSPC | number::EDQUOT,
                ) => ErrorCode::Resources,
                _ => ErrorCode::Internal,
            },
        }
    }

    /// The runtime's own last line, empty if it said nothing.
    pub fn runtime_message(&self) -> &str {
        match self {
            Error::Timeout { last_line, .. }
            | Error::Killed { last_line, .. }
            | Error::Refused { last_line, .. }
            | Error::Broken { last_line, .. } => last_line,
            Error::Bundle { .. }
            | Error::Invalid { .. }
            | Error::Missing { .. }
            | Error::NotExecutable { .. }
            | Error::Io { .. } => "",
        }
    }

    /// 127 for a command that is not in the root filesystem, 126 for one that can't be executed, otherwise 0.
    pub fn exit_code(&self) -> u32 {
        match self.code() {
            ErrorCode::CommandNotFound => 127,
            ErrorCode::CommandNotExecutable => 126,
            _ => 0,
        }
    }
}

/// errno of Linux on every architecture that Berth is built for.
mod number {
    pub const EAGAIN: i32 = 11;
    pub const ENOMEM: i32 = 12;
    pub const ENFILE: i32 = 23;
    pub const EMFILE: i32 = 24;
    pub const ENOSPC: i32 = 28;
    pub const EDQUOT: i32 = 122;
}

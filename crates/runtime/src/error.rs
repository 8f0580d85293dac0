//! The one error of this crate, and what kind of failure it is.
use std::path::PathBuf;

/// What went wrong, for whoever has to decide what to tell the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The bundle, or its config.json, is not there or is not right.
    Bundle,
    /// The program to run is not in the root filesystem.
    CommandNotFound,
    /// The program to run may not be executed.
    CommandNotExecutable,
    /// The runtime knows no such container.
    NotFound,
    /// Not in this state (exec in a stopped container).
    WrongState,
    /// No memory, no space, no pids.
    Resources,
    /// Anything else that the runtime refused, and a runtime that is missing or talks nonsense.
    Runtime,
    /// The runtime can't do this at all.
    Unsupported,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime ended with an error of its own.
    #[error("{binary} {operation}: {message}", binary = .binary.display())]
    Refused {
        operation: &'static str,
        binary: PathBuf,
        /// The runtime's last line.
        message: String,
        exit_code: i32,
        kind: Kind,
    },
    /// The runtime ended well but did not do what it should (no pid file, garbage in it).
    #[error("{binary} {operation}: {message}", binary = .binary.display())]
    Garbage { operation: &'static str, binary: PathBuf, message: String },
    /// A system call of ours around it failed.
    #[error("{operation} {path}: {source}", path = .path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Error::Refused { kind, .. } => *kind,
            Error::Garbage { .. } => Kind::Runtime,
            Error::Io { source, .. } => match source.raw_os_error() {
                // ENOSPC, EMFILE, ENFILE, ENOMEM, EAGAIN, EDQUOT.
                Some(28 | 24 | 23 | 12 | 11 | 122) => Kind::Resources,
                _ => Kind::Runtime,
            },
        }
    }

    /// The runtime's own last line, "" where it said nothing.
    pub fn runtime_message(&self) -> &str {
        match self {
            Error::Refused { message, .. } | Error::Garbage { message, .. } => message,
            Error::Io { .. } => "",
        }
    }

    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Refused { exit_code, .. } => *exit_code,
            Error::Garbage { .. } | Error::Io { .. } => 0,
        }
    }
}

//! What can go wrong between a client and berthd.

use std::io;
use std::path::PathBuf;

use berth_wire::v1::ErrorDetail;
use prost::Message as _;
use tonic::{Code, Status};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("berthd is not running at {address}")]
    NotRunning { address: PathBuf },
    #[error("may not open {address}: only root and the socket's group may")]
    Forbidden { address: PathBuf },
    #[error("cannot connect to berthd at {address}")]
    Connect { address: PathBuf, source: io::Error },
    /// The connection broke, and berthd did not come back in time. Containers go on without it.
    #[error("{operation} {id}: berthd at {address} went away and did not come back within {seconds} s ({cause})")]
    Lost {
        operation: &'static str,
        id: String,
        address: PathBuf,
        seconds: u64,
        cause: String,
    },
    /// berthd said no.
    #[error("{message}")]
    Refused {
        operation: &'static str,
        id: String,
        code: Code,
        message: String,
        detail: Box<ErrorDetail>,
    },
}

impl Error {
    pub fn refused(operation: &'static str, id: &str, status: &Status) -> Self {
        let mut message = status.message().trim().to_owned();
        if message.is_empty() {
            message = format!("{operation} {id}: {}", status.code().description());
        }
        Self::Refused {
            operation,
            id: id.to_owned(),
            code: status.code(),
            message,
            detail: Box::new(detail(status)),
        }
    }

    /// The code of berthd's answer, `None` if there was none.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }
}

/// What berthd says beyond the status; empty if it was not berthd that made it.
pub fn detail(status: &Status) -> ErrorDetail {
    let bytes = status
        .metadata()
        .get_bin("berth-error-bin")
        .and_then(|value| value.to_bytes().ok());
    bytes
        .and_then(|bytes| ErrorDetail::decode(bytes).ok())
        .unwrap_or_default()
}

//! Why a record, the layout or the journal can't be used. Every variant names the operation and the place.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Only this one record is unusable.
    #[error("read record {}: {source}", path.display())]
    Broken {
        path: PathBuf,
        source: crate::envelope::EnvelopeError,
    },
    #[error("read record {}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("state folder {}: another daemon has it", path.display())]
    Locked { path: PathBuf },
    #[error("events from {asked} on: the oldest kept is {oldest}")]
    TooOld { asked: u64, oldest: u64 },
    #[error("append an event of {len} bytes: at most {max}")]
    TooLong { len: usize, max: usize },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// The disk is full: the same call may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// For callers that hand errors on as `io::Error`: the kind stays, the text is ours.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::Broken { .. } | Error::Content { .. } => io::ErrorKind::InvalidData,
            Error::Locked { .. } => io::ErrorKind::ResourceBusy,
            Error::TooOld { .. } => io::ErrorKind::NotFound,
            Error::TooLong { .. } => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

//! Why content can't be had or kept. Clients parse some of the texts.

use std::path::{Path, PathBuf};

use crate::digest::Digest;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid digest {0:?}")]
    BadDigest(String),
    #[error("content digest {0}: not found")]
    NoBlob(Digest),
    #[error("ingest ref {0:?}: not found")]
    NoIngest(String),
    #[error("ref {name} locked for another writer: unavailable")]
    Locked { name: String },
    #[error("unexpected commit size {actual}, expected {expected}: failed precondition")]
    Size { actual: u64, expected: u64 },
    #[error("unexpected commit digest {actual}, expected {expected}: failed precondition")]
    Mismatch { actual: Digest, expected: Digest },
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }
}

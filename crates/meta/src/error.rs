//! Why a request about metadata fails.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Container,
    Namespace,
    Lease,
    Image,
    Blob,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Container => "container",
            What::Namespace => "namespace",
            What::Lease => "lease",
            What::Image => "image",
            What::Blob => "content",
        })
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {name:?}: not found")]
    NotFound { what: What, name: String },
    #[error("{what} {name:?}: already exists")]
    AlreadyExists { what: What, name: String },
    #[error("{0}: invalid argument")]
    Invalid(String),
    #[error("{0}: failed precondition")]
    Precondition(String),
    #[error("the metadata can't be {operation}: {source}")]
    Database {
        operation: &'static str,
        source: Arc<rusqlite::Error>,
    },
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: Arc<std::io::Error>,
    },
    #[error("the metadata is closed")]
    Closed,
}

impl Error {
    pub fn not_found(what: What, name: impl Into<String>) -> Self {
        Error::NotFound {
            what,
            name: name.into(),
        }
    }

    pub fn already_exists(what: What, name: impl Into<String>) -> Self {
        Error::AlreadyExists {
            what,
            name: name.into(),
        }
    }

    pub(crate) fn database(operation: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Error::Database {
            operation,
            source: Arc::new(source),
        }
    }
}

/// What `?` in a table's code means.
impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Error::database("used")(source)
    }
}

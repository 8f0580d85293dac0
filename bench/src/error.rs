//! One error: a sentence for the person at the terminal. Nothing here branches on its kind.

use std::fmt;

#[derive(Debug)]
pub struct BenchError(String);

pub type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    pub fn new(sentence: impl Into<String>) -> BenchError {
        BenchError(sentence.into())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

macro_rules! from {
    ($($source:ty),* $(,)?) => {$(
        impl From<$source> for BenchError {
            fn from(source: $source) -> BenchError {
                BenchError(source.to_string())
            }
        }
    )*};
}
from!(
    std::io::Error,
    serde_json::Error,
    rustix::io::Errno,
    tonic::transport::Error,
    tokio::task::JoinError
);

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> BenchError {
        BenchError(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// Says what was being done when it failed.
pub trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<BenchError>> Context<T> for Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| BenchError(format!("{doing}: {}", error.into())))
    }
}

/// Fails with the sentence unless the fact holds.
pub fn ensure(fact: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if fact { Ok(()) } else { Err(BenchError(sentence())) }
}

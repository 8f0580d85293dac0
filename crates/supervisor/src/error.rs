//! Why a call failed. The message names operation and id and says the cause in one line; where there is something that the
//! caller can do, it says that too.

use berth_core::ErrorCode;

/// Cloneable, because one answer may go to several callers (the same request id twice).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {id}: {message}")]
pub struct Error {
    code: ErrorCode,
    operation: &'static str,
    /// `NAMESPACE/ID`, or what else the operation was about.
    id: String,
    message: String,
    runtime_message: String,
    exit_code: u32,
}

impl Error {
    pub fn new(code: ErrorCode, operation: &'static str, id: impl ToString, message: impl Into<String>) -> Self {
        Self {
            code,
            operation,
            id: id.to_string(),
            message: message.into(),
            runtime_message: String::new(),
            exit_code: 0,
        }
    }

    /// With the runtime's own last line and, for a command that could not be started, 127 or 126.
    pub fn from_runtime(mut self, runtime_message: impl Into<String>, exit_code: u32) -> Self {
        self.runtime_message = runtime_message.into();
        self.exit_code = exit_code;
        self
    }

    /// With what else is known about the cause.
    #[must_use]
    pub(crate) fn explained(mut self, more: &str) -> Self {
        self.message = format!("{} ({more})", self.message);
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    pub fn operation(&self) -> &'static str {
        self.operation
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cause alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn runtime_message(&self) -> &str {
        &self.runtime_message
    }

    /// 127 or 126 for a command that could not be started, else 0.
    pub fn exit_code(&self) -> u32 {
        self.exit_code
    }
}

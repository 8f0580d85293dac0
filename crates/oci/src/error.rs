//! The one error of this crate: the step that failed, the thing it was about, and why. Its text is what a user sees.

use std::io;

/// Why a container could not be made, started or changed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A field of config.json or process.json: which, its value, what is allowed.
    #[error("{field}: {value}: {allowed}")]
    Spec {
        field: String,
        value: String,
        allowed: String,
    },
    /// The bundle could not be read.
    #[error("bundle {path}: {source}")]
    Bundle { path: String, source: io::Error },
    /// config.json is not what the specification says.
    #[error("{path}: {source}")]
    Json { path: String, source: serde_json::Error },
    /// A step of making the container; `what` names the mount, path, cgroup or limit.
    #[error("{step} {what}: {source}")]
    Step {
        step: &'static str,
        what: String,
        source: io::Error,
    },
    /// The command is not there: exit code 127.
    #[error("exec: \"{command}\": executable file not found in $PATH")]
    CommandNotFound { command: String },
    /// The command may not be executed: exit code 126.
    #[error("exec: \"{command}\": {source}")]
    CommandNotExecutable { command: String, source: io::Error },
    /// The kernel lacks something that the config asks for.
    #[error("{what} is not supported by this kernel")]
    Unsupported { what: String },
    /// A hook failed.
    #[error("{point} hook {path}: {reason}")]
    Hook {
        point: &'static str,
        path: String,
        reason: String,
    },
    /// The text of runc, as in the next ones: engines look for it.
    #[error("container with given ID already exists: {id}")]
    Exists { id: String },
    #[error("container does not exist: {id}")]
    NotFound { id: String },
    /// The text that callers of runc look for.
    #[error("container not running")]
    NotRunning,
    #[error("cannot {operation} container {id} that is {status}")]
    WrongState {
        operation: &'static str,
        id: String,
        status: &'static str,
    },
    /// The init process ended before it was ready.
    #[error("the container's init process ended before it was ready")]
    InitLost,
    /// What the init process said before it ended.
    #[error("{message}")]
    Init { message: String, exit_code: u8 },
}

impl OciError {
    /// 127 or 126 for a command that is not there or may not be executed, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            OciError::CommandNotFound { .. } => 127,
            OciError::CommandNotExecutable { .. } => 126,
            OciError::Init { exit_code, .. } => *exit_code,
            _ => 1,
        }
    }

    pub(crate) fn field(field: impl Into<String>, value: impl ToString, allowed: impl Into<String>) -> OciError {
        OciError::Spec {
            field: field.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }
}

/// Adds step and object to an I/O error.
pub(crate) trait Context<T> {
    fn step(self, step: &'static str, what: impl ToString) -> Result<T, OciError>;
}

impl<T> Context<T> for io::Result<T> {
    fn step(self, step: &'static str, what: impl ToString) -> Result<T, OciError> {
        self.map_err(|source| OciError::Step {
            step,
            what: what.to_string(),
            source,
        })
    }
}

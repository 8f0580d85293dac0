//! Why the daemon does not start, or ends.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{operation} {what}: {source}")]
    Io {
        operation: &'static str,
        what: String,
        source: std::io::Error,
    },
    #[error("listen on {}: another daemon answers there", .0.display())]
    AddressInUse(PathBuf),
    #[error("listen on {}: something that is no socket is there; remove it or choose another --address", .0.display())]
    NotASocket(PathBuf),
    #[error("find berth-shim: neither beside berthd nor in PATH; name it with --shim or daemon.shim")]
    NoShim,
    #[error("examine the state: {0}")]
    Doctor(#[from] berth_doctor::Error),
    #[error("{0}")]
    Supervisor(#[from] berth_supervisor::Error),
    #[error("open the metadata {}: {source}", .path.display())]
    Meta { path: PathBuf, source: berth_meta::Error },
    #[error("open the content: {0}")]
    Content(#[from] berth_content::Error),
    #[error("the configuration {}: {message}", .path.display())]
    Containerd { path: PathBuf, message: String },
    #[error("publish: {0}")]
    Publish(String),
    #[error("built without the feature {what}")]
    NotBuilt { what: &'static str },
    #[error("serve the API: {0}")]
    Serve(String),
}

impl Error {
    /// 2, as clap's, for what the operator can correct in flags and file.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Config(_) | Error::NoShim | Error::Containerd { .. } => ExitCode::from(2),
            Error::Io { .. }
            | Error::AddressInUse(_)
            | Error::NotASocket(_)
            | Error::Supervisor(_)
            | Error::Doctor(_)
            | Error::Meta { .. }
            | Error::Content(_)
            | Error::Publish(_)
            | Error::NotBuilt { .. }
            | Error::Serve(_) => ExitCode::FAILURE,
        }
    }
}

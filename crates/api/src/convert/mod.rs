//! Messages to values and back. What a message says wrongly is refused here, by field, value and what is allowed.

pub mod answer;
pub mod request;
mod stdio;

use std::fmt::Display;
use std::time::Duration;

use berth_core::{ContainerKey, ErrorCode, ExecId, RequestId, Signal};
use berth_supervisor::Error;

/// Milliseconds of the longest duration that a request may ask for.
const HOUR_MS: u32 = 3_600_000;

/// What a request is about, for refusals.
#[derive(Clone)]
pub struct Subject {
    pub operation: &'static str,
    /// Shortened and escaped: it may be anything.
    id: String,
}

impl Subject {
    pub fn new(operation: &'static str, namespace: &str, id: &str) -> Self {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        Subject {
            operation,
            id: format!("{}/{}", excerpt(namespace), excerpt(id)),
        }
    }

    pub fn error(&self, code: ErrorCode, message: impl Into<String>) -> Error {
        Error::new(code, self.operation, &self.id, message)
    }

    /// `field` holds `value`; `allowed` says what it may be.
    pub fn refuse(&self, field: &str, value: impl Display, allowed: &str) -> Error {
        let value = excerpt(&value.to_string());
        self.error(
            ErrorCode::InvalidArgument,
            format!("{field} is {value}; allowed: {allowed}"),
        )
    }

    /// For values whose own type tells what is wrong.
    fn wrap(&self, error: &berth_core::Error) -> Error {
        self.error(error.code(), error.to_string())
    }

    pub fn key(&self, namespace: &str, id: &str) -> Result<ContainerKey, Error> {
        ContainerKey::parse(namespace, id).map_err(|e| self.wrap(&e))
    }

    pub fn exec(&self, exec_id: &str) -> Result<Option<ExecId>, Error> {
        if exec_id.is_empty() {
            Ok(None)
        } else {
            ExecId::new(exec_id).map(Some).map_err(|e| self.wrap(&e))
        }
    }

    pub fn request_id(&self, request_id: &str) -> Result<Option<RequestId>, Error> {
        RequestId::parse(request_id).map_err(|e| self.wrap(&e))
    }

    pub fn signal(&self, signal: &str) -> Result<Signal, Error> {
        signal.parse().map_err(|e| self.wrap(&e))
    }

    /// Empty = the default of whoever reads it.
    fn optional_signal(&self, signal: &str) -> Result<Option<Signal>, Error> {
        if signal.is_empty() {
            Ok(None)
        } else {
            self.signal(signal).map(Some)
        }
    }

    fn milliseconds(&self, field: &str, value: u32, min: u32) -> Result<Duration, Error> {
        if (min..=HOUR_MS).contains(&value) {
            Ok(Duration::from_millis(value.into()))
        } else {
            Err(self.refuse(field, value, &format!("{min} to {HOUR_MS} milliseconds")))
        }
    }

    /// An absolute path; what it names is the supervisor's business.
    fn absolute_path(&self, field: &str, value: &str) -> Result<std::path::PathBuf, Error> {
        if value.starts_with('/') && value.len() < 4096 && !value.contains('\0') {
            Ok(value.into())
        } else {
            Err(self.refuse(
                field,
                format!("{value:?}"),
                "an absolute path of at most 4,095 bytes without NUL",
            ))
        }
    }
}

/// Fit for one line of a message.
fn excerpt(value: &str) -> String {
    let short: String = value.chars().take(80).collect();
    let cut = short.len() < value.len();
    let escaped: String = short
        .chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.into()
            }
        })
        .collect();
    if cut { escaped + "…" } else { escaped }
}

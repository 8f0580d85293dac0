//! How a process ended.

use std::fmt;

use crate::signal::Signal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// It called exit.
    Exited,
    Signaled,
    /// The kernel's OOM killer ended it.
    Oom,
    /// It was never started.
    StartFailed,
    /// Its shim was killed; the code is not known.
    Lost,
    /// The host was rebooted under it.
    Reboot,
}

/// An end is told once and never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    /// 0 to 255; 128 + the signal's number for a process that a signal ended.
    pub code: u8,
    pub signal: Option<Signal>,
    pub reason: ExitReason,
    /// Nanoseconds since the Unix epoch.
    pub exited_at: i64,
    /// For `Lost`, `StartFailed` and `Reboot`: what is known, one line.
    pub message: String,
}

impl ExitStatus {
    /// The code of an end that nobody saw.
    pub const UNKNOWN: u8 = 255;

    /// As a shim reports it.
    pub fn ended(code: u32, signal: u32, oom: bool, exited_at: i64) -> Self {
        let signal = Signal::from_number(signal);
        let reason = match (oom, signal) {
            (true, _) => ExitReason::Oom,
            (false, Some(_)) => ExitReason::Signaled,
            (false, None) => ExitReason::Exited,
        };
        Self {
            code: u8::try_from(code).unwrap_or(Self::UNKNOWN),
            signal,
            reason,
            exited_at,
            message: String::new(),
        }
    }

    pub fn lost(exited_at: i64, message: impl Into<String>) -> Self {
        Self {
            code: Self::UNKNOWN,
            signal: None,
            reason: ExitReason::Lost,
            exited_at,
            message: message.into(),
        }
    }

    pub fn reboot(exited_at: i64) -> Self {
        Self {
            code: Self::UNKNOWN,
            signal: None,
            reason: ExitReason::Reboot,
            exited_at,
            message: "the host was rebooted".into(),
        }
    }

    pub fn start_failed(exited_at: i64, code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            signal: None,
            reason: ExitReason::StartFailed,
            exited_at,
            message: message.into(),
        }
    }
}

impl ExitReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::Oom => "oom",
            Self::StartFailed => "start-failed",
            Self::Lost => "lost",
            Self::Reboot => "reboot",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

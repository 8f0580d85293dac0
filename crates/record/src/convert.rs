//! Between the records and the domain's types; each direction once.

use std::time::Duration;

use berth_core::restart::{RestartPolicy, Restarts};
use berth_core::{
    ContainerKey, ExitReason, ExitStatus, FifoSpec, LogFormat, LogPolicy, LogSpec, LoggerSpec, Signal, Stdio, StdioTo,
    TerminalSize,
};

use crate::types::{
    ContainerRecord, ExitRecord, FormatRecord, PolicyRecord, ReasonRecord, RestartPolicyRecord, RestartRecord,
    StdioRecord, StdioToRecord,
};

/// A record's message must fit the reserved space.
const MAX_MESSAGE: usize = 1024;

impl ContainerRecord {
    /// `None` if somebody broke the names.
    #[must_use]
    pub fn key(&self) -> Option<ContainerKey> {
        if self.namespace.is_empty() {
            None
        } else {
            ContainerKey::parse(&self.namespace, &self.id).ok()
        }
    }
}

impl RestartRecord {
    #[must_use]
    pub fn policy(&self) -> RestartPolicy {
        match self.policy {
            RestartPolicyRecord::No => RestartPolicy::No,
            RestartPolicyRecord::OnFailure => RestartPolicy::OnFailure { max: self.max },
            RestartPolicyRecord::Always => RestartPolicy::Always,
            RestartPolicyRecord::UnlessStopped => RestartPolicy::UnlessStopped,
        }
    }

    pub fn set_policy(&mut self, policy: RestartPolicy) {
        (self.policy, self.max) = match policy {
            RestartPolicy::No => (RestartPolicyRecord::No, 0),
            RestartPolicy::OnFailure { max } => (RestartPolicyRecord::OnFailure, max),
            RestartPolicy::Always => (RestartPolicyRecord::Always, 0),
            RestartPolicy::UnlessStopped => (RestartPolicyRecord::UnlessStopped, 0),
        };
    }

    #[must_use]
    pub fn restarts(&self) -> Restarts {
        Restarts {
            count: self.count,
            failures: self.failures,
            pause: Duration::from_millis(self.pause_ms),
            stopped: self.stopped,
        }
    }

    pub fn set_restarts(&mut self, restarts: Restarts) {
        self.count = restarts.count;
        self.failures = restarts.failures;
        self.pause_ms = u64::try_from(restarts.pause.as_millis()).unwrap_or(u64::MAX);
        self.stopped = restarts.stopped;
    }
}

impl From<&Stdio> for StdioRecord {
    fn from(stdio: &Stdio) -> Self {
        let to = match &stdio.to {
            StdioTo::Null => StdioToRecord::Null,
            StdioTo::Fifo(FifoSpec {
                stdin,
                stdout,
                stderr,
                owner,
            }) => StdioToRecord::Fifo {
                stdin: stdin.clone(),
                stdout: stdout.clone(),
                stderr: stderr.clone(),
                owner: *owner,
            },
            StdioTo::File(path) => StdioToRecord::File { path: path.clone() },
            StdioTo::Logger(LoggerSpec { program, args, strict }) => StdioToRecord::Logger {
                program: program.clone(),
                args: args.clone(),
                strict: *strict,
            },
            StdioTo::Log(log) => StdioToRecord::Log {
                format: match log.format.unwrap_or_default() {
                    LogFormat::Cri => FormatRecord::Cri,
                    LogFormat::Json => FormatRecord::Json,
                    LogFormat::Plain => FormatRecord::Plain,
                },
                policy: match log.policy.unwrap_or_default() {
                    LogPolicy::Block => PolicyRecord::Block,
                    LogPolicy::Drop => PolicyRecord::Drop,
                },
                max_size: log.max_size.unwrap_or(10 << 20),
                max_files: log.max_files.unwrap_or(3),
                stdin: log.stdin,
                discard: log.discard,
            },
        };
        Self {
            to,
            terminal: stdio.terminal,
            width: stdio.size.width,
            height: stdio.size.height,
        }
    }
}

impl From<&StdioRecord> for Stdio {
    fn from(record: &StdioRecord) -> Self {
        let to = match &record.to {
            StdioToRecord::Null => StdioTo::Null,
            StdioToRecord::Fifo {
                stdin,
                stdout,
                stderr,
                owner,
            } => StdioTo::Fifo(FifoSpec {
                stdin: stdin.clone(),
                stdout: stdout.clone(),
                stderr: stderr.clone(),
                owner: *owner,
            }),
            StdioToRecord::File { path } => StdioTo::File(path.clone()),
            StdioToRecord::Logger { program, args, strict } => StdioTo::Logger(LoggerSpec {
                program: program.clone(),
                args: args.clone(),
                strict: *strict,
            }),
            StdioToRecord::Log {
                format,
                policy,
                max_size,
                max_files,
                stdin,
                discard,
            } => StdioTo::Log(LogSpec {
                format: Some(match format {
                    FormatRecord::Cri => LogFormat::Cri,
                    FormatRecord::Json => LogFormat::Json,
                    FormatRecord::Plain => LogFormat::Plain,
                }),
                policy: Some(match policy {
                    PolicyRecord::Block => LogPolicy::Block,
                    PolicyRecord::Drop => LogPolicy::Drop,
                }),
                max_size: Some(*max_size),
                max_files: Some(*max_files),
                stdin: *stdin,
                discard: *discard,
            }),
        };
        Self {
            to,
            terminal: record.terminal,
            size: TerminalSize {
                width: record.width,
                height: record.height,
            },
        }
    }
}

impl ExitRecord {
    /// Of the init if `exec_id` is empty.
    #[must_use]
    pub fn new(incarnation: &str, exec_id: &str, pid: u32, status: &ExitStatus) -> Self {
        let reason = match status.reason {
            ExitReason::Exited => ReasonRecord::Exited,
            ExitReason::Signaled => ReasonRecord::Signaled,
            ExitReason::Oom => ReasonRecord::Oom,
            ExitReason::StartFailed => ReasonRecord::StartFailed,
            ExitReason::Lost => ReasonRecord::Lost,
            ExitReason::Reboot => ReasonRecord::Reboot,
        };
        let message = &status.message[..status.message.floor_char_boundary(MAX_MESSAGE)];
        Self {
            incarnation: incarnation.to_owned(),
            exec_id: exec_id.to_owned(),
            pid,
            code: u32::from(status.code),
            signal: status.signal.map_or(0, Signal::number),
            reason,
            at: status.exited_at,
            message: message.to_owned(),
        }
    }

    #[must_use]
    pub fn status(&self) -> ExitStatus {
        let reason = match self.reason {
            ReasonRecord::Exited => ExitReason::Exited,
            ReasonRecord::Signaled => ExitReason::Signaled,
            ReasonRecord::Oom => ExitReason::Oom,
            ReasonRecord::StartFailed => ExitReason::StartFailed,
            ReasonRecord::Lost => ExitReason::Lost,
            ReasonRecord::Reboot => ExitReason::Reboot,
        };
        ExitStatus {
            code: u8::try_from(self.code).unwrap_or(ExitStatus::UNKNOWN),
            signal: Signal::from_number(self.signal),
            reason,
            exited_at: self.at,
            message: self.message.clone(),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn stdio_round_trips() {
        let log = LogSpec {
            format: Some(LogFormat::Json),
            policy: Some(LogPolicy::Drop),
            max_size: Some(4096),
            max_files: Some(2),
            stdin: true,
            discard: true,
        };
        let fifo = FifoSpec {
            stdin: Some("/a".into()),
            stdout: None,
            stderr: Some("/b".into()),
            owner: Some((1, 2)),
        };
        let logger = LoggerSpec {
            program: "/l".into(),
            args: vec!["a".into()],
            strict: true,
        };
        let file = StdioTo::File("/f".into());
        for to in [
            StdioTo::Null,
            StdioTo::Log(log),
            StdioTo::Fifo(fifo),
            file,
            StdioTo::Logger(logger),
        ] {
            let stdio = Stdio {
                to,
                terminal: true,
                size: TerminalSize { width: 3, height: 4 },
            };
            let bytes = crate::envelope::encode(&StdioRecord::from(&stdio)).unwrap();
            let record: StdioRecord = crate::envelope::decode(&bytes).unwrap();
            assert_eq!(Stdio::from(&record), stdio);
        }
    }

    #[test]
    fn exits_round_trip() {
        for status in [
            ExitStatus::ended(137, 9, true, 5),
            ExitStatus::ended(143, 15, false, 5),
            ExitStatus::ended(3, 0, false, 5),
            ExitStatus::lost(5, "the shim was killed"),
            ExitStatus::reboot(5),
            ExitStatus::start_failed(5, 127, "no such file"),
        ] {
            assert_eq!(ExitRecord::new("i", "", 1, &status).status(), status);
        }
    }
}

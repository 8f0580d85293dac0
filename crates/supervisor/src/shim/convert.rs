//! Between the domain's values and the messages that a shim understands; each direction once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_core::{ErrorCode, ExitStatus, LogFormat, LogPolicy, Stdio, StdioTo};
use berth_record::{DriverKind, RuntimeRecord};
use berth_wire::shim as wire;

use super::CallError;
use crate::Error;
use crate::types::{ExecProcess, RootfsMount, Stage};

impl CallError {
    /// As the caller of `operation` on `id` hears it.
    pub(crate) fn into_error(self, operation: &'static str, id: impl ToString) -> Error {
        match self {
            Self::Gone(_) => {
                let hint = "; see how it ended with wait, and remove it with delete";
                Error::new(ErrorCode::ShimLost, operation, id, format!("{self}{hint}"))
            }
            Self::Timeout { .. } => Error::new(ErrorCode::Timeout, operation, id, self.to_string()),
            Self::TooLong { .. } => Error::new(ErrorCode::InvalidArgument, operation, id, self.to_string()),
            Self::Nonsense { .. } => Error::new(ErrorCode::Internal, operation, id, self.to_string()),
            Self::Failed { message, failure } => {
                let code = ErrorCode::from_number(failure.code).unwrap_or(ErrorCode::Internal);
                Error::new(code, operation, id, message).from_runtime(failure.runtime_message, failure.exit_code)
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn optional(path: &Option<PathBuf>) -> String {
    path.as_deref().map(text).unwrap_or_default()
}

pub(crate) fn stdio(stdio: &Stdio, log_dir: Option<&Path>) -> wire::Stdio {
    use wire::stdio::To;
    let to = match &stdio.to {
        StdioTo::Null => To::Null(wire::Null {}),
        StdioTo::Fifo(fifo) => To::Fifo(wire::Fifo {
            stdin: optional(&fifo.stdin),
            stdout: optional(&fifo.stdout),
            stderr: optional(&fifo.stderr),
            uid: fifo.owner.map_or(0, |(uid, _)| uid),
            gid: fifo.owner.map_or(0, |(_, gid)| gid),
        }),
        StdioTo::File(path) => To::File(wire::File { path: text(path) }),
        StdioTo::Logger(logger) => To::Logger(wire::Logger {
            program: text(&logger.program),
            args: logger.args.clone(),
            strict: logger.strict,
        }),
        StdioTo::Log(log) => {
            let format = match log.format.unwrap_or_default() {
                LogFormat::Cri => wire::Format::Cri,
                LogFormat::Json => wire::Format::Json,
                LogFormat::Plain => wire::Format::Plain,
            };
            To::Log(wire::Log {
                dir: log_dir.filter(|_| !log.discard).map(text).unwrap_or_default(),
                format: format.into(),
                drop: log.policy.unwrap_or_default() == LogPolicy::Drop,
                max_size: log.max_size.unwrap_or_default(),
                max_files: log.max_files.unwrap_or_default(),
                stdin: log.stdin,
            })
        }
    };
    wire::Stdio {
        to: Some(to),
        terminal: stdio.terminal,
        width: stdio.size.width.into(),
        height: stdio.size.height.into(),
    }
}

pub(crate) fn mounts(mounts: &[RootfsMount]) -> Vec<wire::Mount> {
    let mount = |mount: &RootfsMount| wire::Mount {
        r#type: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    };
    mounts.iter().map(mount).collect()
}

pub(crate) fn driver(runtime: &RuntimeRecord) -> wire::Driver {
    use wire::driver::Kind;
    let kind = match runtime.kind {
        DriverKind::Command => Kind::Command(wire::Command {
            binary: text(&runtime.binary),
            args: runtime.args.clone(),
            root: text(&runtime.root),
            systemd_cgroup: runtime.systemd_cgroup,
            no_pivot_root: runtime.no_pivot_root,
            no_new_keyring: runtime.no_new_keyring,
        }),
        DriverKind::Embedded => Kind::Embedded(wire::Embedded {
            root: text(&runtime.root),
            systemd_cgroup: runtime.systemd_cgroup,
            no_pivot_root: runtime.no_pivot_root,
            no_new_keyring: runtime.no_new_keyring,
        }),
    };
    wire::Driver { kind: Some(kind) }
}

pub(crate) fn exec_process(process: ExecProcess) -> (Vec<u8>, Option<wire::ExecOverrides>) {
    match process {
        ExecProcess::Json(json) => (json, None),
        ExecProcess::Overrides(o) => {
            let rlimits = o.rlimits.into_iter();
            let overrides = wire::ExecOverrides {
                args: o.args,
                env: o.env,
                cwd: o.cwd,
                user: o.user,
                additional_gids: o.additional_gids,
                set_capabilities: o.capabilities.is_some(),
                capabilities: o.capabilities.unwrap_or_default(),
                rlimits: rlimits
                    .map(|r| wire::Rlimit {
                        r#type: r.kind,
                        soft: r.soft,
                        hard: r.hard,
                    })
                    .collect(),
                no_new_privileges: o.no_new_privileges,
            };
            (Vec::new(), Some(overrides))
        }
    }
}

pub(crate) fn exit(exit: &wire::Exit) -> ExitStatus {
    ExitStatus::ended(exit.code, exit.signal, exit.oom, exit.at)
}

pub(crate) fn stages(stages: Vec<wire::StageTime>) -> impl Iterator<Item = Stage> {
    stages.into_iter().map(|s| Stage {
        name: s.name,
        duration: Duration::from_micros(s.duration_us),
    })
}

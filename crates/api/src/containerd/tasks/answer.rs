//! From the supervisor's views and errors to what containerd's clients read. Docker finds out by the text why a start failed.

use berth_core::{ErrorCode, ExitReason, ExitStatus};
use berth_supervisor::{ContainerState, ContainerView, Error, ExecView};
use berth_wire::containerd::task::{Process, Status as State};
use tonic::{Code, Status};

use super::super::time;
use super::stdio::paths;

/// As containerd reports it: where the end was not seen because a shim was killed, what was killed with it.
pub fn exit_code(exit: &ExitStatus) -> u32 {
    match exit.reason {
        ExitReason::Lost => 137,
        _ => exit.code.into(),
    }
}

pub fn init(task: &ContainerView) -> Process {
    let state = match task.state {
        _ if task.exit.is_some() => State::Stopped,
        ContainerState::Queued | ContainerState::Creating | ContainerState::Created | ContainerState::Starting => {
            State::Created
        }
        ContainerState::Running => State::Running,
        ContainerState::Paused => State::Paused,
        ContainerState::Stopped | ContainerState::Restarting | ContainerState::Deleting => State::Stopped,
    };
    let [stdin, stdout, stderr] = paths(&task.stdio);
    Process {
        // Left empty as by containerd; `id` says it.
        container_id: String::new(),
        id: task.key.id.to_string(),
        pid: task.last_pid,
        status: state.into(),
        stdin,
        stdout,
        stderr,
        terminal: task.stdio.terminal,
        exit_status: task.exit.as_ref().map_or(0, exit_code),
        exited_at: task.exit.as_ref().map(|exit| time::stamp(exit.exited_at)),
    }
}

pub fn exec(task: &ContainerView, exec: &ExecView) -> Process {
    let state = match &exec.exit {
        Some(_) => State::Stopped,
        None if exec.last_pid == 0 => State::Created,
        None if task.state == ContainerState::Paused => State::Paused,
        None => State::Running,
    };
    let [stdin, stdout, stderr] = exec.stdio.as_ref().map(paths).unwrap_or_default();
    Process {
        container_id: String::new(),
        id: exec.exec_id.to_string(),
        pid: exec.last_pid,
        status: state.into(),
        stdin,
        stdout,
        stderr,
        terminal: exec.terminal,
        exit_status: exec.exit.as_ref().map_or(0, exit_code),
        exited_at: exec.exit.as_ref().map(|exit| time::stamp(exit.exited_at)),
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Create,
    Start,
    Exec,
    Plain,
}

/// The code that clients know, and a text in which they find what they look for.
pub fn refuse(what: Refusal, error: &Error) -> Status {
    let cause = match error.runtime_message() {
        "" => error.message(),
        said => said,
    };
    let of_runtime = |prefix: &str| Status::unknown(format!("{prefix}: {cause}"));
    match error.code() {
        ErrorCode::Runtime
        | ErrorCode::CommandNotFound
        | ErrorCode::CommandNotExecutable
        | ErrorCode::Bundle
        | ErrorCode::Internal => match what {
            Refusal::Create => of_runtime(
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process",
            ),
            Refusal::Start => of_runtime("OCI runtime start failed"),
            Refusal::Exec => of_runtime("OCI runtime exec failed: exec failed: unable to start container process"),
            Refusal::Plain => Status::unknown(cause),
        },
        ErrorCode::NotFound => Status::not_found(format!("{cause}: not found")),
        ErrorCode::AlreadyExists => Status::already_exists(format!("{cause}: already exists")),
        ErrorCode::InvalidArgument => Status::invalid_argument(format!("{cause}: invalid argument")),
        // containerd's shim has no code for it.
        ErrorCode::WrongState => Status::unknown(cause),
        ErrorCode::Timeout => Status::deadline_exceeded(format!("{cause}: context deadline exceeded")),
        ErrorCode::Cancelled => Status::cancelled(format!("{cause}: context canceled")),
        ErrorCode::Resources => Status::new(Code::ResourceExhausted, cause),
        ErrorCode::ShimLost | ErrorCode::ShuttingDown => Status::unavailable(cause),
        ErrorCode::CursorTooOld => Status::out_of_range(cause),
        ErrorCode::Unimplemented => Status::unimplemented(cause),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// What dockerd turns into the exit codes 127 and 126.
    #[test]
    fn docker_finds_its_words() {
        let error = |code, message: &str| Error::new(code, "create", "moby/a", message);
        let status = refuse(
            Refusal::Create,
            &error(
                ErrorCode::CommandNotFound,
                "exec: \"x\": executable file not found in $PATH",
            ),
        );
        assert_eq!(status.code(), Code::Unknown);
        assert!(status.message().contains("OCI runtime create failed"));
        assert!(status.message().contains("executable file not found"));
        let status = refuse(
            Refusal::Exec,
            &error(ErrorCode::CommandNotExecutable, "exec: \"/x\": permission denied"),
        );
        assert!(status.message().starts_with("OCI runtime exec failed"));
        assert!(status.message().contains("permission denied"));
    }
}

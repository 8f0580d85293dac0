//! The one error type: says what failed, on what, why, and what to do next. It knows its exit code.

use std::io;
use std::path::PathBuf;

use berth_wire::v1::ErrorCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::out;

pub type Result<T, E = CliError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{}", advised(.0))]
    Berthd(berth_client::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Copy(String),
    #[error("cannot {operation} {path}: {source}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Whoever read our stdout has gone: no message, as SIGPIPE would have none.
    #[error("stdout is closed")]
    StdoutClosed,
    #[error("cannot write to stdout: {0}")]
    Stdout(#[source] io::Error),
    #[error("cannot handle signals: {0}")]
    Signals(#[source] io::Error),
}

/// The command of a call, where its name is another.
fn command(call: &'static str) -> &'static str {
    match call {
        "delete" => "rm",
        "get" => "inspect",
        "list" => "ps",
        "resume" => "unpause",
        "signal" => "kill",
        call => call,
    }
}

/// The same, with what a person at a command line can do about it.
fn advised(error: &berth_client::Error) -> String {
    use berth_client::Error;
    match error {
        Error::NotRunning { .. } => format!("{error}: start it with `berthd`, or set --address"),
        Error::Forbidden { address } => format!(
            "may not open {}: run this as root, or as a member of the socket's group",
            address.display()
        ),
        Error::Connect { source, .. } => format!("{error}: {source}"),
        Error::Lost { .. } => format!("{error}; containers go on without it: start it again with `berthd`"),
        Error::Refused { .. } => error.to_string(),
    }
}

impl From<berth_client::Error> for CliError {
    fn from(mut error: berth_client::Error) -> Self {
        use berth_client::Error;
        if let Error::Lost { operation, .. } | Error::Refused { operation, .. } = &mut error {
            let call = std::mem::replace(operation, command(operation));
            if let Error::Refused { message, operation, .. } = &mut error
                && let Some(rest) = message.strip_prefix(call).filter(|rest| rest.starts_with(' '))
            {
                *message = format!("{operation}{rest}");
            }
        }
        Self::Berthd(error)
    }
}

impl CliError {
    pub fn stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::Stdout(source),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Berthd(error) if error.is_not_found())
    }

    /// `own_failure` is 125 for run and exec, 1 for the rest.
    pub fn exit_code(&self, own_failure: u8) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::StdoutClosed => 141,
            Self::Berthd(berth_client::Error::Refused { detail, .. })
                if own_failure == 125 && detail.exit_code != 0 =>
            {
                u8::try_from(detail.exit_code).unwrap_or(own_failure)
            }
            _ => own_failure,
        }
    }

    /// What a person can do about it, where the message does not say.
    fn hint(&self) -> Option<String> {
        let Self::Berthd(berth_client::Error::Refused {
            operation,
            id,
            code,
            message,
            detail,
        }) = self
        else {
            return None;
        };
        match (code, detail.code()) {
            (_, ErrorCode::CursorTooOld) => {
                Some("give the cursor that the message names, or --since 0 for all there is".into())
            }
            (Code::NotFound, _) if message.contains("exec") => Some(format!("`berth inspect {id}` lists its execs")),
            (Code::NotFound, _) if !id.is_empty() => {
                Some("`berth ps -a` lists the containers of this namespace".into())
            }
            (Code::AlreadyExists, _) if matches!(*operation, "run" | "create") => {
                Some(format!("remove it with `berth rm -f {id}`, or choose another --id"))
            }
            (_, ErrorCode::WrongState) if *operation == "rm" && message.contains("exec") => {
                Some(format!("`berth kill --exec EXEC_ID {id}` ends it"))
            }
            (_, ErrorCode::WrongState) if *operation == "rm" => Some(format!(
                "stop it with `berth stop {id}`, or use `berth rm --force {id}`"
            )),
            (_, ErrorCode::WrongState) if message.contains("paused") => {
                Some(format!("`berth unpause {id}` lets it go on"))
            }
            (_, ErrorCode::WrongState) if message.contains("waits for its restart") => Some(format!(
                "`berth stop {id}` ends its restarts, `berth rm {id}` removes it"
            )),
            (_, ErrorCode::WrongState) if message.contains("was not started") => {
                Some(format!("`berth start {id}` starts it"))
            }
            (_, ErrorCode::WrongState) if message.contains("has ended") => Some(format!(
                "`berth logs {id}` shows what it wrote, `berth inspect {id}` how it ended"
            )),
            (_, ErrorCode::WrongState) if *operation == "logs" => {
                Some(format!("`berth inspect {id}` shows under stdio where it goes"))
            }
            (_, ErrorCode::WrongState) => Some(format!("`berth inspect {id}` shows its state")),
            (_, ErrorCode::ShimLost) if !id.is_empty() => {
                Some(format!("try again, or remove it with `berth rm --force {id}`"))
            }
            (_, ErrorCode::Bundle)
                if matches!(*operation, "run" | "create") && message.contains("process.terminal is true") =>
            {
                Some("add -t, or -it to type into it".into())
            }
            _ => None,
        }
    }

    /// Stable name of the failure for `--json`.
    fn name(&self) -> String {
        use berth_client::Error;
        match self {
            Self::Berthd(Error::NotRunning { .. } | Error::Forbidden { .. } | Error::Connect { .. }) => {
                "cannot_connect".into()
            }
            Self::Berthd(Error::Lost { .. }) => "connection_lost".into(),
            Self::Berthd(Error::Refused { code, detail, .. }) => match detail.code() {
                ErrorCode::Unspecified => format!("{code:?}").to_lowercase(),
                code => code.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase(),
            },
            Self::Usage(_) => "usage".into(),
            Self::Copy(_) | Self::File { .. } | Self::StdoutClosed | Self::Stdout(_) | Self::Signals(_) => "io".into(),
        }
    }

    pub fn to_json(&self) -> Value {
        let mut object = json!({ "code": self.name(), "message": self.to_string() });
        if let Self::Berthd(berth_client::Error::Refused {
            operation, id, detail, ..
        }) = self
        {
            object["operation"] = json!(operation);
            object["id"] = json!(id);
            if !detail.runtime_message.is_empty() {
                object["runtime_message"] = json!(detail.runtime_message);
            }
        }
        object
    }

    /// Tells stderr, in one line and a hint.
    pub fn report(&self, is_json: bool) {
        if matches!(self, Self::StdoutClosed) {
            return;
        }
        if is_json {
            out::stderr_line(&json!({ "error": self.to_json() }).to_string());
            return;
        }
        let (text, hint) = self.words();
        out::complain(&text);
        if let Some(hint) = hint {
            out::stderr_line(&format!("hint: {hint}"));
        }
    }

    fn words(&self) -> (String, Option<String>) {
        let (text, hint) = (self.to_string(), self.hint());
        match self {
            // berthd's advice, behind the fact, names calls of its API; the hint says the same in commands.
            Self::Berthd(berth_client::Error::Refused { detail, .. })
                if hint.is_some()
                    && matches!(
                        detail.code(),
                        ErrorCode::WrongState | ErrorCode::AlreadyExists | ErrorCode::ShimLost
                    ) =>
            {
                let fact = text.split_once("; ").map_or(text.as_str(), |(fact, _)| fact);
                (fact.to_owned(), hint)
            }
            _ => (text, hint),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use berth_wire::v1::ErrorDetail;
    use prost::Message as _;
    use tonic::Status;

    fn refused(code: Code, detail: ErrorDetail) -> CliError {
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert_bin(
            "berth-error-bin",
            tonic::metadata::MetadataValue::from_bytes(&detail.encode_to_vec()),
        );
        berth_client::Error::refused(
            "run",
            "web",
            &Status::with_metadata(code, "run web: no such file", metadata),
        )
        .into()
    }

    #[test]
    fn advice_names_commands() {
        let error: CliError = berth_client::Error::Refused {
            operation: "delete",
            id: "web".into(),
            code: Code::FailedPrecondition,
            message: "delete web: the container is running; stop it first, or delete with force".into(),
            detail: ErrorDetail {
                code: ErrorCode::WrongState as i32,
                ..Default::default()
            }
            .into(),
        }
        .into();
        let (text, hint) = error.words();
        assert_eq!(text, "rm web: the container is running");
        assert_eq!(
            hint.as_deref(),
            Some("stop it with `berth stop web`, or use `berth rm --force web`")
        );
    }

    #[test]
    fn exit_codes_follow_the_shells() {
        let missing = refused(
            Code::FailedPrecondition,
            ErrorDetail {
                exit_code: 127,
                code: ErrorCode::CommandNotFound as i32,
                ..Default::default()
            },
        );
        assert_eq!(missing.exit_code(125), 127);
        assert_eq!(missing.exit_code(1), 1);
        assert_eq!(refused(Code::Internal, ErrorDetail::default()).exit_code(125), 125);
        assert_eq!(CliError::Usage(String::new()).exit_code(125), 2);
        assert_eq!(CliError::stdout(io::ErrorKind::BrokenPipe.into()).exit_code(1), 141);
    }

    #[test]
    fn json_names_the_failure() {
        let error = refused(
            Code::FailedPrecondition,
            ErrorDetail {
                code: ErrorCode::CommandNotFound as i32,
                runtime_message: "exec: sh".into(),
                ..Default::default()
            },
        );
        assert_eq!(
            error.to_json(),
            json!({ "code": "command_not_found", "message": "run web: no such file", "operation": "run", "id": "web", "runtime_message": "exec: sh" })
        );
        assert_eq!(
            refused(Code::NotFound, ErrorDetail::default()).to_json()["code"],
            "notfound"
        );
    }
}

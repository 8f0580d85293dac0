//! How an event lies in the journal: its own protobuf message, so that any release can read what another wrote. Fields are only
//! ever added; the number is not among them, the journal knows it.

use std::time::Duration;

use berth_core::{ContainerKey, EventKind, ExecId, ExitReason, ExitStatus, Signal};
use prost::Message;

use crate::types::{NewEvent, Stage};

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    id: String,
    #[prost(string, tag = "5")]
    incarnation: String,
    /// Empty = the init process.
    #[prost(string, tag = "6")]
    exec_id: String,
    #[prost(uint32, tag = "7")]
    pid: u32,
    #[prost(message, optional, tag = "8")]
    exit: Option<StoredExit>,
    #[prost(message, repeated, tag = "9")]
    stages: Vec<StoredStage>,
    #[prost(string, tag = "10")]
    message: String,
    #[prost(uint64, tag = "11")]
    oom_kills: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredExit {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(uint32, tag = "2")]
    signal: u32,
    #[prost(uint32, tag = "3")]
    reason: u32,
    #[prost(int64, tag = "4")]
    exited_at: i64,
    #[prost(string, tag = "5")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredStage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    duration_us: u64,
}

const REASONS: [ExitReason; 6] = [
    ExitReason::Exited,
    ExitReason::Signaled,
    ExitReason::Oom,
    ExitReason::StartFailed,
    ExitReason::Lost,
    ExitReason::Reboot,
];

fn reason_number(reason: ExitReason) -> u32 {
    match reason {
        ExitReason::Exited => 1,
        ExitReason::Signaled => 2,
        ExitReason::Oom => 3,
        ExitReason::StartFailed => 4,
        ExitReason::Lost => 5,
        ExitReason::Reboot => 6,
    }
}

pub(super) fn encode(event: &NewEvent) -> Vec<u8> {
    let exit = event.exit.as_ref().map(|exit| StoredExit {
        code: exit.code.into(),
        signal: exit.signal.map_or(0, Signal::number),
        reason: reason_number(exit.reason),
        exited_at: exit.exited_at,
        message: exit.message.clone(),
    });
    let stage = |s: &Stage| StoredStage {
        name: s.name.clone(),
        duration_us: u64::try_from(s.duration.as_micros()).unwrap_or(u64::MAX),
    };
    Stored {
        at: event.at,
        kind: event.kind.number(),
        namespace: event.key.namespace.to_string(),
        id: event.key.id.to_string(),
        incarnation: event.incarnation.to_string(),
        exec_id: event.exec_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        pid: event.pid,
        exit,
        stages: event.stages.iter().map(stage).collect(),
        message: event.message.clone(),
        oom_kills: event.oom_kills,
    }
    .encode_to_vec()
}

/// What can't be understood (a newer release's kind, say) is told in one line.
pub(super) fn decode(bytes: &[u8]) -> Result<NewEvent, String> {
    let stored = Stored::decode(bytes).map_err(|e| e.to_string())?;
    let exit = stored.exit.map(exit).transpose()?;
    let exec_id = match stored.exec_id.as_str() {
        "" => None,
        id => Some(ExecId::new(id).map_err(|e| e.to_string())?),
    };
    Ok(NewEvent {
        at: stored.at,
        kind: EventKind::from_number(stored.kind).ok_or_else(|| format!("unknown kind {}", stored.kind))?,
        key: ContainerKey::parse(&stored.namespace, &stored.id).map_err(|e| e.to_string())?,
        incarnation: stored
            .incarnation
            .parse()
            .map_err(|e: berth_core::Error| e.to_string())?,
        exec_id,
        pid: stored.pid,
        exit,
        stages: stored
            .stages
            .into_iter()
            .map(|s| Stage {
                name: s.name,
                duration: Duration::from_micros(s.duration_us),
            })
            .collect(),
        message: stored.message,
        oom_kills: stored.oom_kills,
    })
}

fn exit(stored: StoredExit) -> Result<ExitStatus, String> {
    let reason = REASONS.into_iter().find(|r| reason_number(*r) == stored.reason);
    Ok(ExitStatus {
        code: u8::try_from(stored.code).map_err(|_| format!("exit code {}", stored.code))?,
        signal: Signal::from_number(stored.signal),
        reason: reason.ok_or_else(|| format!("unknown exit reason {}", stored.reason))?,
        exited_at: stored.exited_at,
        message: stored.message,
    })
}

#[cfg(test)]
mod test {
    use berth_core::Incarnation;

    use super::*;

    #[test]
    fn an_event_survives_the_journal() {
        for reason in REASONS {
            let event = NewEvent {
                at: -5,
                kind: EventKind::ExecExited,
                key: ContainerKey::parse("ns", "a.b").expect("valid"),
                incarnation: Incarnation::from_bytes([7; 16]),
                exec_id: Some(ExecId::new("e-1").expect("valid")),
                pid: 42,
                exit: Some(ExitStatus {
                    code: 137,
                    signal: Some(Signal::KILL),
                    reason,
                    exited_at: 9,
                    message: "m".into(),
                }),
                stages: vec![Stage {
                    name: "queue".into(),
                    duration: Duration::from_micros(3),
                }],
                message: "why".into(),
                oom_kills: 3,
            };
            assert_eq!(decode(&encode(&event)), Ok(event));
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode(b"\xff\xff\xff").is_err());
        assert!(decode(b"").expect_err("no kind").contains("unknown kind 0"));
    }
}

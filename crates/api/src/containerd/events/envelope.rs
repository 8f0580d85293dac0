//! From the supervisor's events to containerd's, and what a filter can ask of one.

use std::borrow::Cow;

use berth_core::{EventKind, ExitStatus};
use berth_supervisor::{ContainerView, NewEvent};
use berth_wire::containerd::types::Envelope;
use berth_wire::containerd::{events, pack, unpack};
use prost_types::Any;

use super::super::tasks::{exit_code, paths};
use super::super::time;
use super::Filter;

/// `None` for what containerd does not tell. `exit` is the task's, for its end and its deletion.
pub fn of(what: &NewEvent, exit: Option<ExitStatus>, view: Option<&ContainerView>) -> Option<Envelope> {
    let container_id = what.key.id.to_string();
    let exec_id = what.exec_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let pid = what.pid;
    let (topic, event) = match what.kind {
        EventKind::Created => {
            let bundle = view
                .map(|v| v.bundle.to_string_lossy().into_owned())
                .unwrap_or_default();
            let io = view.map(|v| {
                let [stdin, stdout, stderr] = paths(&v.stdio);
                events::TaskIo {
                    stdin,
                    stdout,
                    stderr,
                    terminal: v.stdio.terminal,
                }
            });
            let event = events::TaskCreate {
                container_id,
                bundle,
                io,
                pid,
                ..Default::default()
            };
            ("/tasks/create", pack(&event))
        }
        EventKind::Started => ("/tasks/start", pack(&events::TaskStart { container_id, pid })),
        EventKind::Exited | EventKind::ExecExited => {
            let exit = exit?;
            let id = if what.kind == EventKind::Exited {
                container_id.clone()
            } else {
                exec_id
            };
            let event = events::TaskExit {
                container_id,
                id,
                pid,
                exit_status: exit_code(&exit),
                exited_at: Some(time::stamp(exit.exited_at)),
            };
            ("/tasks/exit", pack(&event))
        }
        EventKind::Oom => ("/tasks/oom", pack(&events::TaskOom { container_id })),
        EventKind::ExecStarted => {
            let event = events::TaskExecStarted {
                container_id,
                exec_id,
                pid,
            };
            ("/tasks/exec-started", pack(&event))
        }
        EventKind::Paused => ("/tasks/paused", pack(&events::TaskPaused { container_id })),
        EventKind::Resumed => ("/tasks/resumed", pack(&events::TaskResumed { container_id })),
        EventKind::Deleted => {
            let event = events::TaskDelete {
                container_id,
                pid,
                exit_status: exit.as_ref().map_or(0, exit_code),
                exited_at: exit.as_ref().map(|exit| time::stamp(exit.exited_at)),
                id: String::new(),
            };
            ("/tasks/delete", pack(&event))
        }
        // The caller of the start hears of it.
        EventKind::StartFailed | EventKind::Updated => return None,
    };
    Some(Envelope {
        timestamp: Some(time::stamp(what.at)),
        namespace: what.key.namespace.to_string(),
        topic: topic.into(),
        event: Some(event),
    })
}

pub fn fits(envelope: &Envelope, filter: &Filter) -> bool {
    filter.matches(|path| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["namespace"] => Some(Cow::Borrowed(envelope.namespace.as_str())),
            ["topic"] => Some(Cow::Borrowed(envelope.topic.as_str())),
            ["event", field] => Some(Cow::Owned(field_of(envelope.event.as_ref()?, field)?)),
            _ => None,
        }
    })
}

/// Text fields of the payloads that are known.
fn field_of(event: &Any, field: &str) -> Option<String> {
    macro_rules! fields {
        ($($message:ident: $($name:ident)*;)*) => {
            $(if let Some(Ok(event)) = unpack::<events::$message>(event) {
                $(if field == stringify!($name) {
                    return Some(event.$name);
                })*
                return None;
            })*
        };
    }
    fields! {
        TaskCreate: container_id bundle checkpoint;
        TaskStart: container_id;
        TaskDelete: container_id id;
        TaskExit: container_id id;
        TaskOom: container_id;
        TaskExecAdded: container_id exec_id;
        TaskExecStarted: container_id exec_id;
        TaskPaused: container_id;
        TaskResumed: container_id;
        TaskCheckpointed: container_id checkpoint;
        ContainerCreate: id image;
        ContainerUpdate: id image snapshot_key;
        ContainerDelete: id;
        ContentCreate: digest;
        ContentDelete: digest;
        NamespaceCreate: name;
        NamespaceUpdate: name;
        NamespaceDelete: name;
        SnapshotPrepare: key parent snapshotter;
        SnapshotCommit: key name snapshotter;
        SnapshotRemove: key snapshotter;
    }
    None
}

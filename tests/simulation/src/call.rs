//! The clients: one task a call, its answer in the books.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_core::{ContainerKey, ErrorCode, ExecId, RequestId, Signal, Stdio, TerminalSize};
use berth_supervisor::{Error, ExecProcess, ExecSpec, RunSpec, StopSpec, Supervisor, Update};
use tokio::task::JoinHandle;

use crate::machine::{Machine, lock, name};
use crate::schedule::Op;

pub fn key(id: u8) -> Option<ContainerKey> {
    ContainerKey::parse("", &name(id)).ok()
}

pub struct Clients {
    pub supervisor: Supervisor,
    pub machine: Arc<Mutex<Machine>>,
    pub spec: RunSpec,
}

fn request(number: u8) -> Option<RequestId> {
    let text = if number == 0 {
        String::new()
    } else {
        format!("r{number}")
    };
    RequestId::parse(&text).ok().flatten()
}

fn exec_id(exec: u8) -> Option<ExecId> {
    format!("e{exec}").parse().ok()
}

impl Clients {
    /// `None` = the step is not a client's.
    pub fn call(&self, op: Op) -> Option<JoinHandle<()>> {
        let (supervisor, machine) = (self.supervisor.clone(), self.machine.clone());
        let id = match op {
            Op::Run { id, .. } | Op::Create { id, .. } | Op::Start { id, .. } | Op::Exec { id, .. } => id,
            Op::Signal { id, .. } | Op::Stop { id } | Op::Pause { id } | Op::Resume { id } => id,
            Op::Update { id } | Op::Resize { id } | Op::Attach { id } | Op::Delete { id, .. } => id,
            Op::DeleteExec { id, .. } | Op::Wait { id } => id,
            Op::List => 0,
            _ => return None,
        };
        let (key, mut spec) = (key(id)?, self.spec.clone());
        spec.key = key.clone();
        Some(tokio::spawn(async move {
            let name = key.id.to_string();
            let told = match op {
                Op::Run { request: number, .. } => made(
                    &machine,
                    supervisor
                        .run(spec, request(number))
                        .await
                        .map(|s| s.incarnation.to_string()),
                ),
                Op::Create { request: number, .. } => {
                    let created = supervisor.create(spec, request(number)).await;
                    made(&machine, created.map(|s| s.incarnation.to_string()))
                }
                Op::Start { request: number, .. } => short(supervisor.start(key, request(number)).await),
                Op::Exec {
                    exec, request: number, ..
                } => {
                    let spec = ExecSpec {
                        exec_id: exec_id(exec),
                        process: ExecProcess::Json(b"{}".to_vec()),
                        stdio: Stdio::null(),
                    };
                    short(supervisor.exec(key, spec, request(number)).await)
                }
                Op::Signal { signal, .. } => match Signal::from_number(signal.into()) {
                    Some(signal) => short(supervisor.signal(key, None, signal, false, None).await),
                    None => return,
                },
                Op::Stop { .. } => {
                    let spec = StopSpec {
                        timeout: Some(Duration::from_secs(1)),
                        signal: None,
                    };
                    let stopped = supervisor.stop(key, spec, None).await;
                    if let Ok(exit) = &stopped {
                        lock(&machine).books.heard(&name, exit);
                    }
                    short(stopped.map(|exit| exit.code))
                }
                Op::Pause { .. } => short(supervisor.pause(key, None).await),
                Op::Resume { .. } => short(supervisor.resume(key, None).await),
                Op::Update { .. } => short(supervisor.update(key, Update::Json(b"{}".to_vec()), None).await),
                Op::Resize { .. } => {
                    let size = TerminalSize { width: 80, height: 25 };
                    short(supervisor.resize_terminal(key, None, size).await)
                }
                Op::Attach { .. } => short(supervisor.attach(key, None, None).await.map(drop)),
                Op::Delete { force, .. } => {
                    let deleted = supervisor.delete(key, None, force, None).await;
                    if let Ok(Some(exit)) = deleted.as_ref().map(|d| &d.exit) {
                        lock(&machine).books.heard(&name, exit);
                    }
                    short(deleted.map(|d| d.left))
                }
                Op::DeleteExec { exec, .. } => short(supervisor.delete(key, exec_id(exec), true, None).await.map(drop)),
                Op::Wait { .. } => {
                    let waited = supervisor.wait(key, None).await;
                    if let Ok(exit) = &waited {
                        lock(&machine).books.heard(&name, exit);
                    }
                    short(waited.map(|exit| exit.code))
                }
                Op::List => short(
                    supervisor
                        .list(None, Default::default(), false)
                        .await
                        .map(|all| all.len()),
                ),
                _ => return,
            };
            lock(&machine).trace(format_args!("{op:?} → {told}"));
        }))
    }
}

fn made(machine: &Mutex<Machine>, result: Result<String, Error>) -> String {
    match result {
        Ok(incarnation) => {
            lock(machine).books.answered(incarnation);
            "made".into()
        }
        Err(error) => short::<()>(Err(error)),
    }
}

/// For the trace, which must be the same each time: messages may name an incarnation.
fn short<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) if error.code() == ErrorCode::Internal => format!("INTERNAL {error}"),
        Err(error) => format!("{:?}", error.code()),
    }
}

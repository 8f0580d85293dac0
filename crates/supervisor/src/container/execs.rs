//! More processes in a container.

use berth_core::{ErrorCode, EventKind, ExecId, ExitStatus, Signal, Stdio};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::time::Duration;

use super::exits::Ending;
use super::task::Task;
use super::{Fact, Link, calls};
use crate::Error;
use crate::reply::Reply;
use crate::shim::{self, CallError};
use crate::stage::stage;
use crate::types::{Deleted, ExecSpec, ExecStarted, NewEvent};

/// Ended execs that a container keeps for callers that look at them later,
const KEEP: usize = 100;
/// and in nanoseconds how long it does at the least.
const KEEP_FOR: i64 = 60_000_000_000;
/// On top of the runtime's own deadline.
const SLACK: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Exec {
    /// 0 = it is being started, or waits to be.
    pub(super) pid: u32,
    pub(super) started_at: i64,
    pub(super) terminal: bool,
    pub(super) request_id: String,
    pub(super) stdio: Option<Stdio>,
    /// It waits to be started.
    pub(super) added: Option<Box<ExecSpec>>,
    /// It was added before it was started, and stays until it is deleted, whatever comes of its start.
    pub(super) stays: bool,
    /// Once it was told.
    pub(super) exit: Option<ExitStatus>,
    /// Its end is in the journal.
    pub(super) told: bool,
    /// The shim was asked to forget it.
    pub(super) leaving: bool,
    /// Its end came before the answer to its start did.
    pub(super) ending: Option<Ending>,
    /// Who waits for that answer.
    pub(super) callers: Vec<Reply<ExecStarted>>,
}

impl Exec {
    /// One that the shim is at work on.
    pub(super) fn new(terminal: bool, request_id: String) -> Self {
        Self {
            terminal,
            request_id,
            ..Self::default()
        }
    }
}

fn answer(callers: Vec<Reply<ExecStarted>>, result: &Result<ExecStarted, Error>) {
    for caller in callers {
        caller.send(result.clone());
    }
}

impl Task {
    pub(super) fn exec(&mut self, spec: Box<ExecSpec>, request_id: String, reply: Reply<ExecStarted>) {
        let same = |entry: &Exec| !request_id.is_empty() && entry.request_id == request_id;
        if let Some((exec, entry)) = self.execs.iter_mut().find(|(_, entry)| same(entry)) {
            // An earlier daemon took this request.
            return match entry.pid {
                0 => entry.callers.push(reply),
                pid => reply.send(Ok(ExecStarted {
                    pid,
                    exec_id: exec.clone(),
                })),
            };
        }
        match self.free_exec_id(spec.exec_id.as_ref()) {
            Ok(exec) => self.launch_exec(exec, spec, request_id, false, reply),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Takes the id and keeps the rest until it is started.
    pub(super) fn add_exec(&mut self, spec: Box<ExecSpec>, reply: Reply<()>) {
        let exec = match self.free_exec_id(spec.exec_id.as_ref()) {
            Ok(exec) => exec,
            Err(error) => return reply.send(Err(error)),
        };
        let entry = Exec {
            stdio: Some(spec.stdio.clone()),
            added: Some(spec.clone()),
            stays: true,
            ..Exec::new(spec.stdio.terminal, String::new())
        };
        self.execs.insert(exec, entry);
        self.publish();
        reply.send(Ok(()));
    }

    /// Starts one that was added.
    pub(super) fn start_exec(&mut self, exec: ExecId, reply: Reply<ExecStarted>) {
        let Some(entry) = self.execs.get_mut(&exec) else {
            let message = format!("no exec {exec} in this container");
            return reply.send(Err(self.error("start", ErrorCode::NotFound, message)));
        };
        let Some(spec) = entry.added.take() else {
            let message = format!("exec {exec} was started already");
            return reply.send(Err(self.error("start", ErrorCode::WrongState, message)));
        };
        self.launch_exec(exec, spec, String::new(), true, reply);
    }

    /// The wanted id if nobody has it, or a new one.
    fn free_exec_id(&self, wanted: Option<&ExecId>) -> Result<ExecId, Error> {
        match wanted {
            Some(exec) if self.execs.contains_key(exec) => {
                let message =
                    format!("exec id {exec} is in use; delete that exec first, or let the daemon choose an id");
                Err(self.error("exec", ErrorCode::AlreadyExists, message))
            }
            Some(exec) => Ok(exec.clone()),
            None => berth_record::random::hex::<8>()
                .map_err(|e| e.to_string())
                .and_then(|hex| hex.parse().map_err(|e: berth_core::Error| e.to_string()))
                .map_err(|e| self.error("exec", ErrorCode::Internal, format!("make an exec id: {e}"))),
        }
    }

    fn launch_exec(
        &mut self,
        exec: ExecId,
        spec: Box<ExecSpec>,
        request_id: String,
        stays: bool,
        reply: Reply<ExecStarted>,
    ) {
        let Some(link) = self.link.clone() else {
            return reply.send(Err(calls::no_shim("exec", &self.key)));
        };
        let config = self.env.config();
        let stdio: Stdio = spec.stdio.resolve(&config.log);
        reply.stage("starting");
        let entry = Exec {
            stdio: Some(stdio.clone()),
            stays,
            callers: vec![reply],
            ..Exec::new(stdio.terminal, request_id.clone())
        };
        self.execs.insert(exec.clone(), entry);
        self.publish();
        stage!("exec.reserved");
        let (process_json, overrides) = shim::exec_process(spec.process);
        let request = wire::ExecRequest {
            exec_id: exec.to_string(),
            process_json: process_json.into(),
            overrides,
            stdio: Some(shim::stdio(&stdio, None)),
            request_id,
            join: false,
        };
        self.ask_exec(link, exec, request);
    }

    /// One that the shim took from an earlier daemon, and that it is at work on.
    pub(super) fn join_exec(&mut self, link: Link, exec: ExecId, process: &wire::Process) {
        let entry = Exec::new(process.terminal, process.request_id.clone());
        self.execs.insert(exec.clone(), entry);
        let request = wire::ExecRequest {
            exec_id: exec.to_string(),
            join: true,
            ..Default::default()
        };
        self.ask_exec(link, exec, request);
    }

    fn ask_exec(&self, link: Link, exec: ExecId, request: wire::ExecRequest) {
        let deadline = Duration::from_millis(self.record.runtime.timeout_ms) + SLACK;
        self.beside(async move {
            let timeout = CallError::Timeout {
                method: "Exec",
                after: deadline,
            };
            let calling = async {
                let pending = link.client.send::<wire::ExecResponse>(Method::Exec, &request).await?;
                stage!("exec.sent");
                pending.answer().await
            };
            let result = tokio::time::timeout(deadline, calling).await.unwrap_or(Err(timeout));
            if let Err(CallError::Timeout { .. }) = &result {
                // Whatever came of it must not live on unknown.
                let request = wire::DeleteRequest {
                    exec_id: exec.to_string(),
                    force: true,
                };
                let _ = link
                    .client
                    .call::<wire::DeleteResponse>(Method::Delete, &request, SLACK)
                    .await;
            }
            Fact::ExecAnswered { exec, result }
        });
    }

    pub(super) fn exec_answered(&mut self, exec: ExecId, result: Result<wire::ExecResponse, CallError>) {
        stage!("exec.answered");
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let Some(entry) = self.execs.remove(&exec) else { return };
                if entry.stays {
                    let left = Exec {
                        stdio: entry.stdio,
                        stays: true,
                        ..Exec::new(entry.terminal, String::new())
                    };
                    self.execs.insert(exec, left);
                }
                if let Some(Ending { ack: Some(number), .. }) = entry.ending {
                    self.ack(number);
                }
                self.publish();
                return answer(entry.callers, &Err(error.into_error("exec", &self.key)));
            }
        };
        let now = self.env.clock.now();
        // Not if it was deleted while it was started.
        let Some(entry) = self.execs.get_mut(&exec) else { return };
        entry.pid = response.pid;
        let ending = entry.ending.take();
        let began = match response.started_at {
            // Of a shim of an earlier release.
            0 => now,
            at => at,
        };
        entry.started_at = began;
        let callers = std::mem::take(&mut entry.callers);
        self.tell_exec_started(&exec, response.pid, began);
        stage!("exec.told");
        if let Some(ending) = ending {
            self.exec_ended(exec.clone(), ending);
        }
        self.publish();
        let pid = response.pid;
        answer(callers, &Ok(ExecStarted { pid, exec_id: exec }));
    }

    pub(super) fn tell_exec_started(&mut self, exec: &ExecId, pid: u32, at: i64) {
        let event = NewEvent {
            at: if at == 0 { self.env.clock.now() } else { at },
            exec_id: Some(exec.clone()),
            pid,
            ..self.event(EventKind::ExecStarted)
        };
        self.say(event, None);
    }

    pub(super) fn exec_ended(&mut self, exec: ExecId, ending: Ending) {
        match self.execs.get_mut(&exec) {
            // Deleted, or told before and the acknowledgement did not arrive.
            None | Some(Exec { exit: Some(_), .. }) => {
                if let Some(number) = ending.ack {
                    self.ack(number);
                }
            }
            // Nobody hears of an end before the beginning.
            Some(entry) if entry.pid == 0 => entry.ending = Some(ending),
            Some(entry) => {
                entry.exit = Some(ending.status.clone());
                let pid = entry.pid;
                self.tell_exec_exit(&exec, pid, ending);
                self.publish();
            }
        }
    }

    /// The shim is gone: what ran in the container ends with it.
    pub(super) fn lose_execs(&mut self) {
        let running: Vec<ExecId> = self
            .execs
            .iter()
            .filter(|(_, e)| e.pid != 0 && e.exit.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for exec in running {
            let record = self.folder.as_ref().and_then(|f| f.exec(exec.as_str()).ok().flatten());
            let status = record
                .and_then(|r| r.exit)
                .map(|exit| exit.status())
                .unwrap_or_else(|| {
                    ExitStatus::lost(
                        self.env.clock.now(),
                        "the shim was killed, so how it ended is not known",
                    )
                });
            self.exec_ended(exec, Ending { status, ack: None });
        }
    }

    pub(super) fn delete_exec(&mut self, exec: ExecId, force: bool, reply: Reply<Deleted>) {
        let Some(entry) = self.execs.get(&exec) else {
            return reply.send(Ok(Deleted::default()));
        };
        if entry.stays && entry.pid == 0 && entry.callers.is_empty() {
            // It was not started, or could not be: the shim knows nothing of it.
            return self.exec_deleted(exec, Ok(()), Some(reply));
        }
        if entry.exit.is_none() && !force {
            let message = format!("exec {exec} is running; signal it and wait for it first, or delete it with force");
            return reply.send(Err(self.error("delete", ErrorCode::WrongState, message)));
        }
        let Some(link) = self.link.clone() else {
            // Its shim is gone, so only records are left.
            let result = Ok(());
            return self.exec_deleted(exec, result, Some(reply));
        };
        let runs = entry.exit.is_none();
        let handle = self.env.registry.get(&self.key);
        let deadline = self.env.config().shim.call_timeout;
        self.beside(async move {
            if runs {
                let signal = Signal::KILL.number();
                let request = wire::SignalRequest {
                    exec_id: exec.to_string(),
                    signal,
                    ..Default::default()
                };
                // It may have ended just now; whether it has shows by its exit.
                let _ = link
                    .client
                    .call::<wire::SignalResponse>(Method::Signal, &request, deadline)
                    .await;
                if let Some(handle) = handle {
                    // One that hangs in the kernel is refused by the shim then.
                    let _ = tokio::time::timeout(deadline, handle.ended(Some(&exec))).await;
                }
            }
            let request = wire::DeleteRequest {
                exec_id: exec.to_string(),
                force,
            };
            let result = link
                .client
                .call::<wire::DeleteResponse>(Method::Delete, &request, deadline)
                .await
                .map(drop);
            Fact::ExecDeleted {
                exec,
                result,
                reply: Some(reply),
            }
        });
    }

    /// Its end is in the journal. Beyond a number of them the oldest are forgotten, for callers that never delete theirs.
    pub(super) fn exec_told(&mut self, exec: &ExecId) {
        if let Some(entry) = self.execs.get_mut(exec) {
            entry.told = true;
        }
        let ended = |entry: &Exec| entry.exit.as_ref().map_or(i64::MAX, |exit| exit.exited_at);
        let told = self.execs.iter().filter(|(_, e)| e.told && !e.leaving && !e.stays);
        let mut told: Vec<_> = told.map(|(id, entry)| (ended(entry), id.clone())).collect();
        if told.len() <= KEEP {
            return;
        }
        told.sort_unstable();
        let before = self.env.clock.now() - KEEP_FOR;
        told.truncate(told.len() - KEEP);
        for (_, exec) in told.into_iter().filter(|(at, _)| *at < before) {
            let Some(link) = self.link.clone() else { return };
            if let Some(entry) = self.execs.get_mut(&exec) {
                entry.leaving = true;
            }
            let deadline = self.env.config().shim.call_timeout;
            self.beside(async move {
                let request = wire::DeleteRequest {
                    exec_id: exec.to_string(),
                    force: false,
                };
                let deleting = link
                    .client
                    .call::<wire::DeleteResponse>(Method::Delete, &request, deadline);
                let result = deleting.await.map(drop);
                Fact::ExecDeleted {
                    exec,
                    result,
                    reply: None,
                }
            });
        }
    }

    pub(super) fn exec_deleted(&mut self, exec: ExecId, result: Result<(), CallError>, reply: Option<Reply<Deleted>>) {
        match result {
            Ok(()) => {
                let cancelled = self.error(
                    "exec",
                    ErrorCode::Cancelled,
                    "the exec was deleted while it was started",
                );
                let (exit, pid) = self.execs.remove(&exec).map_or((None, 0), |entry| {
                    answer(entry.callers, &Err(cancelled));
                    (entry.exit, entry.pid)
                });
                if let Some(folder) = &self.folder
                    && let Err(error) = folder.remove_exec(exec.as_str())
                {
                    tracing::warn!(container = %self.key, %exec, %error, "an exec's record could not be removed");
                }
                self.publish();
                if let Some(reply) = reply {
                    reply.send(Ok(Deleted {
                        exit,
                        pid,
                        left: Vec::new(),
                    }));
                }
            }
            Err(error) => match (reply, self.execs.get_mut(&exec)) {
                (Some(reply), _) => reply.send(Err(error.into_error("delete", &self.key))),
                // The next end of an exec tries it again.
                (None, Some(entry)) => entry.leaving = false,
                (None, None) => {}
            },
        }
    }
}

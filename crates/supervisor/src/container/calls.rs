//! Wishes that are handed to the shim as they are: each runs beside the task with a deadline, and its answer is the caller's.

use berth_core::state::{Input, State};
use berth_core::{ContainerKey, ErrorCode, ExecId, Signal};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use prost::Message;
use tokio::time::{Duration, Instant};

use super::task::Task;
use super::{Change, Fact, Wish};
use crate::Error;
use crate::reply::Reply;

/// On top of the runtime's own deadline, where the shim calls it.
const SLACK: Duration = Duration::from_secs(5);

/// For what only makes an answer better: a mute shim must not hold up who looks at its container.
const ASK: Duration = Duration::from_secs(1);

/// There is no connection just now.
pub(super) fn no_shim(operation: &'static str, key: &ContainerKey) -> Error {
    let message = "its shim does not answer at the moment; try again, or delete with force";
    Error::new(ErrorCode::ShimLost, operation, key, message)
}

fn text(exec: &Option<ExecId>) -> String {
    exec.as_ref().map(ToString::to_string).unwrap_or_default()
}

impl Task {
    pub(super) fn forward(&mut self, wish: Wish) {
        if let Some(error) = self.unknown_exec(&wish) {
            return wish.fail(error);
        }
        let quick = self.env.config().shim.call_timeout;
        let slow = Duration::from_millis(self.record.runtime.timeout_ms) + SLACK;
        match wish {
            Wish::Exec {
                spec,
                request_id,
                reply,
            } => self.exec(spec, request_id, reply),
            Wish::AddExec { spec, reply } => self.add_exec(spec, reply),
            Wish::StartExec { exec, reply } => self.start_exec(exec, reply),
            Wish::Signal {
                exec,
                signal,
                all,
                request_id,
                reply,
            } => {
                let request = wire::SignalRequest {
                    exec_id: text(&exec),
                    signal: signal.number(),
                    all,
                    request_id,
                };
                self.relay::<wire::SignalResponse>("signal", Method::Signal, request, quick, None, reply);
            }
            Wish::Pause { reply } => {
                self.freezes += 1;
                let request = wire::PauseRequest {};
                self.relay::<wire::PauseResponse>("pause", Method::Pause, request, slow, Some(Change::Paused), reply);
            }
            Wish::Resume { reply } => {
                self.freezes += 1;
                let request = wire::ResumeRequest {};
                self.relay::<wire::ResumeResponse>(
                    "resume",
                    Method::Resume,
                    request,
                    slow,
                    Some(Change::Resumed),
                    reply,
                );
            }
            Wish::Update { resources, reply } => {
                let request = wire::UpdateRequest {
                    resources_json: resources.into(),
                };
                self.relay::<wire::UpdateResponse>(
                    "update",
                    Method::Update,
                    request,
                    slow,
                    Some(Change::Updated),
                    reply,
                );
            }
            Wish::Resize { exec, size, reply } => {
                let request = wire::ResizeRequest {
                    exec_id: text(&exec),
                    width: size.width.into(),
                    height: size.height.into(),
                };
                self.relay::<wire::ResizeResponse>("resize-terminal", Method::Resize, request, quick, None, reply);
            }
            Wish::CloseStdin { exec, reply } => {
                let request = wire::CloseStdinRequest { exec_id: text(&exec) };
                self.relay::<wire::CloseStdinResponse>("close-stdin", Method::CloseStdin, request, quick, None, reply);
            }
            Wish::Attach { reply, .. } => reply.send(match &self.folder {
                Some(folder) => Ok(folder.clone()),
                None => Err(no_shim("attach", &self.key)),
            }),
            // The table hands these to actions of their own.
            Wish::Start { .. } | Wish::Stop { .. } | Wish::Delete { .. } => {}
            Wish::DeleteExec { .. } | Wish::Ask { .. } | Wish::Probe { .. } | Wish::Policy { .. } => {
                self.any_time(wish)
            }
        }
    }

    /// Wishes that the table does not know, as they are legal in every state.
    pub(super) fn any_time(&mut self, wish: Wish) {
        match wish {
            Wish::DeleteExec { exec, force, reply } => self.delete_exec(exec, force, reply),
            Wish::Probe { reply } => reply.send(Ok(())),
            Wish::Policy { policy, reply } => self.set_policy(policy, reply),
            Wish::Ask { reply } => {
                let Some(link) = self.link.clone() else {
                    return reply.send(Err(no_shim("get", &self.key)));
                };
                let (key, deadline) = (self.key.clone(), ASK);
                tokio::spawn(async move {
                    let asked = link.client.call(Method::State, &wire::StateRequest {}, deadline).await;
                    reply.send(asked.map_err(|e| e.into_error("get", &key)));
                });
            }
            wish => {
                let error = self.error(
                    wish.operation(),
                    ErrorCode::Internal,
                    "the wish has no place in the state table",
                );
                wish.fail(error);
            }
        }
    }

    fn unknown_exec(&self, wish: &Wish) -> Option<Error> {
        let exec = match wish {
            Wish::Signal { exec, .. } | Wish::Resize { exec, .. } => exec.as_ref()?,
            Wish::CloseStdin { exec, .. } | Wish::Attach { exec, .. } => exec.as_ref()?,
            _ => return None,
        };
        let (code, message) = match self.execs.get(exec) {
            None => (ErrorCode::NotFound, format!("no exec {exec} in this container")),
            Some(entry) if entry.pid == 0 && !matches!(wish, Wish::Attach { .. }) => {
                (ErrorCode::WrongState, format!("exec {exec} was not started yet"))
            }
            Some(entry) if entry.exit.is_some() && !matches!(wish, Wish::Attach { .. }) => {
                (ErrorCode::WrongState, format!("exec {exec} has ended"))
            }
            Some(_) => return None,
        };
        Some(self.error(wish.operation(), code, message))
    }

    /// One call, its answer, and what the task is to know of a success.
    fn relay<R: Message + Default + Send + 'static>(
        &self,
        operation: &'static str,
        method: Method,
        request: impl Message + 'static,
        deadline: Duration,
        change: Option<Change>,
        reply: Reply<()>,
    ) {
        let Some(link) = self.link.clone() else {
            return reply.send(Err(no_shim(operation, &self.key)));
        };
        let (key, facts) = (self.key.clone(), self.facts_in.clone());
        reply.stage("asking the shim");
        tokio::spawn(async move {
            let result = link.client.call::<R>(method, &request, deadline).await;
            let result = result.map(drop).map_err(|e| e.into_error(operation, &key));
            // By way of the task, so that the caller finds the container changed.
            let _ = facts.send(Box::new(Fact::Relayed { change, result, reply })).await;
        });
    }

    /// A pause or resume whose answer did not come in time may have succeeded, or may do so yet: the shim knows, until the runtime's
    /// own deadline has passed.
    pub(super) fn ask_state(&self) {
        let slow = Duration::from_millis(self.record.runtime.timeout_ms) + SLACK;
        self.ask_state_until(Instant::now() + slow);
    }

    fn ask_state_until(&self, until: Instant) {
        // Without a connection the next one begins with this very question.
        let Some(link) = self.link.clone() else { return };
        let freezes = self.freezes;
        self.beside(async move {
            let deadline = until.saturating_duration_since(Instant::now()).max(ASK);
            let asked = link
                .client
                .call::<wire::StateResponse>(Method::State, &wire::StateRequest {}, deadline)
                .await;
            let state = asked.ok().map(|answer| answer.state());
            // A call whose caller has given up tells nobody that it has ended.
            tokio::time::sleep(ASK).await;
            Fact::State { freezes, state, until }
        });
    }

    pub(super) fn state_told(&mut self, freezes: u64, state: Option<wire::State>, until: Instant) {
        if freezes != self.freezes {
            return;
        }
        if let Some(state) = state {
            self.frozen_or_not(state);
        }
        if Instant::now() < until {
            self.ask_state_until(until);
        }
    }

    /// Frozen is what the shim says is frozen.
    pub(super) fn frozen_or_not(&mut self, state: wire::State) {
        match (self.state, state) {
            (State::Running, wire::State::Paused) => self.input(Input::Paused, None),
            (State::Paused, wire::State::Running) => self.input(Input::Resumed, None),
            _ => {}
        }
    }

    pub(super) fn kill(&self) {
        let Some(link) = self.link.clone() else { return };
        let (key, deadline) = (self.key.clone(), self.env.config().shim.call_timeout);
        let signal = Signal::KILL.number();
        let request = wire::SignalRequest {
            exec_id: String::new(),
            signal,
            all: true,
            request_id: String::new(),
        };
        tokio::spawn(async move {
            let killed = link
                .client
                .call::<wire::SignalResponse>(Method::Signal, &request, deadline)
                .await;
            if let Err(error) = killed {
                tracing::warn!(container = %key, %error, "a container whose start failed could not be killed");
            }
        });
    }

    pub(super) fn thaw(&mut self) {
        self.freezes += 1;
        let Some(link) = self.link.clone() else { return };
        let (key, facts) = (self.key.clone(), self.facts_in.clone());
        let deadline = Duration::from_millis(self.record.runtime.timeout_ms) + SLACK;
        tokio::spawn(async move {
            let request = wire::ResumeRequest {};
            match link
                .client
                .call::<wire::ResumeResponse>(Method::Resume, &request, deadline)
                .await
            {
                Ok(_) => drop(facts.send(Box::new(Fact::Thawed)).await),
                Err(error) => {
                    tracing::warn!(container = %key, %error, "a paused container could not be resumed to end it")
                }
            }
        });
    }
}

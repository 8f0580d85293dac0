//! One container, one task. What can reach it is closed: a `Fact` says what happened, a `Wish` what somebody asks for; facts
//! come first. The task never waits for anything but the next of them: what takes time runs beside it and comes back as a fact.

mod adopt;
mod again;
mod bury;
mod calls;
mod execs;
mod exits;
mod launch;
mod link;
pub(crate) mod remove;
mod start;
mod stop;
mod task;
mod view;

use std::sync::{Arc, OnceLock};

use berth_core::state::Input;
use berth_core::{ErrorCode, ExecId, ExitStatus, Incarnation, RestartPolicy, Signal, TerminalSize};
use berth_record::Folder;
use berth_wire::shim as wire;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Error;
use crate::board;
use crate::env::History;
use crate::gate::Permit;
use crate::reply::Reply;
use crate::shim::CallError;
use crate::types::{Deleted, ExecSpec, ExecStarted, Started, StopSpec};
pub(crate) use link::Link;
pub(crate) use task::{adopt, run};
pub(crate) use view::Snapshot;

/// Wishes that wait in a mailbox; a caller beyond waits at the door.
const WISHES: usize = 256;
/// Facts likewise: exits and answers, one for each thing under way.
const FACTS: usize = 64;

/// How everybody else reaches a container. Its mail is boxed: a mailbox has room for 32 of the largest at once, full or empty.
#[derive(Clone)]
pub(crate) struct Handle {
    wishes: mpsc::Sender<Box<Wish>>,
    /// `None` until it is adopted.
    view: board::Reader<Option<Arc<Snapshot>>>,
    hint: Arc<OnceLock<Arc<Snapshot>>>,
}

pub(crate) enum Wish {
    Start {
        request_id: String,
        reply: Reply<u32>,
    },
    Exec {
        /// Far larger than any other wish.
        spec: Box<ExecSpec>,
        request_id: String,
        reply: Reply<ExecStarted>,
    },
    /// Takes an exec's id; `StartExec` starts it.
    AddExec {
        spec: Box<ExecSpec>,
        reply: Reply<()>,
    },
    StartExec {
        exec: ExecId,
        reply: Reply<ExecStarted>,
    },
    Signal {
        exec: Option<ExecId>,
        signal: Signal,
        all: bool,
        request_id: String,
        reply: Reply<()>,
    },
    Stop {
        spec: StopSpec,
        reply: Reply<ExitStatus>,
    },
    Pause {
        reply: Reply<()>,
    },
    Resume {
        reply: Reply<()>,
    },
    Update {
        resources: Vec<u8>,
        reply: Reply<()>,
    },
    Policy {
        policy: RestartPolicy,
        reply: Reply<()>,
    },
    Resize {
        exec: Option<ExecId>,
        size: TerminalSize,
        reply: Reply<()>,
    },
    CloseStdin {
        exec: Option<ExecId>,
        reply: Reply<()>,
    },
    Attach {
        exec: Option<ExecId>,
        reply: Reply<Arc<Folder>>,
    },
    Delete {
        force: bool,
        reply: Reply<Deleted>,
    },
    DeleteExec {
        exec: ExecId,
        force: bool,
        reply: Reply<Deleted>,
    },
    /// How it is by the shim's own account, for what no record has.
    Ask {
        reply: Reply<wire::StateResponse>,
    },
    /// Is the task alive?
    Probe {
        reply: Reply<()>,
    },
}

pub(crate) enum Fact {
    Permit(Permit),
    Abandoned,
    /// How the launch ended; after a failure nothing is left of it.
    Launched(Result<launch::Launched, Error>),
    /// It could not be made again; its record is in this folder.
    NotRestarted(Error, ExitStatus, Arc<Folder>),
    /// The pause before the restart is over.
    Due,
    /// How the start of the created container ended, and when it began.
    StartAnswered(Result<(Vec<crate::types::Stage>, i64), Error>),
    /// By the connection of this number.
    Shim(u64, wire::Event),
    /// The connection of this number has ended.
    ShimGone(u64),
    /// The shim was found again and said how it is, or it is sure that it is gone.
    Relinked(Incarnation, Option<(Link, wire::StateResponse, History)>),
    /// How the init ended, found out without a shim.
    Buried(ExitStatus, History),
    /// What the shim says, asked when so many pauses and resumes had been; `until` then it is asked again.
    State {
        freezes: u64,
        state: Option<wire::State>,
        until: Instant,
    },
    /// It was resumed so that it can die.
    Thawed,
    /// The shim answered a call that changes this if it succeeded.
    Relayed {
        change: Option<Change>,
        result: Result<(), Error>,
        reply: Reply<()>,
    },
    ExecAnswered {
        exec: ExecId,
        result: Result<wire::ExecResponse, CallError>,
    },
    ExecDeleted {
        exec: ExecId,
        result: Result<(), CallError>,
        /// `None` = the container itself forgets it.
        reply: Option<Reply<Deleted>>,
    },
    Removed(remove::Removed),
    /// Time to try again what the journal did not take.
    Retry,
}

/// What a call to the shim changes in the container.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    Paused,
    Resumed,
    Updated,
}

impl Wish {
    /// What the table knows it as; `None` for those that are legal at any time.
    fn input(&self) -> Option<Input> {
        Some(match self {
            Self::Start { .. } => Input::Start,
            Self::Exec { .. } | Self::AddExec { .. } | Self::StartExec { .. } => Input::Exec,
            Self::Signal { signal, exec: None, .. } if *signal == Signal::KILL => Input::Kill,
            Self::Signal { .. } => Input::Signal,
            Self::Stop { .. } => Input::Stop,
            Self::Pause { .. } => Input::Pause,
            Self::Resume { .. } => Input::Resume,
            Self::Update { .. } => Input::Update,
            Self::Resize { .. } | Self::CloseStdin { .. } => Input::Terminal,
            Self::Attach { .. } => Input::Attach,
            Self::Delete { force: false, .. } => Input::Delete,
            Self::Delete { force: true, .. } => Input::DeleteForce,
            Self::DeleteExec { .. } | Self::Ask { .. } | Self::Probe { .. } | Self::Policy { .. } => return None,
        })
    }

    /// Whether it asks for what is told as an event; an end is never held up for want of room to tell it.
    fn makes_events(&self) -> bool {
        matches!(
            self,
            Self::Start { .. } | Self::Exec { .. } | Self::StartExec { .. } | Self::Pause { .. } | Self::Resume { .. }
        )
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Exec { .. } | Self::AddExec { .. } | Self::StartExec { .. } => "exec",
            Self::Signal { .. } => "signal",
            Self::Stop { .. } => "stop",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Update { .. } | Self::Policy { .. } => "update",
            Self::Resize { .. } => "resize-terminal",
            Self::CloseStdin { .. } => "close-stdin",
            Self::Attach { .. } => "attach",
            Self::Delete { .. } | Self::DeleteExec { .. } => "delete",
            Self::Ask { .. } => "get",
            Self::Probe { .. } => "probe",
        }
    }

    /// Answers with an error.
    pub(crate) fn fail(self, error: Error) {
        match self {
            Self::Start { reply, .. } => reply.send(Err(error)),
            Self::Exec { reply, .. } => reply.send(Err(error)),
            Self::AddExec { reply, .. } => reply.send(Err(error)),
            Self::StartExec { reply, .. } => reply.send(Err(error)),
            Self::Signal { reply, .. } => reply.send(Err(error)),
            Self::Stop { reply, .. } => reply.send(Err(error)),
            Self::Policy { reply, .. } => reply.send(Err(error)),
            Self::Pause { reply } | Self::Resume { reply } | Self::Probe { reply } => reply.send(Err(error)),
            Self::Update { reply, .. } | Self::Resize { reply, .. } | Self::CloseStdin { reply, .. } => {
                reply.send(Err(error))
            }
            Self::Attach { reply, .. } => reply.send(Err(error)),
            // Gone is what was wished.
            Self::Delete { reply, .. } | Self::DeleteExec { reply, .. } if error.code() == ErrorCode::NotFound => {
                reply.send(Ok(Deleted::default()))
            }
            Self::Delete { reply, .. } | Self::DeleteExec { reply, .. } => reply.send(Err(error)),
            Self::Ask { reply } => reply.send(Err(error)),
        }
    }
}

/// Who waits for the start that is under way.
pub(crate) enum Starter {
    /// Of Run or Create.
    Make(Reply<Started>),
    Start(Reply<u32>),
}

impl Starter {
    fn fail(self, error: Error) {
        match self {
            Self::Make(reply) => reply.send(Err(error)),
            Self::Start(reply) => reply.send(Err(error)),
        }
    }
}

impl Handle {
    /// Hands a wish in; gives it back if the task has ended meanwhile.
    pub(crate) async fn wish(&self, wish: Wish) -> Result<(), Wish> {
        self.wishes.send(Box::new(wish)).await.map_err(|refused| *refused.0)
    }

    /// Waits for the adoption; `None` if nothing was left to adopt.
    pub(crate) async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.view.wait_for(Option::is_some).await.flatten()
    }

    /// As it is now; `None` = not adopted yet.
    pub(crate) fn now(&self) -> Option<Arc<Snapshot>> {
        self.view.now()
    }

    /// Waits until the view shows an end that an event told already, or is of another incarnation, or is gone.
    pub(crate) async fn shows_end(&self, incarnation: Incarnation, exec: Option<&ExecId>) {
        let shown = |s: &Option<Arc<Snapshot>>| match (s, exec) {
            (None, _) => false,
            (Some(s), _) if s.view.incarnation != incarnation => true,
            (Some(s), None) => s.view.exit.is_some(),
            (Some(s), Some(id)) => s.view.execs.iter().all(|e| e.exec_id != *id || e.exit.is_some()),
        };
        // None: it is gone.
        let _ = self.view.wait_for(shown).await;
    }

    /// By this time at the latest: if it is not adopted by then, as its record has it. `None` = nothing is known of it, or it is gone.
    pub(crate) async fn snapshot_by(&self, deadline: Instant) -> Option<Arc<Snapshot>> {
        match self.now() {
            Some(snapshot) => Some(snapshot),
            None => match tokio::time::timeout_at(deadline, self.snapshot()).await {
                Ok(snapshot) => snapshot,
                Err(_) => self.now().or_else(|| self.hint.get().cloned()),
            },
        }
    }

    /// For who waits for the next change.
    pub(crate) fn watch(&self) -> board::Reader<Option<Arc<Snapshot>>> {
        self.view.clone()
    }

    /// How the init or the exec ended, when it has. `None` = there is no such exec, or it was deleted before it ended.
    pub(crate) async fn ended(&self, exec: Option<&ExecId>) -> Option<ExitStatus> {
        let known = |s: &Option<Arc<Snapshot>>| match (s, exec) {
            (None, _) => false,
            (Some(s), None) => s.view.exit.is_some(),
            (Some(s), Some(id)) => s.view.execs.iter().all(|e| e.exec_id != *id || e.exit.is_some()),
        };
        let snapshot = self.view.wait_for(known).await??;
        match exec {
            None => snapshot.view.exit.clone(),
            Some(id) => snapshot.view.execs.iter().find(|e| e.exec_id == *id)?.exit.clone(),
        }
    }
}

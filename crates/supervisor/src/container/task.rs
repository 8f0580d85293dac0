//! The task of one container: takes facts before wishes, asks `berth_core::state` what follows, and does it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use berth_core::state::{Action, Input, State, Verdict, step};
use berth_core::{ContainerKey, ErrorCode, EventKind, ExecId, ExitStatus, Incarnation};
use berth_record::{ContainerRecord, Folder, StateRecord};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::execs::Exec;
use super::exits::{self, Ending, Unsaid};
use super::remove::Removed;
use super::{Change, FACTS, Fact, Handle, Link, Snapshot, Starter, WISHES, Wish};
use crate::Error;
use crate::board;
use crate::deps::ShimProcess;
use crate::env::{Env, History};
use crate::gate::Permit;
use crate::reply::Reply;
use crate::stage::stage;
use crate::types::{Deleted, MadeBundle, NewEvent, Started};

pub(crate) struct Task {
    pub(super) env: Arc<Env>,
    pub(super) key: ContainerKey,
    pub(super) incarnation: Incarnation,
    pub(super) state: State,
    pub(super) record: ContainerRecord,
    pub(super) folder: Option<Arc<Folder>>,
    pub(super) link: Option<Link>,
    pub(super) pid: u32,
    pub(super) cgroup: String,
    pub(super) oom_kills: u64,
    /// Of these somebody was told.
    pub(super) oom_told: u64,
    /// Whose start this daemon told.
    start_told: Option<Incarnation>,
    /// Which an earlier daemon left, and of whose beginning it may not have told everything.
    pub(super) to_catch_up: Option<Incarnation>,
    /// The record waits for events that the journal did not take yet.
    pub(super) unsaved: bool,
    /// Its shim, while there is no connection to it.
    pub(super) unreached: Option<Arc<ShimProcess>>,
    pub(super) execs: BTreeMap<ExecId, Exec>,
    /// The init's end, once it was told.
    pub(super) exit: Option<ExitStatus>,
    /// The init's end, as long as it was not told.
    pub(super) ending: Option<Ending>,
    /// Events that the journal did not take yet, in order.
    pub(super) unsaid: VecDeque<Unsaid>,
    pub(super) retrying: bool,
    /// Until the journal is tried again.
    pub(super) patience: Duration,
    /// Why the start failed.
    pub(super) failure: Option<Error>,
    /// Until it is made.
    pub(super) bundle: Option<Box<MadeBundle>>,
    pub(super) starter: Option<Starter>,
    pub(super) start_request_id: String,
    pub(super) permit: Option<Permit>,
    pub(super) queued_at: Instant,
    /// The helper that waits in the start queue.
    pub(super) queued: Option<tokio::task::AbortHandle>,
    /// Gives the launch up.
    pub(super) abort: Option<oneshot::Sender<()>>,
    pub(super) removing: bool,
    pub(super) removed: Removed,
    joiners: Vec<Reply<Deleted>>,
    /// As long as it is being adopted.
    pub(super) history: History,
    /// What List tells until then.
    pub(super) hint: Arc<OnceLock<Arc<Snapshot>>>,
    /// An earlier task of this container ended by a defect.
    again: bool,
    /// Pauses and resumes asked of the shim so far: what it says of itself counts only if there was none since it was asked.
    pub(super) freezes: u64,
    /// News of connections up to this one is of an earlier life.
    pub(super) past_links: u64,
    /// Stops that came in the middle of a restart.
    pub(super) held: Vec<Wish>,
    view: board::Writer<Option<Arc<Snapshot>>>,
    pub(super) facts_in: mpsc::Sender<Box<Fact>>,
    facts: mpsc::Receiver<Box<Fact>>,
    wishes: mpsc::Receiver<Box<Wish>>,
    pub(super) done: bool,
}

/// What is given back.
type Refused = (Option<Box<MadeBundle>>, Reply<Started>);

/// A new container: takes the id and begins to wait for its permit. Gives what it was given back if the id is in use.
pub(crate) fn run(
    env: &Arc<Env>,
    key: ContainerKey,
    incarnation: Incarnation,
    record: ContainerRecord,
    made: Option<Box<MadeBundle>>,
    reply: Reply<Started>,
) -> Result<(), Refused> {
    let (mut task, handle) = Task::new(env, key, incarnation, record);
    if !env.registry.reserve(&task.key, handle) {
        return Err((made, reply));
    }
    task.bundle = made;
    stage!("create.reserved");
    task.starter = Some(Starter::Make(reply));
    task.publish();
    task.enqueue();
    tokio::spawn(task.serve());
    Ok(())
}

/// So many events of one container may wait for a journal that can't be written. Those that nobody asked for come on top: ends of
/// processes that run already.
const UNSAID: usize = 1000;

/// A container that an earlier daemon left, or an earlier task of this one. The id is taken at once, the rest is found out in its
/// own task; wishes wait for it.
pub(crate) fn adopt(env: &Arc<Env>, key: ContainerKey, history: &History) {
    let (mut task, handle) = Task::unknown(env, key);
    if env.registry.reserve(&task.key, handle) {
        task.history = history.clone();
        task.begin_adoption();
    }
}

/// A container whose task ended by a defect.
fn adopt_again(env: &Arc<Env>, key: ContainerKey) {
    let (mut task, handle) = Task::unknown(env, key);
    env.registry.replace(&task.key, handle);
    task.again = true;
    task.begin_adoption();
}

impl Task {
    /// Of which nothing is known but its name.
    fn unknown(env: &Arc<Env>, key: ContainerKey) -> (Self, Handle) {
        Self::new(env, key, Incarnation::from_bytes([0; 16]), ContainerRecord::default())
    }

    fn begin_adoption(mut self) {
        let adopting = Adopting::new(&self.env);
        tokio::spawn(async move {
            self.find_out().await;
            self.history = History::default();
            drop(adopting);
            self.serve().await;
        });
    }
}

/// Counts one adoption that goes on, however it ends.
struct Adopting(Arc<Env>);

impl Adopting {
    fn new(env: &Arc<Env>) -> Self {
        env.adopting.send_modify(|n| *n += 1);
        Self(env.clone())
    }
}

impl Drop for Adopting {
    fn drop(&mut self) {
        self.0.adopting.send_modify(|n| *n -= 1);
    }
}

/// A defect of ours ends one task, and costs the container no more than a crash of the daemon does: it is adopted again. If that
/// fails as well, its id is free for the doctor and the next daemon to look at.
impl Drop for Task {
    fn drop(&mut self) {
        if self.done || !std::thread::panicking() {
            return;
        }
        tracing::error!(container = %self.key, "its task ended by a defect of the daemon; please report it");
        if self.again {
            self.env.registry.remove(&self.key);
        } else {
            adopt_again(&self.env, self.key.clone());
        }
    }
}

impl Task {
    fn new(env: &Arc<Env>, key: ContainerKey, incarnation: Incarnation, record: ContainerRecord) -> (Self, Handle) {
        let (wishes_in, wishes) = mpsc::channel(WISHES);
        let (facts_in, facts) = mpsc::channel(FACTS);
        let view = board::Writer::new(None);
        let hint = Arc::default();
        let handle = Handle {
            wishes: wishes_in,
            view: view.reader(),
            hint: Arc::clone(&hint),
        };
        let task = Self {
            env: env.clone(),
            key,
            incarnation,
            state: State::Queued,
            record,
            folder: None,
            link: None,
            pid: 0,
            cgroup: String::new(),
            oom_kills: 0,
            oom_told: 0,
            start_told: None,
            to_catch_up: None,
            unsaved: false,
            unreached: None,
            execs: BTreeMap::new(),
            exit: None,
            ending: None,
            unsaid: VecDeque::new(),
            retrying: false,
            patience: exits::RETRY.0,
            failure: None,
            bundle: None,
            starter: None,
            start_request_id: String::new(),
            permit: None,
            queued_at: Instant::now(),
            queued: None,
            abort: None,
            removing: false,
            removed: Removed::default(),
            joiners: Vec::new(),
            history: History::default(),
            hint,
            again: false,
            freezes: 0,
            past_links: 0,
            held: Vec::new(),
            view,
            facts_in,
            facts,
            wishes,
            done: false,
        };
        (task, handle)
    }

    async fn serve(mut self) {
        while !self.done {
            tokio::select! {
                biased;
                Some(fact) = self.facts.recv() => self.fact(*fact),
                Some(wish) = self.wishes.recv() => self.wish(*wish),
                else => break,
            }
        }
        // Those at the door find it gone, as anybody who asks later does.
        self.wishes.close();
        while let Ok(wish) = self.wishes.try_recv() {
            let error = self.error(
                wish.operation(),
                ErrorCode::NotFound,
                "no such container; it was deleted just now",
            );
            wish.fail(error);
        }
        if self.unsaid.is_empty() {
            return;
        }
        // What a full journal did not take yet, an exit above all, is told even though the container is gone.
        while !self.unsaid.is_empty() {
            match self.facts.recv().await {
                Some(fact) if matches!(*fact, Fact::Retry) => self.fact(*fact),
                Some(_) => {}
                None => break,
            }
        }
        self.finish_removal();
    }

    /// Everybody sees the container as it is now.
    pub(super) fn publish(&self) {
        self.view.put(Some(Arc::new(self.snapshot())));
    }

    pub(super) fn error(&self, operation: &'static str, code: ErrorCode, message: impl Into<String>) -> Error {
        Error::new(code, operation, &self.key, message)
    }

    /// Runs beside the task; what it comes to is a fact.
    pub(super) fn beside(&self, work: impl Future<Output = Fact> + Send + 'static) {
        let facts = self.facts_in.clone();
        tokio::spawn(async move {
            // The task has ended: nobody is interested.
            let _ = facts.send(Box::new(work.await)).await;
        });
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        let wish = match wish {
            // The start that an earlier daemon sent for this request.
            Wish::Start { request_id, reply }
                if self.state == State::Starting
                    && self.starter.is_none()
                    && !request_id.is_empty()
                    && request_id == self.start_request_id =>
            {
                reply.stage("starting");
                self.starter = Some(Starter::Start(reply));
                return;
            }
            // It has succeeded between the caller's look and now.
            Wish::Start { request_id, reply }
                if !request_id.is_empty() && request_id == self.record.start_request_id =>
            {
                reply.send(Ok(self.pid));
                return;
            }
            wish @ Wish::Stop { .. } if self.state == State::Creating && self.record.restart.count > 0 => {
                return self.hold(wish);
            }
            wish => wish,
        };
        if self.unsaid.len() >= UNSAID && wish.makes_events() {
            let message = "too many events wait for the event journal, which can't be written; see why in berthd's log, free space in its state folder";
            let error = self.error(wish.operation(), ErrorCode::Resources, message);
            return wish.fail(error);
        }
        match wish.input() {
            Some(input) => self.input(input, Some(wish)),
            None => self.any_time(wish),
        }
    }

    /// What the table says to this input, done.
    pub(super) fn input(&mut self, input: Input, mut wish: Option<Wish>) {
        crate::stage::asked(self.state, input);
        match step(self.state, input) {
            Verdict::Ignored => {
                tracing::debug!(container = %self.key, state = %self.state, ?input, "a fact that came late");
            }
            Verdict::Refused(why) => {
                if let Some(wish) = wish {
                    let error = self.error(wish.operation(), ErrorCode::WrongState, format!("the container {why}"));
                    wish.fail(error);
                }
            }
            Verdict::To(next, actions) => {
                // What changes nothing is no news: whoever tries again on a change would do so for ever.
                let same = |action: &Action| matches!(action, Action::Forward | Action::Thaw | Action::BeginStop);
                let news = self.state != next || !actions.iter().all(same);
                self.state = next;
                for action in actions {
                    self.act(*action, &mut wish);
                }
                if news {
                    self.publish();
                }
            }
        }
    }

    fn act(&mut self, action: Action, wish: &mut Option<Wish>) {
        match action {
            Action::Enqueue => {
                if let Some(Wish::Start { request_id, reply }) = wish.take() {
                    self.start_request_id = request_id;
                    self.starter = Some(Starter::Start(reply));
                    self.enqueue();
                }
            }
            Action::LeaveQueue => self.leave_queue(),
            Action::Launch => self.launch(),
            Action::AbortLaunch => {
                if let Some(abort) = self.abort.take() {
                    // It has ended already: its answer is on the way.
                    let _ = abort.send(());
                }
            }
            Action::SendStart => self.send_start(),
            Action::Save => self.save(),
            Action::TellCreated => self.tell(EventKind::Created),
            Action::TellStarted => {
                self.tell(EventKind::Started);
                if self.record.run {
                    stage!("create.told");
                } else {
                    stage!("start.told");
                }
            }
            Action::TellStartFailed => self.tell_start_failed(),
            Action::TellPaused => self.tell(EventKind::Paused),
            Action::TellResumed => self.tell(EventKind::Resumed),
            Action::TellDeleted => {
                if !self.is_unheard_of() {
                    self.tell(EventKind::Deleted);
                }
                stage!("delete.told");
            }
            Action::TellExit => self.tell_exit(),
            // It stays in `ending`.
            Action::HoldExit => {}
            Action::ReleaseExit => {
                if self.ending.is_some() {
                    self.input(Input::Exited, None);
                }
            }
            Action::Bury => self.bury(),
            Action::Kill => self.kill(),
            Action::Forward => {
                self.heed(wish.as_ref());
                if let Some(wish) = wish.take() {
                    self.forward(wish);
                }
            }
            Action::Thaw => self.thaw(),
            Action::BackOff => self.back_off(),
            Action::Rejoin => self.rejoin(),
            Action::Defer => self.defer_restart(),
            Action::BeginStop => {
                self.heed(wish.as_ref());
                if let Some(Wish::Stop { spec, reply }) = wish.take() {
                    self.begin_stop(spec, reply);
                }
            }
            Action::AnswerExit => {
                self.heed(wish.as_ref());
                if let (Some(Wish::Stop { reply, .. }), Some(exit)) = (wish.take(), &self.exit) {
                    reply.send(Ok(exit.clone()));
                }
            }
            Action::Remove => self.remove(),
            Action::JoinRemoval => {
                if let Some(Wish::Delete { reply, .. }) = wish.take() {
                    reply.stage("removing");
                    self.joiners.push(reply);
                }
            }
            Action::Forget => self.forget(),
        }
    }

    fn finish_removal(&mut self) -> Vec<String> {
        let left = std::mem::take(&mut self.removed).finish(&self.env);
        stage!("delete.removed");
        left
    }

    /// The id is free, and whoever waited for that hears it.
    fn forget(&mut self) {
        self.done = true;
        self.publish();
        let left = if self.unsaid.is_empty() {
            self.finish_removal()
        } else {
            // The next daemon tells what this one could not, and finds it in what is left.
            self.removed.left().to_vec()
        };
        self.env.registry.remove(&self.key);
        let exit = self.exit.clone();
        for joiner in self.joiners.drain(..) {
            joiner.send(Ok(Deleted {
                exit: exit.clone(),
                pid: self.pid,
                left: left.clone(),
            }));
        }
    }

    pub(super) fn save(&mut self) {
        // The next daemon tells what the record does not say was told.
        self.unsaved = !self.unsaid.is_empty();
        if self.unsaved {
            if !std::mem::replace(&mut self.record.made, true) {
                self.write();
            }
            return;
        }
        self.record.state = match self.state {
            State::Queued | State::Creating => StateRecord::Creating,
            State::Created | State::Starting => StateRecord::Created,
            State::Running => StateRecord::Running,
            State::Paused => StateRecord::Paused,
            State::Stopped | State::Restarting => StateRecord::Stopped,
            State::Deleting => StateRecord::Deleting,
        };
        self.write();
        self.keep();
        if self.record.run || self.state == State::Created {
            stage!("create.saved");
        } else {
            stage!("start.saved");
        }
    }

    fn write(&self) {
        if let Some(folder) = &self.folder
            && let Err(error) = folder.write_container(&self.record)
        {
            // Only a hint: the shim knows better.
            tracing::warn!(container = %self.key, %error, "the container's record could not be brought up to date");
        }
    }

    /// An event about the container itself.
    pub(super) fn tell(&mut self, kind: EventKind) {
        if kind == EventKind::Started && self.start_told.replace(self.incarnation) == Some(self.incarnation) {
            // Learned from the shim's record before the answer came.
            return;
        }
        let stages = if kind == EventKind::Started {
            self.stages()
        } else {
            Vec::new()
        };
        // The answer may be later than its end.
        let begins = matches!(kind, EventKind::Created | EventKind::Started) && self.record.started_at != 0;
        let now = self.env.clock.now();
        let event = NewEvent {
            at: if begins { self.record.started_at.min(now) } else { now },
            stages,
            message: self.restart_message(kind),
            ..self.event(kind)
        };
        self.say(event, None);
    }

    pub(super) fn event(&self, kind: EventKind) -> NewEvent {
        NewEvent {
            at: self.env.clock.now(),
            kind,
            key: self.key.clone(),
            incarnation: self.incarnation,
            exec_id: None,
            pid: self.pid,
            exit: None,
            stages: Vec::new(),
            message: String::new(),
            oom_kills: 0,
        }
    }

    /// Dispatches facts; what each means stands in the file of its operation.
    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Permit(permit) => self.permitted(permit),
            Fact::Abandoned => {
                self.queued = None;
                let starter = self.starter.take();
                self.env.counters().starts_cancelled += 1;
                self.input(Input::Abandoned, None);
                // Dropped without an answer: the request had no effect. Only now, as who joined it meanwhile begins anew.
                drop(starter);
            }
            Fact::Launched(result) => self.launched(result),
            Fact::StartAnswered(result) => self.start_answered(result),
            // What an earlier life's shim still had to say was said.
            Fact::Shim(number, _) if number <= self.past_links => {}
            Fact::Shim(_, event) => self.shim_event(event),
            Fact::NotRestarted(error, status, folder) => self.not_restarted(error, status, folder),
            Fact::Due => self.input(Input::Due, None),
            Fact::ShimGone(number) => self.shim_gone(number),
            Fact::Relinked(incarnation, found) if incarnation == self.incarnation => self.relinked(found),
            Fact::Relinked(..) => {}
            Fact::Buried(status, history) => self.buried(status, &history),
            Fact::Thawed => self.input(Input::Resumed, None),
            Fact::State { freezes, state, until } => self.state_told(freezes, state, until),
            Fact::Relayed { change, result, reply } => {
                match change.filter(|_| result.is_ok()) {
                    Some(Change::Paused) => self.input(Input::Paused, None),
                    Some(Change::Resumed) => self.input(Input::Resumed, None),
                    Some(Change::Updated) => self.tell(EventKind::Updated),
                    None => {}
                }
                if matches!(change, Some(Change::Paused | Change::Resumed))
                    && result.as_ref().is_err_and(|e| e.code() == ErrorCode::Timeout)
                {
                    self.ask_state();
                }
                reply.send(result);
            }
            Fact::ExecAnswered { exec, result } => self.exec_answered(exec, result),
            Fact::ExecDeleted { exec, result, reply } => self.exec_deleted(exec, result, reply),
            Fact::Removed(removed) => {
                self.removed = removed;
                self.end_unseen();
                self.input(Input::Removed, None);
            }
            Fact::Retry => {
                self.retrying = false;
                self.say_all();
            }
        }
    }
}

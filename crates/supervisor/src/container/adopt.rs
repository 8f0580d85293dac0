//! What an earlier daemon left: found out in the container's own task, with a deadline, and what it costs is this container only.
//!
//! ```text
//! shim lives ──▶ ask it: Created, Running, Paused, Stopped ──▶ as it says
//!                        half made, or it can't be asked about a start ──▶ undone
//!                        ended meanwhile ──▶ looked at again, without it
//!                        mute ──▶ as the records say; it is tried again as long as its process lives
//! no shim ─────▶ exit recorded ──▶ Stopped │ init was made ──▶ buried │ half made ──▶ undone
//! other boot ──▶ Stopped, "host rebooted"
//! ```

use std::sync::Arc;

use berth_core::state::{Input, State};
use berth_core::{ContainerKey, EventKind, ExecId, ExitStatus, RestartPolicy};
use berth_record::{ContainerRecord, ExitRecord, Loaded, StateRecord, Verdict};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::time::Duration;

use super::execs::Exec;
use super::exits::Ending;
use super::remove::{Removal, note_undoing, remove};
use super::task::Task;
use super::{Link, bury};
use crate::deps::ShimProcess;
use crate::env::{History, Told};
use crate::{kept, shim};

/// From the end of a shim's socket to the end of its process.
const ENDING: Duration = Duration::from_millis(500);

impl Task {
    /// Brings the task to where the container is. Afterwards it serves, or is done if nothing was left to adopt.
    pub(super) async fn find_out(&mut self) {
        match berth_record::load(&self.env.layout, &self.key) {
            Ok(loaded) => self.found(loaded).await,
            Err(error) if error.is_not_found() => self.give_up(),
            Err(error) => self.broken(&error).await,
        }
    }

    async fn found(&mut self, loaded: Loaded) {
        let verdict = match berth_record::judge(&loaded, &self.env.boot_id) {
            Ok(verdict) => verdict,
            Err(error) => return self.broken(&error).await,
        };
        let Loaded {
            folder,
            container,
            shim,
            exit_seq,
            ..
        } = loaded;
        let folder = Arc::new(folder);
        self.folder = Some(folder.clone());
        let Some(record) = container else {
            // Nothing was made before the record was.
            return self.undo(None, false).await;
        };
        match record.incarnation.parse() {
            Ok(incarnation) => self.incarnation = incarnation,
            Err(error) => return self.broken(&error).await,
        }
        self.record = record;
        self.to_catch_up.get_or_insert(self.incarnation);
        self.pid = shim.as_ref().and_then(|s| s.init).map_or(0, |init| init.pid);
        if let Some(shim) = &shim {
            self.cgroup = shim.cgroup.clone();
            if self.record.started_at == 0 {
                self.record.started_at = shim.started_at;
            }
        }
        self.give_hint();
        match verdict {
            Verdict::Ended { .. } | Verdict::Lost { .. } | Verdict::Rebooted if self.record.undoing => {
                self.undo(None, true).await;
            }
            Verdict::Live { pid, shim } => match self.env.shims.found(&folder, pid, shim) {
                Ok(process) => self.ask(Arc::new(process), exit_seq).await,
                Err(error) => self.broken(&error).await,
            },
            Verdict::Ended { exit } => self.stopped(exit.status(), exit_seq).await,
            Verdict::Rebooted => {
                let status = ExitStatus::reboot(self.env.clock.now());
                let record = ExitRecord::new(&self.record.incarnation, "", self.pid, &status);
                if let Err(error) = folder.write_exit(&record) {
                    tracing::error!(container = %self.key, %error, "its end by the reboot could not be recorded");
                }
                self.stopped(status, exit_seq).await;
            }
            Verdict::Lost { .. } => {
                self.state = self.recorded_state();
                self.tell_beginning().await;
                self.publish();
                self.bury();
            }
            Verdict::HalfMade if self.was_made() => self.go_on_removing(exit_seq).await,
            Verdict::HalfMade => self.undo(None, true).await,
        }
    }

    /// By an earlier daemon, and what came of it is not known.
    pub(super) fn start_was_sent(&self) -> bool {
        let sent = self.record.start_sent || !self.record.start_request_id.is_empty();
        sent && self.record.started_at == 0
    }

    /// For who can't wait until more is known.
    fn give_hint(&mut self) {
        self.state = match self.record.state {
            StateRecord::Creating => State::Creating,
            StateRecord::Deleting => State::Deleting,
            _ => self.recorded_state(),
        };
        // Found out anew when its shim has just ended: the first hint will do.
        let _ = self.hint.set(Arc::new(self.snapshot()));
    }

    /// Its shim lives and knows better than any record.
    async fn ask(&mut self, process: Arc<ShimProcess>, exit_seq: Option<u64>) {
        let Some(folder) = self.folder.clone() else { return };
        let deadline = self.env.config().shim.adopt_timeout;
        let asked = async {
            let link = bury::connect(&self.env, &folder, process.clone(), &self.facts_in).await?;
            let state = link
                .client
                .call::<wire::StateResponse>(Method::State, &wire::StateRequest {}, deadline)
                .await;
            Ok::<_, String>((link, state.map_err(|e| e.to_string())?))
        };
        let (link, answer) = match asked.await {
            Ok(answered) => answered,
            Err(error) => {
                if tokio::time::timeout(ENDING, process.ended()).await.is_ok() {
                    // It had no container yet and has just ended, as such shims do when their daemon dies; the records say what is left.
                    return Box::pin(self.find_out()).await;
                }
                tracing::error!(
                    container = %self.key, shim = process.pid(), error,
                    "its shim does not answer; the container is kept as it was recorded and the shim is tried again"
                );
                let (env, history) = (self.env.clone(), self.history.clone());
                self.oom_told = env.told(&history).await.oom_kills(self.incarnation);
                let exit = folder.exit().ok().flatten();
                match exit.filter(|e| e.incarnation == self.record.incarnation) {
                    // Told before or not: the shim itself, if it comes back, need not say it again.
                    Some(exit) => self.stopped(exit.status(), exit_seq).await,
                    None => {
                        self.tell_beginning().await;
                        self.state = self.recorded_state();
                    }
                }
                self.relink(process);
                return self.publish();
            }
        };
        let init = answer.processes.iter().find(|p| p.exec_id.is_empty());
        let started = init.map_or(0, |p| p.started_at);
        if self.record.started_at == 0 {
            self.record.started_at = started;
        }
        // An earlier daemon sent the start, and what came of it is not known yet.
        let mut starting = self.start_was_sent();
        if starting {
            // Whoever repeats it is to hear how it ends.
            self.start_request_id = std::mem::take(&mut self.record.start_request_id);
        }
        let state = match answer.state() {
            // What an earlier daemon had killed already must not pass for a container that ran and ended.
            _ if self.record.undoing => return self.undo(Some(link), true).await,
            // It was making room for its next life, and does so again.
            wire::State::Empty if self.record.restart.replaced => State::Stopped,
            // It was being deleted, and that goes on.
            wire::State::Empty if self.was_made() => {
                self.link = Some(link);
                return self.go_on_removing(exit_seq).await;
            }
            wire::State::Empty | wire::State::Creating => return self.undo(Some(link), true).await,
            // Run had not come to its end, and nobody would hear of it.
            wire::State::Created if self.record.run => return self.undo(Some(link), true).await,
            wire::State::Created if starting => State::Starting,
            wire::State::Created => State::Created,
            wire::State::Running => State::Running,
            wire::State::Paused => State::Paused,
            wire::State::Stopped => State::Stopped,
        };
        self.pid = init.map_or(self.pid, |p| p.pid);
        self.cgroup = answer.cgroup.clone();
        self.oom_kills = answer.oom_kills;
        let exit = init.and_then(|p| p.exit).map(|e| shim::exit(&e));
        let exit = match (exit, state) {
            (None, State::Stopped) => folder.exit().ok().flatten().map(|exit| exit.status()),
            (exit, _) => exit,
        };
        self.record.restart.replaced = false;
        self.link = Some(link.clone());
        // What was not told before the crash is told now, the beginning before the end.
        let has_more = answer.oom_kills > 0 || answer.processes.iter().any(|p| !p.exec_id.is_empty());
        let behind = self.is_behind();
        let (env, history) = (self.env.clone(), self.history.clone());
        let nothing = Told::default();
        let told = if behind || has_more {
            env.told(&history).await
        } else {
            &nothing
        };
        self.oom_told = told.oom_kills(self.incarnation);
        if behind {
            self.catch_up(told);
        }
        self.adopt_execs(&link, &answer, told);
        match (state, exit) {
            (State::Stopped, Some(status)) => self.stopped(status, exit_seq).await,
            (State::Stopped, None) => self.state = self.recorded_state(),
            (state, _) => self.state = state,
        }
        starting &= self.state == State::Starting;
        self.publish();
        if let Err(error) = link.client.subscribe().await {
            // Its end is on the way as a fact.
            tracing::debug!(container = %self.key, %error, "its shim went just now");
        }
        if starting {
            // The shim tells how that one ends, or starts it now.
            self.send_start();
        }
        self.keep();
        tracing::debug!(container = %self.key, state = %self.state, "adopted");
    }

    /// The last daemon died while it deleted this.
    async fn go_on_removing(&mut self, exit_seq: Option<u64>) {
        self.tell_beginning().await;
        self.state = State::Stopped;
        let exit = self.folder.as_ref().and_then(|f| f.exit().ok().flatten());
        if let Some(exit) = exit.filter(|e| e.incarnation == self.record.incarnation) {
            self.stopped(exit.status(), exit_seq).await;
        }
        self.input(Input::DeleteForce, None);
    }

    /// What the record does not say was told of its creation and start; nothing, if it may not have been made.
    async fn tell_beginning(&mut self) {
        if !self.is_behind() {
            return;
        }
        let (env, history) = (self.env.clone(), self.history.clone());
        let told = env.told(&history).await;
        if self.pid != 0 || self.record.made || told.has(self.incarnation, None, EventKind::Created) {
            self.catch_up(told);
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.to_catch_up == Some(self.incarnation)
            && (self.record.state == StateRecord::Creating
                || (self.record.state == StateRecord::Created && self.record.started_at != 0))
    }

    /// Somebody may have been told so.
    fn was_made(&self) -> bool {
        self.record.made || self.record.state != StateRecord::Creating
    }

    /// It is in no event, and may be nothing but a record.
    pub(super) fn is_unheard_of(&self) -> bool {
        self.is_behind() && self.record.state == StateRecord::Creating
    }

    /// Once: the record says so only when the journal has taken it.
    pub(super) fn catch_up(&mut self, told: &Told) {
        self.to_catch_up = None;
        if self.record.state == StateRecord::Creating {
            self.tell_unless(told, EventKind::Created);
        }
        self.state = State::Created;
        if self.record.started_at != 0 {
            self.tell_unless(told, EventKind::Started);
            self.state = State::Running;
        }
        self.save();
    }

    fn tell_unless(&mut self, told: &Told, kind: EventKind) {
        if !told.has(self.incarnation, None, kind) {
            self.tell(kind);
        }
    }

    /// Those that its shim has, and that are not known yet.
    pub(super) fn take_on_execs(&mut self, link: &Link, answer: &wire::StateResponse, history: &History) {
        let nothing = Told::default();
        self.adopt_execs(link, answer, history.get().unwrap_or(&nothing));
    }

    fn adopt_execs(&mut self, link: &Link, answer: &wire::StateResponse, told: &Told) {
        let is_new = |task: &Self, id: &str| id.parse().is_ok_and(|exec: ExecId| !task.execs.contains_key(&exec));
        for process in &answer.processes {
            if is_new(self, &process.exec_id) {
                self.adopt_exec(process, told);
            }
        }
        for process in &answer.being_made {
            if let Ok(exec) = process.exec_id.parse()
                && is_new(self, &process.exec_id)
            {
                self.join_exec(link.clone(), exec, process);
            }
        }
    }

    fn adopt_exec(&mut self, process: &wire::Process, told: &Told) {
        let Ok(exec) = process.exec_id.parse::<ExecId>() else {
            return;
        };
        let entry = Exec {
            pid: process.pid,
            started_at: process.started_at,
            ..Exec::new(process.terminal, process.request_id.clone())
        };
        self.execs.insert(exec.clone(), entry);
        let begun = told.has(self.incarnation, Some(&exec), EventKind::ExecStarted);
        if !begun && told.reaches(process.started_at) {
            self.tell_exec_started(&exec, process.pid, process.started_at);
        }
        if let Some(exit) = process.exit {
            let status = shim::exit(&exit);
            let marked = self
                .folder
                .as_ref()
                .and_then(|f| f.exec_seq(exec.as_str()).ok().flatten());
            match marked.or_else(|| told.exit(self.incarnation, Some(&exec))) {
                Some(number) => {
                    self.mark(Some(&exec), number);
                    if let Some(entry) = self.execs.get_mut(&exec) {
                        entry.exit = Some(status);
                    }
                    self.exec_told(&exec);
                }
                None => self.exec_ended(exec, Ending { status, ack: None }),
            }
        }
    }

    /// It has ended; its end gets its number if it has none.
    async fn stopped(&mut self, status: ExitStatus, exit_seq: Option<u64>) {
        let known = match exit_seq {
            Some(number) => Some(number),
            None => {
                let (env, history) = (self.env.clone(), self.history.clone());
                env.told(&history).await.exit(self.incarnation, None)
            }
        };
        self.tell_beginning().await;
        // Any state with an init: the table makes it Stopped.
        self.state = State::Running;
        match known {
            Some(number) => {
                if exit_seq.is_none() {
                    self.mark(None, number);
                }
                self.exit = Some(status);
                self.state = State::Stopped;
                self.after_end();
                self.publish();
            }
            None => {
                self.ending = Some(Ending { status, ack: None });
                self.input(Input::Exited, None);
            }
        }
    }

    /// The state that the record hints at.
    fn recorded_state(&self) -> State {
        match self.record.state {
            StateRecord::Creating | StateRecord::Created => State::Created,
            StateRecord::Running | StateRecord::Stopped | StateRecord::Deleting => State::Running,
            StateRecord::Paused => State::Paused,
        }
    }

    /// Half made: nobody was told of it, so it is as if it had never been.
    async fn undo(&mut self, link: Option<Link>, made: bool) {
        tracing::info!(container = %self.key, "a creation that the last daemon did not finish is undone");
        let Some(folder) = self.folder.clone() else {
            return self.give_up();
        };
        // Of a restart: what ended before is still to be restarted, under the same log.
        let again = self.policy() != RestartPolicy::No && self.record.restart.last.is_some();
        let mut record = with_names(&self.key, &self.incarnation.to_string(), &self.record);
        record.restart.replaced = again;
        let removal = Removal {
            env: self.env.clone(),
            key: self.key.clone(),
            record: note_undoing(&folder, &self.key, record),
            folder,
            log: !again,
            link,
            unreached: None,
            made,
            force: true,
        };
        let left = remove(removal).await.finish(&self.env);
        if !left.is_empty() {
            tracing::warn!(container = %self.key, ?left, "it was undone, but for this; it is tried again");
        }
        if again {
            let (record, status) = kept::last_end(&self.env, self.record.clone());
            match kept::lay_out(&self.env, &self.key, record, &status) {
                Ok(_) => {
                    self.folder = None;
                    return Box::pin(self.find_out()).await;
                }
                Err(error) => tracing::error!(container = %self.key, %error, "it can't be brought back"),
            }
        }
        self.give_up();
    }

    /// Nothing to adopt: the id is free.
    fn give_up(&mut self) {
        self.env.registry.remove(&self.key);
        self.done = true;
    }

    /// Kept, so that its id is not used again over what may still run; delete with force removes it.
    async fn broken(&mut self, error: &(dyn std::fmt::Display + Sync)) {
        tracing::error!(
            container = %self.key, %error,
            "its records can't be used; the container is kept as lost, delete it with force"
        );
        if self.folder.is_none() {
            self.folder = berth_record::Folder::open(&self.env.layout, &self.key)
                .ok()
                .map(Arc::new);
        }
        self.record = with_names(&self.key, &self.incarnation.to_string(), &self.record);
        self.exit = Some(ExitStatus::lost(
            self.env.clock.now(),
            format!("its records can't be used: {error}"),
        ));
        self.state = State::Stopped;
        self.publish();
        // Its shim, if it lives and its own record is whole, can still remove all that there is.
        let shim = self.folder.as_ref().and_then(|f| f.shim().ok().flatten());
        if let (Some(folder), Some(shim)) = (self.folder.clone(), shim.filter(|s| s.boot_id == self.env.boot_id))
            && let Ok(Some(pidfd)) = berth_record::known(shim.shim)
            && let Ok(process) = self.env.shims.found(&folder, shim.shim.pid, pidfd)
        {
            self.link = bury::connect(&self.env, &folder, Arc::new(process), &self.facts_in)
                .await
                .ok();
        }
    }
}

/// A record that is missing or broken has no names of its own.
fn with_names(key: &ContainerKey, incarnation: &str, record: &ContainerRecord) -> ContainerRecord {
    ContainerRecord {
        namespace: key.namespace.to_string(),
        id: key.id.to_string(),
        incarnation: incarnation.to_owned(),
        ..record.clone()
    }
}

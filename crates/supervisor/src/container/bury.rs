//! A shim that is lost: found again if its process lives, and if not, the init's end is found out and the init with it.

use std::sync::Arc;

use berth_core::state::{Input, State};
use berth_core::{ContainerKey, ExitStatus};
use berth_record::{ContainerRecord, ExitRecord, Folder};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::sync::mpsc;
use tokio::time::Duration;

use super::exits::Ending;
use super::task::Task;
use super::{Fact, Link};
use crate::deps::ShimProcess;
use crate::env::{Env, History};

/// Between two tries to reach a shim that lives but does not answer: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a killed init may take to end.
const KILL: Duration = Duration::from_secs(10);

impl Task {
    pub(super) fn shim_gone(&mut self, number: u64) {
        // News of an older connection, or of one that a removal has closed.
        if self.link.as_ref().is_none_or(|l| l.number != number) || self.removing {
            return;
        }
        let Some(link) = self.link.take() else { return };
        self.publish();
        self.relink(link.client.process().clone());
    }

    /// Tries to reach the shim again as long as its process lives.
    pub(super) fn relink(&mut self, process: Arc<ShimProcess>) {
        let Some(folder) = self.folder.clone() else { return };
        self.unreached = Some(process.clone());
        let behind = self.is_behind();
        let (env, key, facts) = (self.env.clone(), self.key.clone(), self.facts_in.clone());
        let incarnation = self.incarnation;
        self.beside(async move {
            let mut pause = RETRY.0;
            loop {
                if process.has_ended() {
                    return Fact::Relinked(incarnation, None);
                }
                match answering(&env, &folder, process.clone(), &facts).await {
                    Ok((link, answer)) => {
                        let history = History::default();
                        if behind || answer.processes.iter().any(|p| !p.exec_id.is_empty()) {
                            env.told(&history).await;
                        }
                        return Fact::Relinked(incarnation, Some((link, answer, history)));
                    }
                    // Nobody listens and there is no process to see: it is gone.
                    Err(_) if process.is_fake() => return Fact::Relinked(incarnation, None),
                    Err(error) => {
                        tracing::warn!(container = %key, shim = process.pid(), %error, "its shim does not answer")
                    }
                }
                tokio::select! {
                    biased;
                    () = process.ended() => return Fact::Relinked(incarnation, None),
                    // A shim that refuses tells nobody when it will not any more.
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
                }
            }
        });
    }

    pub(super) fn relinked(&mut self, found: Option<(Link, wire::StateResponse, History)>) {
        self.unreached = None;
        match found {
            // A removal does without.
            _ if self.removing => {}
            Some((link, answer, history)) => {
                // What this daemon did not know because its shim was mute when it was adopted, or sent over the lost connection.
                self.take_on_execs(&link, &answer, &history);
                let init = answer.processes.iter().find(|p| p.exec_id.is_empty());
                if let (Some(init), Some(told)) = (init.filter(|_| self.is_behind()), history.get()) {
                    self.pid = init.pid;
                    if self.record.started_at == 0 {
                        self.record.started_at = init.started_at;
                    }
                    self.catch_up(told);
                }
                let client = link.client.clone();
                let lost = link.client.is_gone().then_some(link.number);
                self.link = Some(link);
                tokio::spawn(async move { client.subscribe().await });
                self.frozen_or_not(answer.state());
                if self.state == State::Created && self.start_was_sent() {
                    self.state = State::Starting;
                    self.start_request_id = std::mem::take(&mut self.record.start_request_id);
                    self.send_start();
                }
                self.publish();
                if let Some(number) = lost {
                    self.shim_gone(number);
                }
            }
            None => self.input(Input::ShimLost, None),
        }
    }

    pub(super) fn bury(&mut self) {
        tracing::error!(container = %self.key, "its shim is gone; what it supervised is ended");
        let Some(folder) = self.folder.clone() else { return };
        let (env, record) = (self.env.clone(), self.record.clone());
        let (key, behind) = (self.key.clone(), self.is_behind());
        self.beside(async move {
            let status = find_exit(&env, &key, &record, &folder).await;
            let history = History::default();
            if behind {
                env.told(&history).await;
            }
            Fact::Buried(status, history)
        });
    }

    pub(super) fn buried(&mut self, status: ExitStatus, history: &History) {
        // The beginning before the end. A removal tells both.
        if let Some(told) = history.get()
            && self.is_behind()
            && !self.removing
        {
            self.catch_up(told);
        }
        self.lose_execs();
        if self.exit.is_none() && self.ending.is_none() {
            self.ending = Some(Ending { status, ack: None });
            self.input(Input::Exited, None);
        }
    }
}

/// Likewise, and the shim has answered a call: one that refuses us (it speaks another version, a newer daemon has it) accepts every
/// connection and closes it, and must not be tried without a pause.
async fn answering(
    env: &Arc<Env>,
    folder: &Arc<Folder>,
    process: Arc<ShimProcess>,
    facts: &mpsc::Sender<Box<Fact>>,
) -> Result<(Link, wire::StateResponse), String> {
    let link = connect(env, folder, process, facts).await?;
    let deadline = env.config().shim.adopt_timeout;
    let asked = link
        .client
        .call::<wire::StateResponse>(Method::State, &wire::StateRequest {}, deadline)
        .await;
    asked.map(|answer| (link, answer)).map_err(|e| e.to_string())
}

/// A connection to the shim that serves this folder. Nothing was asked over it yet.
pub(super) async fn connect(
    env: &Arc<Env>,
    folder: &Arc<Folder>,
    process: Arc<ShimProcess>,
    facts: &mpsc::Sender<Box<Fact>>,
) -> Result<Link, String> {
    let deadline = env.config().shim.adopt_timeout;
    let connecting = tokio::time::timeout(deadline, env.shims.connect(folder)).await;
    let stream = connecting
        .map_err(|_| "no connection in time".to_owned())?
        .map_err(|e| e.to_string())?;
    Ok(Link::new(env, stream, process, facts))
}

/// How the init ended, by its record; if nobody saw it, it is killed and counts as lost. The record is complete afterwards.
async fn find_exit(env: &Env, key: &ContainerKey, record: &ContainerRecord, folder: &Folder) -> ExitStatus {
    let recorded = || {
        let exit = folder
            .exit()
            .inspect_err(|error| tracing::error!(container = %key, %error, "its exit can't be read"));
        exit.ok().flatten().filter(|e| e.incarnation == record.incarnation)
    };
    if let Some(exit) = recorded() {
        return exit.status();
    }
    let init = folder.shim().ok().flatten().and_then(|shim| shim.init);
    let pid = init.map_or(0, |init| init.pid);
    if let Some(init) = init
        && let Ok(Some(pidfd)) = berth_record::known(init)
        && let Ok(process) = env.shims.found(folder, init.pid, pidfd)
    {
        process.kill();
        if tokio::time::timeout(KILL, process.ended()).await.is_err() {
            tracing::error!(container = %key, pid, "its init does not end; it hangs in the kernel");
        }
    }
    let status = ExitStatus::lost(env.clock.now(), "its shim was killed, so how it ended is not known");
    let exit = ExitRecord::new(&record.incarnation, "", pid, &status);
    if let Err(error) = folder.write_exit(&exit) {
        tracing::error!(container = %key, %error, "its exit could not be recorded");
    }
    status
}

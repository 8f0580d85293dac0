//! Removing everything of a container. Every step can be repeated, and what resists moves to the background with the id free.
//!
//! The shim (or one forked for the cleaning up, if the container's own is gone or mute) has the runtime delete what it knows; then
//! the shim ends, the log goes, and the folder is renamed and removed.

use std::sync::Arc;

use berth_core::{ContainerKey, EventKind, ExitReason, ExitStatus, Incarnation};
use berth_record::{ContainerRecord, Folder, StateRecord};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::sync::mpsc;
use tokio::time::Duration;

use super::launch::create_request;
use super::task::Task;
use super::{Fact, Link};
use crate::deps::ShimProcess;
use crate::env::{Env, History};
use crate::lane::blocking;
use crate::shim::CallError;
use crate::stage::stage;
use crate::store::{self, Tomb};
use crate::types::NewEvent;

/// On top of the runtime's own deadline, for what the shim does around its call.
const SLACK: Duration = Duration::from_secs(5);
/// How long a shim may take to end when asked.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the fork of a shim may take.
const FORK: Duration = Duration::from_secs(10);
/// How long the disk of the logs may take.
const DISK: Duration = Duration::from_secs(5);
/// Why nothing is known of an end.
pub(super) const UNSEEN: &str = "it was deleted without its shim, so how it ended is not known";
/// Between two tries in the background: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(super) struct Removal {
    pub(super) env: Arc<Env>,
    pub(super) key: ContainerKey,
    pub(super) record: ContainerRecord,
    pub(super) folder: Arc<Folder>,
    /// There may be a log.
    pub(super) log: bool,
    pub(super) link: Option<Link>,
    /// A shim that lives and did not answer: it would outlive its container.
    pub(super) unreached: Option<Arc<ShimProcess>>,
    /// A runtime may have been called for it: only a shim can clean up.
    pub(super) made: bool,
    pub(super) force: bool,
}

impl Task {
    /// Once: a removal that is under way goes on.
    pub(super) fn remove(&mut self) {
        if std::mem::replace(&mut self.removing, true) {
            return;
        }
        stage!("delete.begun");
        let Some(folder) = self.folder.clone() else {
            return self.beside(async { Fact::Removed(Removed::default()) });
        };
        let log = self.log_path(&(&self.record.stdio).into()).is_some();
        let removal = Removal {
            env: self.env.clone(),
            key: self.key.clone(),
            record: self.record.clone(),
            folder,
            log,
            link: self.link.clone(),
            unreached: self.unreached.take(),
            // A record that was lost names no runtime, and then there is nobody to ask.
            made: self.link.is_some() || !self.record.runtime.name.is_empty(),
            // What ended is deleted as such; anything else was wished with force.
            force: self.exit.as_ref().is_none_or(|e| e.reason == ExitReason::Lost),
        };
        let kept = self.policy() != berth_core::RestartPolicy::No;
        self.beside(async move {
            if kept {
                removal.env.kept.forget(&removal.key).await;
            }
            Fact::Removed(remove(removal).await)
        });
    }
}

/// What a removal came to: the id is free on disk, and the rest of the folder waits to be removed.
#[derive(Default)]
pub(crate) struct Removed {
    left: Vec<String>,
    tomb: Option<Tomb>,
}

impl Removed {
    /// What resisted so far.
    pub(super) fn left(&self) -> &[String] {
        &self.left
    }

    /// Removes the rest, once it was told that the container is deleted. Answers what is left; that is tried again in the background.
    pub(super) fn finish(self, env: &Arc<Env>) -> Vec<String> {
        let Self { mut left, tomb } = self;
        let Some(tomb) = tomb else { return left };
        if left.is_empty()
            && let Err(e) = tomb.remove(&env.layout)
        {
            left.push(format!("folder {}: {e}", tomb.path(&env.layout).display()));
        }
        if !left.is_empty() {
            tokio::spawn(clean_up(env.clone(), tomb, RETRY.0));
        }
        left
    }
}

/// A creation is taken back: whoever finds it half done goes on with that.
pub(super) fn note_undoing(folder: &Folder, key: &ContainerKey, mut record: ContainerRecord) -> ContainerRecord {
    record.undoing = true;
    if let Err(error) = folder.write_container(&record) {
        tracing::warn!(container = %key, %error, "that it is undone could not be noted");
    }
    record
}

/// All but the last step.
pub(super) async fn remove(removal: Removal) -> Removed {
    let Removal {
        env,
        key,
        record,
        folder,
        log,
        link,
        unreached,
        made,
        force,
    } = removal;
    if let Some(process) = unreached {
        process.kill();
        let _ = tokio::time::timeout(GOODBYE, process.ended()).await;
    }
    let mut left = if made {
        empty(&env, &key, &record, &folder, link.clone(), force).await
    } else {
        Vec::new()
    };
    stage!("delete.emptied");
    if let Some(link) = link {
        say_goodbye(&link).await;
    }
    stage!("delete.shutdown");
    if record.own_bundle {
        left.extend(remove_bundle(&env, &key).await);
    }
    let emptied = left.is_empty();
    if log {
        env.log_folders.leave(&key, &record.incarnation);
        left.extend(remove_log(&env, &key, &record.incarnation).await);
    }
    let tomb = store::bury(&env.layout, &key, &record.incarnation, emptied)
        .inspect_err(|e| left.push(format!("folder {}: {e}", env.layout.container(&key).display())))
        .ok();
    stage!("delete.renamed");
    Removed { left, tomb }
}

/// Answers what is left if the disk does not let it go, or does not answer; the work goes on then, whatever comes of it.
pub(super) async fn remove_log(env: &Arc<Env>, key: &ContainerKey, incarnation: &str) -> Option<String> {
    let why = match tokio::time::timeout(DISK, env.log_folders.remove(key, incarnation)).await {
        Ok(Ok(())) => return None,
        Ok(Err(e)) => e.to_string(),
        Err(_) => "its disk does not answer".to_owned(),
    };
    Some(format!("log folder {}: {why}", env.layout.log_dir(key).display()))
}

/// The bundle that the daemon made, and what is mounted in it. Answers what is left.
async fn remove_bundle(env: &Arc<Env>, key: &ContainerKey) -> Option<String> {
    let (layout, of) = (env.layout.clone(), key.clone());
    let removing = blocking(move || store::remove_bundle(&layout, &of)).await;
    let failed = removing.flatten().err();
    failed.map(|e| format!("bundle {}: {e}", env.layout.bundle(key).display()))
}

/// Has a shim remove all that it and the runtime made; a mute one is replaced by another. Answers what is left.
async fn empty(
    env: &Arc<Env>,
    key: &ContainerKey,
    record: &ContainerRecord,
    folder: &Arc<Folder>,
    link: Option<Link>,
    force: bool,
) -> Vec<String> {
    let deadline = Duration::from_millis(record.runtime.timeout_ms) + SLACK;
    if let Some(link) = &link {
        match delete(link, force, deadline).await {
            Ok(left) => return left,
            Err(error) => {
                tracing::warn!(container = %key, %error, "its shim did not delete it; another one is tried");
                kill(link).await;
            }
        }
    }
    let (facts, _ignored) = mpsc::channel(1);
    let forked = tokio::time::timeout(FORK, Link::fork(env, folder, key, &facts)).await;
    let cleaner = match forked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        Ok(cleaner) => cleaner,
        Err(e) => return vec![format!("a shim to clean up could not be forked: {e}")],
    };
    let config = env.config();
    let request = wire::CreateRequest {
        cleanup_only: true,
        start: false,
        ..create_request(
            record,
            &config.shim,
            wire::Stdio {
                to: Some(wire::stdio::To::Null(wire::Null {})),
                ..Default::default()
            },
        )
    };
    let cleaning = async {
        cleaner
            .client
            .call::<wire::CreateResponse>(Method::Create, &request, deadline)
            .await?;
        delete(&cleaner, true, deadline).await
    };
    let left = cleaning
        .await
        .unwrap_or_else(|e| vec![format!("what its runtime made: {e}")]);
    say_goodbye(&cleaner).await;
    left
}

async fn delete(link: &Link, force: bool, deadline: Duration) -> Result<Vec<String>, CallError> {
    let request = wire::DeleteRequest {
        exec_id: String::new(),
        force,
    };
    Ok(link
        .client
        .call::<wire::DeleteResponse>(Method::Delete, &request, deadline)
        .await?
        .left)
}

/// Ends a shim, politely first.
async fn say_goodbye(link: &Link) {
    let asked = link
        .client
        .call::<wire::ShutdownResponse>(Method::Shutdown, &wire::ShutdownRequest {}, GOODBYE)
        .await;
    let process = link.client.process();
    if asked.is_err() || tokio::time::timeout(GOODBYE, gone(link)).await.is_err() {
        process.kill();
        // A killed process ends as soon as it runs; one in an uninterruptible sleep is not waited for.
        let _ = tokio::time::timeout(GOODBYE, gone(link)).await;
    }
}

async fn kill(link: &Link) {
    link.client.process().kill();
    let _ = tokio::time::timeout(GOODBYE, gone(link)).await;
}

/// Its process has ended, or, where that can't be seen, its connection.
async fn gone(link: &Link) {
    let process = link.client.process().clone();
    tokio::select! {
        biased;
        () = process.ended() => {}
        () = link.client.closed(), if process.is_fake() => {}
    }
}

/// Tries until nothing is left, ever more rarely.
async fn clean_up(env: Arc<Env>, tomb: Tomb, first: Duration) {
    let mut pause = first;
    loop {
        // What holds a mount or a group tells nobody when it lets go.
        tokio::time::sleep(pause).await;
        match try_once(&env, &tomb).await {
            Ok(None) => {
                tracing::debug!(container = %tomb.key, "its id is in use again: what is left of the earlier one waits");
            }
            Ok(Some(left)) if left.is_empty() => {
                tracing::info!(container = %tomb.key, "what was left of a deleted container is gone now");
                return;
            }
            Ok(Some(left)) => {
                tracing::warn!(container = %tomb.key, ?left, "a deleted container still has something left")
            }
            Err(error) => tracing::warn!(container = %tomb.key, %error, "a deleted container can't be cleaned up yet"),
        }
        pause = (pause * 2).clamp(RETRY.0, RETRY.1);
    }
}

/// One that an earlier daemon buried: its log may still have the name, if no container has come after it that keeps one.
pub(crate) fn expect(env: &Arc<Env>, tomb: &Tomb) {
    let record = |folder: Arc<Folder>| folder.container().ok().flatten();
    let next = Folder::open(&env.layout, &tomb.key).ok().map(Arc::new).and_then(record);
    if let Some(buried) = tomb.open(&env.layout).ok().and_then(record)
        && store::keeps_log(&buried)
        && !buried.restart.replaced
        && !next.is_some_and(|next| store::keeps_log(&next))
    {
        env.log_folders.leave(&tomb.key, &buried.incarnation);
    }
}

/// One that an earlier daemon buried: it may have died before it could tell.
pub(crate) async fn resume(env: Arc<Env>, tomb: Tomb, history: History) {
    tell_end(&env, &tomb, &history).await;
    drop(history);
    clean_up(env, tomb, Duration::ZERO).await;
}

async fn tell_end(env: &Arc<Env>, tomb: &Tomb, history: &History) {
    let folder = tomb.open(&env.layout).ok();
    let record = folder.as_ref().and_then(|folder| folder.container().ok().flatten());
    // One that made room for its next life is not deleted, and its end was told.
    let Some(record) = record.filter(|record| !record.restart.replaced) else {
        return;
    };
    let Ok(incarnation) = record.incarnation.parse::<Incarnation>() else {
        return;
    };
    let told = env.told(history).await;
    let has = |kind| told.has(incarnation, None, kind);
    let shim = folder.as_ref().and_then(|folder| folder.shim().ok().flatten());
    let shim = shim.filter(|shim| shim.incarnation == record.incarnation);
    let init = shim.as_ref().and_then(|shim| shim.init);
    // The record says what was told. What was undone nobody hears of.
    let untold = record.state == StateRecord::Creating && record.made;
    if !(has(EventKind::Created) || untold) || has(EventKind::Deleted) {
        return;
    }
    let started_at = match record.started_at {
        0 => shim.map_or(0, |shim| shim.started_at),
        at => at,
    };
    let event = |kind| NewEvent {
        at: env.clock.now(),
        kind,
        key: tomb.key.clone(),
        incarnation,
        exec_id: None,
        pid: init.map_or(0, |init| init.pid),
        exit: None,
        stages: Vec::new(),
        message: String::new(),
        oom_kills: 0,
    };
    if !has(EventKind::Created) {
        publish(env, event(EventKind::Created)).await;
    }
    let is_behind = matches!(record.state, StateRecord::Creating | StateRecord::Created);
    if is_behind && started_at != 0 && !has(EventKind::Started) {
        publish(env, event(EventKind::Started)).await;
    }
    let numbered = folder.as_ref().and_then(|folder| folder.exit_seq().ok().flatten());
    if numbered.is_none() && told.exit(incarnation, None).is_none() {
        // The removal ended it, and no news of that came before its daemon died; or the journal was full.
        let recorded = folder.and_then(|folder| folder.exit().ok().flatten());
        let recorded = recorded.filter(|exit| exit.incarnation == record.incarnation);
        let mut status = recorded.map_or_else(|| ExitStatus::lost(env.clock.now(), UNSEEN), |exit| exit.status());
        if started_at == 0 && status.reason != ExitReason::Reboot {
            status.reason = ExitReason::StartFailed;
        }
        let exited = NewEvent {
            at: status.exited_at,
            exit: Some(status),
            ..event(EventKind::Exited)
        };
        publish(env, exited).await;
    }
    publish(env, event(EventKind::Deleted)).await;
}

async fn publish(env: &Env, event: NewEvent) {
    // The bus logs why.
    while env.bus.publish(event.clone()).is_err() {
        // A deadline for the wait.
        tokio::time::sleep(RETRY.0).await;
    }
}

/// Answers what is left; `None` while another container has the id, for it has the cgroup and the runtime's state of that name too.
async fn try_once(env: &Arc<Env>, tomb: &Tomb) -> std::io::Result<Option<Vec<String>>> {
    let folder = match tomb.open(&env.layout) {
        Ok(folder) => folder,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(e) => return Err(e),
    };
    let mut left = Vec::new();
    // Without a record nothing was made, or it was removed already.
    if let Some(record) = folder.container().unwrap_or_default() {
        if !tomb.empty {
            // A creation of this name waits until this try has ended.
            let _turn = env.cleaning.take(&tomb.key).await;
            if env.registry.get(&tomb.key).is_some() {
                return Ok(None);
            }
            left = empty_tomb(env, tomb, &record, &folder).await;
        }
        if store::keeps_log(&record) {
            left.extend(remove_log(env, &tomb.key, &record.incarnation).await);
        }
    }
    if left.is_empty() {
        tomb.remove(&env.layout)?;
    }
    Ok(Some(left))
}

/// What bears the container's name, and not its incarnation's. Answers what is left.
async fn empty_tomb(env: &Arc<Env>, tomb: &Tomb, record: &ContainerRecord, folder: &Arc<Folder>) -> Vec<String> {
    let mut record = record.clone();
    // The runtime's own folder moved with the container's.
    let was = env.layout.container(&tomb.key);
    if let Ok(inside) = record.runtime.root.strip_prefix(&was) {
        record.runtime.root = tomb.path(&env.layout).join(inside);
    }
    let mut left = empty(env, &tomb.key, &record, folder, None, true).await;
    if record.own_bundle {
        left.extend(remove_bundle(env, &tomb.key).await);
    }
    left
}

//! What must be there again after a reboot: the records of containers with a restart policy, kept by whoever has a database.
//!
//! Invariants: the newest record of a container wins, in whatever order tasks come by; a removal is kept before anything is removed,
//! so that nothing deleted comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::{ContainerKey, ExitStatus, Incarnation, RestartPolicy};
use berth_record::{ContainerRecord, ExitRecord, Folder, RestartRecord, StateRecord, envelope};
use tokio::sync::{Notify, watch};
use tokio::time::Duration;

use crate::deps::BoxFuture;
use crate::env::{Env, History};
use crate::{Supervisor, container};

/// A full disk tells nobody when it has room again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a removal waits for it at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where they are kept. A record is opaque there.
pub trait Keep: Send + Sync + 'static {
    fn load(&self) -> BoxFuture<'_, Vec<(ContainerKey, Vec<u8>)>>;
    /// `None` = forget it. Answers whether it is kept.
    fn write(&self, changes: Vec<(ContainerKey, Option<Vec<u8>>)>) -> BoxFuture<'_, bool>;
}

#[derive(Default)]
struct Changes {
    by_key: HashMap<ContainerKey, Option<Vec<u8>>>,
    /// Of the last change.
    number: u64,
}

#[derive(Default)]
pub(crate) struct Kept {
    changes: Mutex<Changes>,
    bell: Notify,
    written: watch::Sender<u64>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: &ContainerKey, record: Option<Vec<u8>>) -> u64 {
        let mut changes = self.lock();
        changes.by_key.insert(key.clone(), record);
        changes.number += 1;
        self.bell.notify_one();
        changes.number
    }

    pub(crate) fn set(&self, key: &ContainerKey, record: &ContainerRecord) {
        match envelope::encode(record) {
            Ok(bytes) => drop(self.put(key, Some(bytes))),
            Err(error) => tracing::error!(container = %key, %error, "it will not be restarted after a reboot"),
        }
    }

    pub(crate) fn drop(&self, key: &ContainerKey) {
        self.put(key, None);
    }

    /// Returns when it can't come back.
    pub(crate) async fn forget(&self, key: &ContainerKey) {
        let number = self.put(key, None);
        let mut written = self.written.subscribe();
        let waiting = written.wait_for(|n| *n >= number);
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            tracing::warn!(container = %key, "that it is deleted is not kept yet");
        }
    }

    /// What was changed meanwhile is newer.
    fn put_back(&self, changes: HashMap<ContainerKey, Option<Vec<u8>>>) {
        let mut newer = self.lock();
        for (key, record) in changes {
            newer.by_key.entry(key).or_insert(record);
        }
    }

    async fn serve(&self, keep: Arc<dyn Keep>) {
        loop {
            let (changes, number) = {
                let mut changes = self.lock();
                (std::mem::take(&mut changes.by_key), changes.number)
            };
            if !changes.is_empty() {
                let again = changes.clone();
                if !keep.write(changes.into_iter().collect()).await {
                    self.put_back(again);
                    // A full disk tells nobody when it has room again.
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            self.written.send_replace(number);
            self.bell.notified().await;
        }
    }
}

impl Supervisor {
    /// Keeps what has a restart policy from now on, and brings back what a reboot (or a death of the daemon in the middle of a
    /// restart) has taken. Before anybody is served: what is kept must not be missed for a moment.
    pub async fn keep_in(&self, keep: Arc<dyn Keep>) {
        let env = self.env().clone();
        let (there, gone): (Vec<_>, Vec<_>) = keep
            .load()
            .await
            .into_iter()
            .partition(|(key, _)| env.registry.get(key).is_some());
        for (key, bytes) in gone {
            bring_back(&env, key, &bytes);
        }
        let (serving, supervisor) = (env.clone(), self.clone());
        tokio::spawn(async move { serving.kept.serve(keep).await });
        tokio::spawn(async move {
            supervisor.adopted().await;
            for (key, bytes) in there {
                hold_against(&env, key, &bytes).await;
            }
        });
    }
}

/// One whose folder was found.
async fn hold_against(env: &Arc<Env>, key: ContainerKey, bytes: &[u8]) {
    let handle = env.registry.get(&key);
    let found = match &handle {
        Some(handle) => handle.snapshot().await,
        None => None,
    };
    match found {
        // One of which no record was left is no sign of anything.
        Some(found) if found.view.incarnation != Incarnation::from_bytes([0; 16]) => {
            if found.view.restart == RestartPolicy::No {
                env.kept.drop(&key);
            }
        }
        _ => bring_back(env, key, bytes),
    }
}

fn bring_back(env: &Arc<Env>, key: ContainerKey, bytes: &[u8]) {
    let record = match envelope::decode::<ContainerRecord>(bytes) {
        Ok(record) if record.key().as_ref() == Some(&key) => record,
        _ => {
            tracing::error!(container = %key, "what was kept of it can't be read; it is not restarted");
            return env.kept.drop(&key);
        }
    };
    let (record, status) = last_end(env, record);
    match lay_out(env, &key, record, &status) {
        Ok(_) => {
            tracing::info!(container = %key, end = %status.message, "brought back from what was kept");
            container::adopt(env, key, &History::default());
        }
        Err(error) => tracing::error!(container = %key, %error, "it can't be brought back"),
    }
}

/// The end that a container is left with of which nothing lives. A life that had not begun is taken back: it was nothing yet.
pub(crate) fn last_end(env: &Env, record: ContainerRecord) -> (ContainerRecord, ExitStatus) {
    let now = env.clock.now();
    match record.restart.last.clone() {
        Some(last) if last.incarnation == record.incarnation => (record, last.status()),
        Some(last) if record.state == StateRecord::Creating => {
            let restart = RestartRecord {
                count: record.restart.count.saturating_sub(1),
                decided_for: last.incarnation.clone(),
                due_at: now,
                ..record.restart
            };
            let before = ContainerRecord {
                incarnation: last.incarnation.clone(),
                started_at: last.at,
                undoing: false,
                restart,
                ..record
            };
            (before, last.status())
        }
        _ if record.boot_id == env.boot_id => {
            let why = "its end was not seen, as the daemon died while it restarted it";
            (record, ExitStatus::lost(now, why))
        }
        _ => (record, ExitStatus::reboot(now)),
    }
}

/// Makes the folder of a container that has ended and of which nothing else is left.
pub(crate) fn lay_out(
    env: &Env,
    key: &ContainerKey,
    record: ContainerRecord,
    status: &ExitStatus,
) -> Result<Arc<Folder>, berth_record::Error> {
    let folder = Folder::create(&env.layout, key)?;
    let exit = ExitRecord::new(&record.incarnation, "", 0, status);
    let record = ContainerRecord {
        boot_id: env.boot_id.clone(),
        state: StateRecord::Stopped,
        ..record
    };
    folder.write_exit(&exit)?;
    folder.write_container(&record)?;
    Ok(Arc::new(folder))
}

//! What must be there again after a reboot: the records of containers with a restart policy, kept by whoever has a database.
//!
//! Invariants: the newest record of a container wins, in whatever order tasks come by; a removal is kept before anything is removed,
//! so that nothing deleted comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::{ContainerKey, ExitStatus, RestartPolicy};
use berth_record::{ContainerRecord, ExitRecord, Folder, StateRecord, envelope};
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
    /// restart) has taken.
    pub fn keep_in(&self, keep: Arc<dyn Keep>) {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let kept = keep.load().await;
            let env = supervisor.env().clone();
            let serving = env.clone();
            tokio::spawn(async move { serving.kept.serve(keep).await });
            supervisor.adopted().await;
            for (key, bytes) in kept {
                bring_back(&env, key, &bytes).await;
            }
        });
    }
}

async fn bring_back(env: &Arc<Env>, key: ContainerKey, bytes: &[u8]) {
    if let Some(handle) = env.registry.get(&key)
        && let Some(snapshot) = handle.snapshot().await
    {
        if snapshot.view.restart == RestartPolicy::No {
            env.kept.drop(&key);
        }
        return;
    }
    let record = match envelope::decode::<ContainerRecord>(bytes) {
        Ok(record) if record.key().as_ref() == Some(&key) => record,
        _ => {
            tracing::error!(container = %key, "what was kept of it can't be read; it is not restarted");
            return env.kept.drop(&key);
        }
    };
    let status = match &record.restart.last {
        Some(last) if last.incarnation == record.incarnation => last.status(),
        _ if record.boot_id == env.boot_id => ExitStatus::lost(
            env.clock.now(),
            "its end was not seen, as the daemon died while it restarted it",
        ),
        _ => ExitStatus::reboot(env.clock.now()),
    };
    match lay_out(env, &key, record, &status) {
        Ok(_) => container::adopt(env, key, &History::default()),
        Err(error) => tracing::error!(container = %key, %error, "it can't be brought back"),
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

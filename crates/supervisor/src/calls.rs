//! Which calls are being served, since when, and at what stage: for SIGUSR1 and for the age of the oldest one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_core::ContainerKey;
use tokio::time::{Duration, Instant};

use crate::types::LiveCall;

#[derive(Clone, Default)]
pub(crate) struct Calls {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    last: u64,
    live: BTreeMap<u64, Entry>,
}

struct Entry {
    operation: &'static str,
    key: Option<ContainerKey>,
    stage: &'static str,
    began: Instant,
}

/// A call in the table; it leaves when this is dropped.
pub(crate) struct Call {
    calls: Calls,
    number: u64,
}

impl Calls {
    pub(crate) fn enter(&self, operation: &'static str, key: Option<&ContainerKey>) -> Call {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        let entry = Entry {
            operation,
            key: key.cloned(),
            stage: "begun",
            began: Instant::now(),
        };
        table.live.insert(number, entry);
        Call {
            calls: self.clone(),
            number,
        }
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<LiveCall> {
        let age = |e: &Entry| e.began.elapsed();
        let live = |e: &Entry| LiveCall {
            operation: e.operation,
            key: e.key.clone(),
            stage: e.stage,
            age: age(e),
        };
        self.lock().live.values().map(live).collect()
    }

    /// Of mutating calls: a Wait or a stream may be as old as its container.
    pub(crate) fn oldest(&self) -> Duration {
        let table = self.lock();
        let bounded = |e: &&Entry| !matches!(e.operation, "wait" | "attach" | "events" | "logs" | "stats");
        table
            .live
            .values()
            .find(bounded)
            .map(|e| e.began.elapsed())
            .unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // Every change is one insert or remove.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    pub(crate) fn stage(&self, stage: &'static str) {
        if let Some(entry) = self.calls.lock().live.get_mut(&self.number) {
            entry.stage = stage;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().live.remove(&self.number);
    }
}

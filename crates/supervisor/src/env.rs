//! What every container's task shares.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use berth_core::{ContainerKey, EventKind, ExecId, ExitReason, Incarnation};
use berth_record::Layout;
use tokio::sync::{OnceCell, watch};

use crate::Config;
use crate::calls::Calls;
use crate::container::Handle;
use crate::deps::{Clock, Disks, Shims};
use crate::events::Bus;
use crate::gate::Gate;
use crate::lane::Lanes;
use crate::logs::Folders;
use crate::metrics::Histogram;
use crate::turns::Turns;
use crate::types::{EventItem, EventQuery, Since};

pub(crate) struct Env {
    pub(crate) config: RwLock<Arc<Config>>,
    pub(crate) layout: Layout,
    pub(crate) boot_id: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shims: Arc<dyn Shims>,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) lanes: Lanes,
    pub(crate) log_folders: Folders,
    /// Whoever cleans up after a container, or makes one of the same name.
    pub(crate) cleaning: Turns,
    pub(crate) bus: Bus,
    pub(crate) gate: Gate,
    pub(crate) calls: Calls,
    pub(crate) registry: Registry,
    pub(crate) kept: crate::kept::Kept,
    pub(crate) counters: Mutex<Counters>,
    /// No new starts.
    pub(crate) closing: AtomicBool,
    /// Containers found at the start and not yet adopted or given up.
    pub(crate) adopting: watch::Sender<usize>,
}

/// Names of the histograms, in the order of a start.
pub(crate) const STAGES: [&str; 5] = ["queue", "record", "fork", "shim", "total"];

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) starts_ok: u64,
    pub(crate) starts_failed: u64,
    pub(crate) starts_cancelled: u64,
    pub(crate) stages: [Histogram; STAGES.len()],
    pub(crate) exits: [u64; EXITS.len()],
}

pub(crate) const EXITS: [ExitReason; 6] = [
    ExitReason::Exited,
    ExitReason::Signaled,
    ExitReason::Oom,
    ExitReason::StartFailed,
    ExitReason::Lost,
    ExitReason::Reboot,
];

/// What the journal held at the start: read once, if somebody must know, and held by those alone who may still ask.
pub(crate) type History = Arc<OnceCell<Told>>;

/// What subscribers could have heard already before this daemon began.
#[derive(Default)]
pub(crate) struct Told {
    seen: HashSet<(Incarnation, Option<ExecId>, EventKind)>,
    exits: HashMap<(Incarnation, Option<ExecId>), u64>,
    oom_kills: HashMap<Incarnation, u64>,
    /// What happened before this is no longer in the journal and counts as told.
    since: i64,
}

impl Told {
    pub(crate) fn has(&self, incarnation: Incarnation, exec: Option<&ExecId>, kind: EventKind) -> bool {
        self.seen.contains(&(incarnation, exec.cloned(), kind))
    }

    /// Whether an event of this time would still be in the journal.
    pub(crate) fn reaches(&self, at: i64) -> bool {
        at >= self.since
    }

    /// The number of an exit.
    pub(crate) fn exit(&self, incarnation: Incarnation, exec: Option<&ExecId>) -> Option<u64> {
        self.exits.get(&(incarnation, exec.cloned())).copied()
    }

    /// Kills by the OOM killer.
    pub(crate) fn oom_kills(&self, incarnation: Incarnation) -> u64 {
        self.oom_kills.get(&incarnation).copied().unwrap_or_default()
    }
}

impl Env {
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn observe(&self, stage: &str, duration: Duration) {
        if let Some(i) = STAGES.iter().position(|s| *s == stage) {
            self.counters().stages[i].observe(duration);
        }
    }

    /// One pass over the journal, for the few containers whose records leave it open what was told.
    pub(crate) async fn told<'a>(&self, history: &'a History) -> &'a Told {
        history
            .get_or_init(|| async {
                let mut told = Told::default();
                let query = EventQuery {
                    namespace: None,
                    since: Since::Oldest,
                    id: None,
                    history_only: true,
                    kinds: Vec::new(),
                };
                let Ok(mut events) = self.bus.subscribe(query) else {
                    return told;
                };
                while let Some(item) = events.next().await {
                    let EventItem::Event(event) = item else { continue };
                    let what = event.what;
                    if told.seen.is_empty() && event.cursor.number > 1 {
                        told.since = what.at;
                    }
                    if what.exit.is_some() && matches!(what.kind, EventKind::Exited | EventKind::ExecExited) {
                        told.exits
                            .insert((what.incarnation, what.exec_id.clone()), event.cursor.number);
                    }
                    if what.kind == EventKind::Oom {
                        let kills = told.oom_kills.entry(what.incarnation).or_default();
                        *kills = what.oom_kills.max(*kills);
                    }
                    told.seen.insert((what.incarnation, what.exec_id, what.kind));
                }
                told
            })
            .await
    }
}

/// The live containers by name. Complete from the moment that calls are served.
#[derive(Default)]
pub(crate) struct Registry {
    live: Mutex<HashMap<ContainerKey, Handle>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerKey, Handle>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &ContainerKey) -> Option<Handle> {
        self.lock().get(key).cloned()
    }

    /// Takes the id; false if it is in use.
    pub(crate) fn reserve(&self, key: &ContainerKey, handle: Handle) -> bool {
        match self.lock().entry(key.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(handle);
                true
            }
        }
    }

    /// A container's next task takes the place of one that ended by a defect: in one step, or its id would be free for a moment.
    pub(crate) fn replace(&self, key: &ContainerKey, handle: Handle) {
        self.lock().insert(key.clone(), handle);
    }

    /// Only its own task takes a container out.
    pub(crate) fn remove(&self, key: &ContainerKey) {
        self.lock().remove(key);
    }

    pub(crate) fn all(&self) -> Vec<(ContainerKey, Handle)> {
        let mut all: Vec<_> = self.lock().iter().map(|(k, h)| (k.clone(), h.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

//! From a configuration to a running supervisor, and to its end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use berth_core::ErrorCode;
use berth_record::{Journal, Layout, Limits, Lock};
use tokio::sync::watch;

use crate::calls::Calls;
use crate::deps::{Clock, Disks, Shims, SystemClock, SystemDisks};
use crate::env::{Counters, Env, History, Registry};
use crate::events::Bus;
use crate::gate::Gate;
use crate::lane::Lanes;
use crate::logs::Folders;
use crate::shim::Launcher;
use crate::store::Tomb;
use crate::supervisor::{Inner, Methods};
use crate::{Config, Error, Supervisor, container};

/// What a test puts fakes in for.
pub struct Deps {
    pub clock: Arc<dyn Clock>,
    pub shims: Arc<dyn Shims>,
    pub disks: Arc<dyn Disks>,
    pub bus: Bus,
    /// Names this boot.
    pub boot_id: String,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Internal, "open", what, error.to_string())
}

impl Supervisor {
    /// Locks the state folder, starts the shims' template, indexes what is in the folder and begins to adopt it in the
    /// background. After it returned, calls may be served: one that names a container not yet adopted waits for it.
    pub async fn open(config: Config) -> Result<Self, Error> {
        // For the whole life of the process: `FAILPOINTS` is read once.
        #[cfg(feature = "failpoints")]
        std::mem::forget(fail::FailScenario::setup());
        let (layout, lock) = prepare(&config)?;
        let (path, template) = (config.shim.path.clone(), config.shim.template);
        let launcher = Launcher::new(&path, template).map_err(|e| {
            let message = format!("{e}; the berth-shim binary belongs beside berthd, or name it with --shim");
            Error::new(ErrorCode::Internal, "open", path.display(), message)
        })?;
        let limits = Limits {
            events: config.events.keep,
            bytes: config.events.keep_bytes,
        };
        let events = layout.events();
        let (journal, opened) = Journal::open(&events, limits).map_err(|e| failed("the event journal", e))?;
        if opened.lost {
            tracing::error!(folder = %events.display(), "the event journal was damaged; a new epoch of events begins");
        }
        let deps = Deps {
            clock: Arc::new(SystemClock::new()),
            shims: Arc::new(launcher),
            disks: Arc::new(SystemDisks),
            bus: Bus::new(journal),
            boot_id: boot_id().map_err(|e| failed("the boot id", e))?,
        };
        Self::begin(config, deps, layout, Some(lock))
    }

    /// With what a test wants to see or to control.
    pub async fn open_with(config: Config, deps: Deps) -> Result<Self, Error> {
        let (layout, lock) = prepare(&config)?;
        Self::begin(config, deps, layout, Some(lock))
    }

    fn begin(config: Config, deps: Deps, layout: Layout, lock: Option<Lock>) -> Result<Self, Error> {
        let gate = Gate::new(config.start.concurrency, config.start.queue_limit);
        let lanes = Lanes::default();
        let log_folders = Folders::new(layout.clone(), lanes.logs.clone(), deps.disks.clone());
        let env = Arc::new(Env {
            config: RwLock::new(Arc::new(config)),
            layout,
            boot_id: deps.boot_id,
            clock: deps.clock,
            shims: deps.shims,
            disks: deps.disks,
            lanes,
            log_folders,
            cleaning: crate::turns::Turns::default(),
            bus: deps.bus,
            gate,
            calls: Calls::default(),
            registry: Registry::default(),
            kept: crate::kept::Kept::default(),
            counters: Mutex::new(Counters::default()),
            closing: false.into(),
            // One for this function, so that it is not zero before the index is complete.
            adopting: watch::Sender::new(1),
        });
        let opened_at = env.bus.head();
        let history = History::default();
        let index = berth_record::scan(&env.layout).map_err(|e| failed("the state folder", e))?;
        for key in index.keys {
            container::adopt(&env, key, &history);
        }
        for name in index.strange {
            match Tomb::parse(&name) {
                Some(tomb) => {
                    container::remove::expect(&env, &tomb);
                    drop(tokio::spawn(container::remove::resume(
                        env.clone(),
                        tomb,
                        history.clone(),
                    )));
                }
                None => tracing::warn!(
                    name,
                    "something in the containers' folder is not ours; it is left alone"
                ),
            }
        }
        env.adopting.send_modify(|n| *n -= 1);
        let watcher = crate::logs::Watcher::default();
        Ok(Self {
            inner: Arc::new(Inner {
                env,
                methods: Methods::new(),
                watcher,
                opened_at,
                lock,
            }),
        })
    }

    /// Returns when every container found at the start was adopted or given up.
    pub async fn adopted(&self) {
        // The sender lives in `env`.
        let _ = self.env().adopting.subscribe().wait_for(|n| *n == 0).await;
    }

    /// What a reload of the configuration may change: start concurrency and timeouts, log defaults, runtimes.
    pub fn reconfigure(&self, config: Config) {
        let env = self.env();
        let mut current = env.config.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        // What was built at the start stays as it was.
        let (state, root) = (current.state.clone(), current.root.clone());
        let shim = crate::ShimConfig {
            path: current.shim.path.clone(),
            template: current.shim.template,
            ..config.shim
        };
        env.gate.set_permits(config.start.concurrency);
        *current = Arc::new(Config {
            state,
            root,
            shim,
            ..config
        });
    }

    /// Refuses new starts, lets those at work finish for at most `timeout`, and ends. Containers stay.
    pub async fn shutdown(&self, timeout: Duration) {
        let env = self.env();
        env.closing.store(true, Ordering::Relaxed);
        // What waits is turned away as permits come.
        if tokio::time::timeout(timeout, env.gate.idle()).await.is_err() {
            let (waiting, at_work) = env.gate.load();
            tracing::warn!(
                waiting,
                at_work,
                "starts were not finished in time; the next daemon undoes them"
            );
        }
    }
}

/// Tests pretend that the machine was booted.
fn boot_id() -> std::io::Result<String> {
    match std::env::var("BERTH_BOOT_ID") {
        Ok(id) if cfg!(feature = "failpoints") => Ok(id),
        _ => berth_sys::process::boot_id(),
    }
}

fn prepare(config: &Config) -> Result<(Layout, Lock), Error> {
    let layout = Layout::new(&config.state, &config.root);
    layout.prepare().map_err(|e| failed("the state and root folders", e))?;
    let lock = layout.lock().map_err(|e| match e {
        berth_record::Error::Locked { path } => {
            let message = "another berthd has this state folder; stop it, or give this one its own with --state";
            Error::new(ErrorCode::AlreadyExists, "open", path.display(), message)
        }
        e => failed("the state folder", e),
    })?;
    Ok((layout, lock))
}

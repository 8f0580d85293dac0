//! The handle that everything above the supervisor holds: one method a call of the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{ContainerKey, ErrorCode, ExecId, ExitStatus, Namespace, RequestId, Signal, TerminalSize};

use crate::types::*;
use crate::{Config, Error, Metrics};

/// Cheap to clone. Every method may be called from any task; dropping its future gives the call up: a start that is still
/// queued is then dropped, everything that has begun completes.
#[derive(Clone)]
pub struct Supervisor {
    #[expect(dead_code)]
    inner: Arc<()>,
}

fn later<T>(operation: &'static str) -> Result<T, Error> {
    Err(Error::new(ErrorCode::Internal, operation, "", "not built yet"))
}

impl Supervisor {
    /// Locks the state folder, indexes what is in it and begins to adopt it in the background. After it returned, calls may
    /// be served: one that names a container not yet adopted waits for it.
    pub async fn open(_config: Config) -> Result<Self, Error> {
        later("open")
    }

    pub async fn run(&self, _spec: RunSpec, _request: Option<RequestId>) -> Result<Started, Error> {
        later("run")
    }

    pub async fn create(&self, _spec: RunSpec, _request: Option<RequestId>) -> Result<Started, Error> {
        later("create")
    }

    /// Answers the pid.
    pub async fn start(&self, _key: ContainerKey, _request: Option<RequestId>) -> Result<u32, Error> {
        later("start")
    }

    pub async fn exec(
        &self,
        _key: ContainerKey,
        _spec: ExecSpec,
        _request: Option<RequestId>,
    ) -> Result<ExecStarted, Error> {
        later("exec")
    }

    pub async fn signal(
        &self,
        _key: ContainerKey,
        _exec: Option<ExecId>,
        _signal: Signal,
        _all: bool,
        _request: Option<RequestId>,
    ) -> Result<(), Error> {
        later("signal")
    }

    pub async fn stop(
        &self,
        _key: ContainerKey,
        _spec: StopSpec,
        _request: Option<RequestId>,
    ) -> Result<ExitStatus, Error> {
        later("stop")
    }

    pub async fn wait(&self, _key: ContainerKey, _exec: Option<ExecId>) -> Result<ExitStatus, Error> {
        later("wait")
    }

    pub async fn delete(
        &self,
        _key: ContainerKey,
        _exec: Option<ExecId>,
        _force: bool,
        _request: Option<RequestId>,
    ) -> Result<Deleted, Error> {
        later("delete")
    }

    pub async fn pause(&self, _key: ContainerKey, _request: Option<RequestId>) -> Result<(), Error> {
        later("pause")
    }

    pub async fn resume(&self, _key: ContainerKey, _request: Option<RequestId>) -> Result<(), Error> {
        later("resume")
    }

    pub async fn update(&self, _key: ContainerKey, _update: Update, _request: Option<RequestId>) -> Result<(), Error> {
        later("update")
    }

    pub async fn get(&self, _key: ContainerKey, _processes: bool) -> Result<ContainerView, Error> {
        later("get")
    }

    /// By namespace, then id. `None` = every namespace.
    pub async fn list(
        &self,
        _namespace: Option<Namespace>,
        _labels: BTreeMap<String, String>,
        _processes: bool,
    ) -> Result<Vec<ContainerView>, Error> {
        later("list")
    }

    pub async fn resize_terminal(
        &self,
        _key: ContainerKey,
        _exec: Option<ExecId>,
        _size: TerminalSize,
    ) -> Result<(), Error> {
        later("resize-terminal")
    }

    pub async fn close_stdin(
        &self,
        _key: ContainerKey,
        _exec: Option<ExecId>,
        _request: Option<RequestId>,
    ) -> Result<(), Error> {
        later("close-stdin")
    }

    /// `offset`: go on from there; `None` = only what comes from now on.
    pub async fn attach(
        &self,
        _key: ContainerKey,
        _exec: Option<ExecId>,
        _offset: Option<u64>,
    ) -> Result<Attachment, Error> {
        later("attach")
    }

    /// What `events` reads.
    pub(crate) fn bus(&self) -> Result<&crate::events::Bus, Error> {
        later("events")
    }

    /// The one watcher of all logs that are followed: `inner` keeps it.
    pub(crate) fn log_watcher(&self) -> crate::logs::Watcher {
        crate::logs::Watcher::default()
    }

    /// The configured and found runtimes, the default one first.
    pub async fn runtimes(&self) -> Vec<RuntimeInfo> {
        Vec::new()
    }

    /// Returns when every container found at the start was adopted or given up.
    pub async fn adopted(&self) {}

    /// A real round trip through the supervisor's tasks, for a watchdog; an error if one did not answer in time.
    pub async fn probe(&self, _timeout: Duration) -> Result<(), Error> {
        later("probe")
    }

    /// Live calls, the oldest first.
    pub fn calls(&self) -> Vec<LiveCall> {
        Vec::new()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    /// What a reload of the configuration may change: start concurrency, timeouts, log defaults, runtimes.
    pub fn reconfigure(&self, _config: Config) {}

    /// Refuses new starts, lets those at work finish for at most `timeout`, and ends. Containers stay.
    pub async fn shutdown(&self, _timeout: Duration) {}
}

// `events(EventQuery)`, `logs(LogQuery)` and `stats(StatsQuery)` are methods of `Supervisor` too; each stands in its module
// (`impl Supervisor` there). They use `get`/`list`/`wait` above and the crate-private `bus()`.

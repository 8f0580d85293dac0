//! The handle that everything above the supervisor holds: one method a call of the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{
    ContainerKey, Cursor, ErrorCode, ExecId, ExitStatus, Incarnation, Namespace, RequestId, RestartPolicy, Signal,
    TerminalSize,
};
use berth_record::{Folder, Lock};
use berth_wire::shim as wire;

use crate::container::{Handle, Wish};
use crate::env::{EXITS, Env, STAGES};
use crate::events::Bus;
use crate::logs::Watcher;
use crate::reply::{Answer, Begun, Reply, Requests};
use crate::types::*;
use crate::{Config, Error, Metrics, resources, runtimes, shim};

/// Cheap to clone. Every method may be called from any task; dropping its future gives the call up: a start that is still
/// queued is then dropped, everything that has begun completes.
#[derive(Clone)]
pub struct Supervisor {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) env: Arc<Env>,
    pub(crate) methods: Methods,
    pub(crate) watcher: Watcher,
    pub(crate) opened_at: Cursor,
    /// Held as long as this supervisor lives.
    #[expect(dead_code, reason = "its drop is what matters")]
    pub(crate) lock: Option<Lock>,
}

/// Request ids by method.
pub(crate) struct Methods {
    pub(crate) run: Requests<Started>,
    pub(crate) create: Requests<Started>,
    start: Requests<u32>,
    exec: Requests<ExecStarted>,
    add_exec: Requests<()>,
    start_exec: Requests<ExecStarted>,
    signal: Requests<()>,
    stop: Requests<ExitStatus>,
    delete: Requests<Deleted>,
    pause: Requests<()>,
    resume: Requests<()>,
    update: Requests<()>,
    policy: Requests<()>,
    resize: Requests<()>,
    close_stdin: Requests<()>,
    attach: Requests<Arc<Folder>>,
    ask: Requests<wire::StateResponse>,
    probe: Requests<()>,
}

impl Methods {
    pub(crate) fn new() -> Self {
        Self {
            run: Requests::new("run"),
            create: Requests::new("create"),
            start: Requests::new("start"),
            exec: Requests::new("exec"),
            add_exec: Requests::new("exec"),
            start_exec: Requests::new("start"),
            signal: Requests::new("signal"),
            stop: Requests::new("stop"),
            delete: Requests::new("delete"),
            pause: Requests::new("pause"),
            resume: Requests::new("resume"),
            update: Requests::new("update"),
            policy: Requests::new("update"),
            resize: Requests::new("resize-terminal"),
            close_stdin: Requests::new("close-stdin"),
            attach: Requests::new("attach"),
            ask: Requests::new("get"),
            probe: Requests::new("probe"),
        }
    }
}

fn text(request: &Option<RequestId>) -> String {
    request.as_ref().map(ToString::to_string).unwrap_or_default()
}

impl Supervisor {
    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.inner.env
    }

    /// What `events` reads.
    pub(crate) fn bus(&self) -> Result<&Bus, Error> {
        Ok(&self.env().bus)
    }

    /// The one watcher of all logs that are followed.
    pub(crate) fn log_watcher(&self) -> &Watcher {
        &self.inner.watcher
    }

    fn methods(&self) -> &Methods {
        &self.inner.methods
    }

    fn unknown(operation: &'static str, key: &ContainerKey) -> Error {
        let message = format!("no such container in namespace {}", key.namespace);
        Error::new(ErrorCode::NotFound, operation, key, message)
    }

    fn find(&self, operation: &'static str, key: &ContainerKey) -> Result<Handle, Error> {
        self.env()
            .registry
            .get(key)
            .ok_or_else(|| Self::unknown(operation, key))
    }

    /// Hands a wish to the container and waits for its answer.
    async fn ask<T: Clone + Send + Sync + 'static>(
        &self,
        requests: &Requests<T>,
        key: &ContainerKey,
        request: Option<RequestId>,
        wish: impl FnOnce(Reply<T>) -> Wish,
    ) -> Result<T, Error> {
        let operation = requests.operation();
        let call = Arc::new(self.env().calls.enter(operation, Some(key)));
        let (reply, answer): (_, Answer<T>) = loop {
            match requests.begin(key, request.clone())? {
                Begun::New(reply, answer) => break (reply.with_call(call), answer),
                Begun::Known(answer) => {
                    if let Some(answer) = answer.shared().await {
                        return answer;
                    }
                }
            }
        };
        let unknown = Self::unknown(operation, key);
        match self.env().registry.get(key) {
            Some(handle) => {
                if let Err(wish) = handle.wish(wish(reply)).await {
                    wish.fail(unknown);
                }
            }
            None => wish(reply).fail(unknown),
        }
        answer.get().await
    }

    /// Starts a created container; answers its pid.
    pub async fn start(&self, key: ContainerKey, request: Option<RequestId>) -> Result<u32, Error> {
        if let (Some(request), Some(handle)) = (&request, self.env().registry.get(&key))
            && let Some(snapshot) = handle.snapshot().await
            && snapshot.start_request_id == request.as_str()
        {
            // Started by this request, before a restart of the daemon.
            return Ok(snapshot.pid);
        }
        if self.env().is_closing() {
            return Err(Error::new(
                ErrorCode::ShuttingDown,
                "start",
                &key,
                "the daemon is shutting down",
            ));
        }
        let request_id = text(&request);
        self.ask(&self.methods().start, &key, request, |reply| Wish::Start {
            request_id,
            reply,
        })
        .await
    }

    pub async fn exec(
        &self,
        key: ContainerKey,
        spec: ExecSpec,
        request: Option<RequestId>,
    ) -> Result<ExecStarted, Error> {
        if let (Some(request), Some(handle)) = (&request, self.env().registry.get(&key))
            && let Some(snapshot) = handle.snapshot().await
            && let Some((_, started)) = snapshot.exec_requests.iter().find(|(r, _)| r == request.as_str())
        {
            return Ok(started.clone());
        }
        let (request_id, spec) = (text(&request), Box::new(spec));
        self.ask(&self.methods().exec, &key, request, |reply| Wish::Exec {
            spec,
            request_id,
            reply,
        })
        .await
    }

    /// Takes the id of an exec that `start_exec` starts; until then it is in the container's view without a pid. Not kept across a
    /// restart of the daemon.
    pub async fn add_exec(&self, key: ContainerKey, spec: ExecSpec) -> Result<(), Error> {
        let spec = Box::new(spec);
        self.ask(&self.methods().add_exec, &key, None, |reply| Wish::AddExec {
            spec,
            reply,
        })
        .await
    }

    /// Starts an exec that was added; answers its pid.
    pub async fn start_exec(&self, key: ContainerKey, exec: ExecId) -> Result<u32, Error> {
        let wish = |reply| Wish::StartExec { exec, reply };
        Ok(self.ask(&self.methods().start_exec, &key, None, wish).await?.pid)
    }

    /// Sends a signal to the init, to one exec, or with `all` to every process of the container.
    pub async fn signal(
        &self,
        key: ContainerKey,
        exec: Option<ExecId>,
        signal: Signal,
        all: bool,
        request: Option<RequestId>,
    ) -> Result<(), Error> {
        let request_id = text(&request);
        let wish = |reply| Wish::Signal {
            exec,
            signal,
            all,
            request_id,
            reply,
        };
        self.ask(&self.methods().signal, &key, request, wish).await
    }

    pub async fn stop(
        &self,
        key: ContainerKey,
        spec: StopSpec,
        request: Option<RequestId>,
    ) -> Result<ExitStatus, Error> {
        self.ask(&self.methods().stop, &key, request, |reply| Wish::Stop { spec, reply })
            .await
    }

    /// Waits until the init or the exec has ended: before its start, after its exit, and for any number of callers.
    pub async fn wait(&self, key: ContainerKey, exec: Option<ExecId>) -> Result<ExitStatus, Error> {
        let _call = self.env().calls.enter("wait", Some(&key));
        let handle = self.find("wait", &key)?;
        match (handle.ended(exec.as_ref()).await, exec) {
            (Some(exit), _) => Ok(exit),
            (None, None) => Err(Self::unknown("wait", &key)),
            (None, Some(exec)) => Err(Error::new(
                ErrorCode::NotFound,
                "wait",
                &key,
                format!("no exec {exec} in this container"),
            )),
        }
    }

    /// Removes an ended container, or one exec, and everything that belongs to it. What is gone already is a success.
    pub async fn delete(
        &self,
        key: ContainerKey,
        exec: Option<ExecId>,
        force: bool,
        request: Option<RequestId>,
    ) -> Result<Deleted, Error> {
        let wish = |reply| match exec {
            None => Wish::Delete { force, reply },
            Some(exec) => Wish::DeleteExec { exec, force, reply },
        };
        self.ask(&self.methods().delete, &key, request, wish).await
    }

    pub async fn pause(&self, key: ContainerKey, request: Option<RequestId>) -> Result<(), Error> {
        self.ask(&self.methods().pause, &key, request, |reply| Wish::Pause { reply })
            .await
    }

    pub async fn resume(&self, key: ContainerKey, request: Option<RequestId>) -> Result<(), Error> {
        self.ask(&self.methods().resume, &key, request, |reply| Wish::Resume { reply })
            .await
    }

    pub async fn update(&self, key: ContainerKey, update: Update, request: Option<RequestId>) -> Result<(), Error> {
        let mut wanted = None;
        let resources = match update {
            Update::Json(json) => json,
            Update::Fields(mut fields) => {
                wanted = fields.memory_limit.and_then(|limit| u64::try_from(limit).ok());
                // No limit of memory while one of memory and swap holds is refused by the kernel, and nobody means it.
                if fields.memory_limit == Some(-1)
                    && fields.memory_swap.is_none()
                    && self
                        .limits(&key)
                        .await
                        .is_some_and(|limits| limits.memory_swap.is_some())
                {
                    fields.memory_swap = Some(-1);
                }
                resources::to_json(&fields)
                    .map_err(|message| Error::new(ErrorCode::InvalidArgument, "update", &key, message))?
            }
        };
        let asked = self.ask(&self.methods().update, &key, request, |reply| Wish::Update {
            resources,
            reply,
        });
        match (asked.await, wanted) {
            // The runtime said no.
            (Err(error), Some(limit)) if matches!(error.code(), ErrorCode::Runtime | ErrorCode::Resources) => {
                Err(match self.memory_in_use(&key).await {
                    Some(used) if used > limit => error.explained(&format!(
                        "it uses {used} bytes of memory now, more than the limit of {limit}"
                    )),
                    _ => error,
                })
            }
            (done, _) => done,
        }
    }

    /// Another restart policy, from the next end on.
    pub async fn set_restart(
        &self,
        key: ContainerKey,
        policy: RestartPolicy,
        request: Option<RequestId>,
    ) -> Result<(), Error> {
        self.ask(&self.methods().policy, &key, request, |reply| Wish::Policy {
            policy,
            reply,
        })
        .await
    }

    /// Returns when `look` shows an end that an event told: the event comes first by a moment.
    pub async fn shows_end(&self, key: &ContainerKey, incarnation: Incarnation, exec: Option<&ExecId>) {
        if let Ok(handle) = self.find("get", key) {
            handle.shows_end(incarnation, exec).await;
        }
    }

    /// The container as its records have it, without asking its shim.
    pub async fn look(&self, key: &ContainerKey) -> Result<ContainerView, Error> {
        let snapshot = self.find("get", key)?.snapshot().await;
        Ok(snapshot.ok_or_else(|| Self::unknown("get", key))?.view.clone())
    }

    pub async fn get(&self, key: ContainerKey, processes: bool) -> Result<ContainerView, Error> {
        let handle = self.find("get", &key)?;
        let snapshot = handle.snapshot().await.ok_or_else(|| Self::unknown("get", &key))?;
        let mut view = snapshot.view.clone();
        // What only the shim knows; without it the rest is an answer too.
        if view.shim_pid != 0
            && let Ok(state) = self
                .ask(&self.methods().ask, &key, None, |reply| Wish::Ask { reply })
                .await
        {
            view.log_dropped_bytes = state.log_dropped_bytes;
            view.oom_kills = view.oom_kills.max(state.oom_kills);
        }
        if processes {
            self.fill_processes(std::slice::from_mut(&mut view)).await;
            self.fill_limits(&mut view).await;
        }
        Ok(view)
    }

    /// By namespace, then id. `None` = every namespace. Those whose adoption hangs are listed as their records have them.
    pub async fn list(
        &self,
        namespace: Option<Namespace>,
        labels: BTreeMap<String, String>,
        processes: bool,
    ) -> Result<Vec<ContainerView>, Error> {
        let mut views = Vec::new();
        let deadline = tokio::time::Instant::now() + self.env().config().shim.adopt_timeout;
        for (key, handle) in self.env().registry.all() {
            if namespace.as_ref().is_some_and(|n| *n != key.namespace) {
                continue;
            }
            let Some(snapshot) = handle.snapshot_by(deadline).await else {
                continue;
            };
            if labels.iter().all(|(k, v)| snapshot.view.labels.get(k) == Some(v)) {
                views.push(snapshot.view.clone());
            }
        }
        if processes {
            self.fill_processes(&mut views).await;
        }
        Ok(views)
    }

    pub async fn resize_terminal(
        &self,
        key: ContainerKey,
        exec: Option<ExecId>,
        size: TerminalSize,
    ) -> Result<(), Error> {
        self.ask(&self.methods().resize, &key, None, |reply| Wish::Resize {
            exec,
            size,
            reply,
        })
        .await
    }

    pub async fn close_stdin(
        &self,
        key: ContainerKey,
        exec: Option<ExecId>,
        request: Option<RequestId>,
    ) -> Result<(), Error> {
        self.ask(&self.methods().close_stdin, &key, request, |reply| Wish::CloseStdin {
            exec,
            reply,
        })
        .await
    }

    /// `offset`: go on from there; `None` = only what comes from now on.
    pub async fn attach(
        &self,
        key: ContainerKey,
        exec: Option<ExecId>,
        offset: Option<u64>,
    ) -> Result<Attachment, Error> {
        let request = wire::AttachRequest {
            exec_id: exec.as_ref().map(ToString::to_string).unwrap_or_default(),
            offset,
        };
        let folder = self
            .ask(&self.methods().attach, &key, None, |reply| Wish::Attach { exec, reply })
            .await?;
        let env = self.env();
        let deadline = env.config().shim.call_timeout;
        let generation = env.clock.generation();
        shim::attach::open(
            env.shims.as_ref(),
            &folder,
            request,
            generation,
            deadline,
            key.to_string(),
        )
        .await
    }

    /// The configured and found runtimes, the default one first.
    pub async fn runtimes(&self) -> Vec<RuntimeInfo> {
        let config = self.env().config();
        let asking = self.env().lanes.runtimes.run(move || runtimes::list(&config.runtime));
        asking.await.unwrap_or_default()
    }

    /// A real round trip through the supervisor's tasks, for a watchdog; an error if one did not answer in time.
    pub async fn probe(&self, timeout: Duration) -> Result<(), Error> {
        let trip = async {
            // The runtime's threads, the locks that every call takes, and one container's task.
            let env = self.env().clone();
            let first = tokio::spawn(async move {
                let _ = (env.gate.load(), env.calls.oldest(), env.bus.head());
                env.registry
                    .all()
                    .into_iter()
                    .find(|(_, handle)| handle.now().is_some())
            });
            if let Ok(Some((key, _))) = first.await {
                match self
                    .ask(&self.methods().probe, &key, None, |reply| Wish::Probe { reply })
                    .await
                {
                    Err(e) if e.code() != ErrorCode::NotFound => return Err(e),
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(timeout, trip).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} ms", timeout.as_millis());
            Err(Error::new(ErrorCode::Timeout, "probe", "supervisor", message))
        })
    }

    /// Cursor of the newest event.
    pub fn event_head(&self) -> Cursor {
        self.env().bus.head()
    }

    /// Cursor of the newest event before this daemon told any.
    pub fn opened_at(&self) -> Cursor {
        self.inner.opened_at
    }

    /// Live calls, the oldest first.
    pub fn calls(&self) -> Vec<LiveCall> {
        self.env().calls.list()
    }

    pub fn metrics(&self) -> Metrics {
        let env = self.env();
        let (waiting, at_work) = env.gate.load();
        let counters = env.counters();
        Metrics {
            starts_ok: counters.starts_ok,
            starts_failed: counters.starts_failed,
            starts_cancelled: counters.starts_cancelled,
            stages: STAGES.into_iter().zip(counters.stages).collect(),
            queue_length: waiting as u64,
            starts_at_work: at_work as u64,
            exits: EXITS.into_iter().map(|r| r.name()).zip(counters.exits).collect(),
            containers: env.registry.len() as u64,
            oldest_call: env.calls.oldest(),
            event_lag: env.bus.lag(),
            events_total: env.bus.head().number,
        }
    }

    /// Threads that are at work on disks, or hang on one.
    pub fn busy_threads(&self) -> usize {
        self.env().lanes.busy()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.env().config()
    }
}

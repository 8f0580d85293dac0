//! Making a container: record, shim, one frame; and undoing what was made if any of it fails.

use std::sync::Arc;

use berth_core::state::{Input, State};
use berth_core::{ContainerKey, ErrorCode, ExitStatus, Stdio};
use berth_record::{ContainerRecord, Folder};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::again;
use super::exits::Ending;
use super::remove::{Removal, note_undoing, remove, remove_log};
use super::task::Task;
use super::{Fact, Link, Starter};
use crate::env::Env;
use crate::lane::blocking;
use crate::stage::stage;
use crate::types::{MadeBundle, Stage, Started};
use crate::{Error, kept, shim, store};

/// A container that was made.
pub(crate) struct Launched {
    link: Link,
    folder: Arc<Folder>,
    response: wire::CreateResponse,
    /// When it was started, by the clock on the wall.
    at: i64,
    stages: Vec<Stage>,
}

/// What exists so far, for the undoing.
#[derive(Default)]
struct Made {
    folder: Option<Arc<Folder>>,
    log: bool,
    link: Option<Link>,
    /// The runtime may have been called.
    asked: bool,
}

struct Launch {
    env: Arc<Env>,
    key: ContainerKey,
    record: ContainerRecord,
    bundle: Option<Box<MadeBundle>>,
    operation: &'static str,
    /// It has lived before.
    again: bool,
    facts: mpsc::Sender<Box<Fact>>,
}

impl Task {
    pub(super) fn launch(&mut self) {
        let before = self.begin_again();
        let launch = Launch {
            env: self.env.clone(),
            key: self.key.clone(),
            record: self.record.clone(),
            bundle: self.bundle.take(),
            operation: self.start_operation(),
            again: before.is_some(),
            facts: self.facts_in.clone(),
        };
        let (abort, aborted) = oneshot::channel();
        self.abort = Some(abort);
        let (deadline, permit) = (self.start_timeout(), self.permit.clone());
        self.beside(async move {
            if let Some(before) = before {
                again::clear(&launch.env, before).await;
            }
            let mut made = Made::default();
            let mut deleted = false;
            let error = tokio::select! {
                biased;
                result = launch.go(&mut made) => match result {
                    Ok(launched) => return Fact::Launched(Ok(launched)),
                    Err(error) => error,
                },
                // The deadline of the launch.
                () = tokio::time::sleep(deadline) => launch.error(
                    ErrorCode::Timeout,
                    format!("not started within {} ms; it was undone", deadline.as_millis()),
                ),
                Ok(()) = aborted => {
                    deleted = true;
                    launch.error(ErrorCode::Cancelled, "the container was deleted while it was started")
                }
            };
            // Undoing may take long, and holds nobody else up.
            if let Some(permit) = permit {
                permit.give_back();
            }
            if launch.again {
                return launch.stay_ended(made, error, deleted).await;
            }
            launch.undo(made).await;
            Fact::Launched(Err(error))
        });
    }

    pub(super) fn launched(&mut self, result: Result<Launched, Error>) {
        stage!("create.answered");
        self.permit = None;
        self.abort = None;
        let operation = self.start_operation();
        let starter = self.starter.take();
        let launched = match result {
            Ok(launched) => launched,
            Err(error) => {
                self.env.counters().starts_failed += 1;
                self.failure = Some(error.clone());
                self.input(Input::CreateFailed, None);
                if let Some(starter) = starter {
                    starter.fail(error);
                }
                return self.release_held();
            }
        };
        let Launched {
            link,
            folder,
            response,
            at,
            stages,
        } = launched;
        for stage in stages {
            self.env.observe(&stage.name, stage.duration);
            self.add_stage(&stage.name, stage.duration);
        }
        self.folder = Some(folder);
        self.pid = response.pid;
        self.cgroup = response.cgroup;
        let lost = link.client.is_gone().then_some(link.number);
        self.link = Some(link);
        if self.record.run {
            self.record.started_at = at;
            self.count_start();
            self.input(Input::Started, None);
        } else {
            self.input(Input::Created, None);
        }
        match starter {
            Some(starter) if self.state == State::Deleting => {
                let message = "the container was deleted while it was started";
                starter.fail(Error::new(ErrorCode::Cancelled, operation, &self.key, message));
            }
            Some(Starter::Make(reply)) => reply.send(Ok(Started {
                pid: self.pid,
                incarnation: self.incarnation,
            })),
            Some(Starter::Start(_)) | None => {}
        }
        if let Some(number) = lost {
            self.shim_gone(number);
        }
        self.release_held();
    }
}

impl Task {
    pub(super) fn not_restarted(&mut self, error: Error, status: ExitStatus, folder: Arc<Folder>) {
        (self.permit, self.abort) = (None, None);
        self.env.counters().starts_failed += 1;
        tracing::warn!(container = %self.key, %error, "it could not be restarted");
        self.failure = Some(error);
        self.folder = Some(folder);
        self.ending = Some(Ending { status, ack: None });
        self.input(Input::RestartFailed, None);
        self.release_held();
    }
}

impl Launch {
    fn error(&self, code: ErrorCode, message: impl Into<String>) -> Error {
        Error::new(code, self.operation, &self.key, message)
    }

    fn io(&self, what: &str, error: impl Into<std::io::Error>) -> Error {
        let error = error.into();
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::OutOfMemory => {
                ErrorCode::Resources
            }
            // EMFILE, ENFILE, EAGAIN: tables of the kernel's that are full.
            _ if matches!(error.raw_os_error(), Some(24 | 23 | 11)) => ErrorCode::Resources,
            _ => ErrorCode::Internal,
        };
        self.error(code, format!("{what}: {error}"))
    }

    async fn go(&self, made: &mut Made) -> Result<Launched, Error> {
        let mut stages = Vec::with_capacity(8);
        let mut last = Instant::now();
        let mut lap = |name: &str| {
            let now = Instant::now();
            stages.push(Stage {
                name: name.into(),
                duration: now - std::mem::replace(&mut last, now),
            });
        };

        // Who cleans up after an earlier one of this name kills what is in its cgroup.
        drop(self.env.cleaning.take(&self.key).await);
        let folder = Folder::create(&self.env.layout, &self.key).map_err(|e| self.io("make its folder", e))?;
        let folder = made.folder.insert(Arc::new(folder)).clone();
        folder
            .write_container(&self.record)
            .map_err(|e| self.io("write its record", e))?;
        stage!("create.recorded");
        let stdio = Stdio::from(&self.record.stdio);
        let log_dir = store::keeps_log(&self.record).then(|| self.env.layout.log_dir(&self.key));
        if log_dir.is_some() {
            made.log = true;
            let making = self.env.log_folders.make(&self.key, &self.record.incarnation).await;
            making.map_err(|e| self.io("make its log folder", e))?;
        }
        let mut rootfs = Vec::new();
        if let Some(bundle) = &self.bundle {
            let (layout, key, made) = (self.env.layout.clone(), self.key.clone(), bundle.clone());
            let making = blocking(move || store::make_bundle(&layout, &key, &made)).await;
            making.flatten().map_err(|e| self.io("make its bundle", e))?;
            rootfs = shim::mounts(&bundle.rootfs);
        }
        stage!("create.prepared");
        lap("record");

        let link = Link::fork(&self.env, &folder, &self.key, &self.facts)
            .await
            .map_err(|e| self.io("fork its shim", e))?;
        made.link = Some(link.clone());
        stage!("create.forked");
        lap("fork");

        let config = self.env.config();
        let request = wire::CreateRequest {
            rootfs,
            ..create_request(&self.record, &config.shim, shim::stdio(&stdio, log_dir.as_deref()))
        };
        let failed = |e: shim::CallError| e.into_error(self.operation, &self.key);
        link.client.subscribe().await.map_err(failed)?;
        made.asked = true;
        let pending = link
            .client
            .send::<wire::CreateResponse>(Method::Create, &request)
            .await
            .map_err(failed)?;
        stage!("create.sent");
        let mut response = pending.answer().await.map_err(failed)?;
        lap("shim");
        stages.extend(shim::stages(std::mem::take(&mut response.stages)));
        Ok(Launched {
            link,
            folder,
            at: match response.started_at {
                // Of a shim of an earlier release.
                0 => self.env.clock.now(),
                at => at,
            },
            response,
            stages,
        })
    }

    /// A restart that failed: the container is there as before, ended, with its log. One that was deleted meanwhile is gone.
    async fn stay_ended(&self, mut made: Made, error: Error, deleted: bool) -> Fact {
        if deleted {
            self.env.kept.forget(&self.key).await;
            self.undo(made).await;
            if store::keeps_log(&self.record) {
                self.env.log_folders.leave(&self.key, &self.record.incarnation);
                remove_log(&self.env, &self.key, &self.record.incarnation).await;
            }
            return Fact::Launched(Err(error));
        }
        made.log = false;
        self.undo(made).await;
        let code = u8::try_from(error.exit_code()).ok().filter(|c| *c != 0);
        let code = code.unwrap_or(ExitStatus::UNKNOWN);
        let status = ExitStatus::start_failed(self.env.clock.now(), code, error.message().to_owned());
        match kept::lay_out(&self.env, &self.key, self.record.clone(), &status) {
            Ok(folder) => Fact::NotRestarted(error, status, folder),
            Err(why) => {
                tracing::error!(container = %self.key, error = %why, "it could not be restarted, and its record is lost");
                Fact::Launched(Err(error))
            }
        }
    }

    /// Leaves nothing behind; what resists is retried in the background and named in the log.
    async fn undo(&self, made: Made) {
        let Some(folder) = made.folder else { return };
        let mut record = self.record.clone();
        // The log of its lives stays.
        record.restart.replaced = self.again && !made.log;
        let removal = Removal {
            env: self.env.clone(),
            key: self.key.clone(),
            record: note_undoing(&folder, &self.key, record),
            folder,
            log: made.log,
            link: made.link,
            unreached: None,
            made: made.asked,
            force: true,
        };
        let left = remove(removal).await.finish(&self.env);
        if !left.is_empty() {
            tracing::warn!(container = %self.key, ?left, "a start was undone, but for this; it is tried again");
        }
    }
}

/// All that a shim must be told to make the container.
pub(super) fn create_request(
    record: &ContainerRecord,
    config: &crate::ShimConfig,
    stdio: wire::Stdio,
) -> wire::CreateRequest {
    let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
    wire::CreateRequest {
        namespace: record.namespace.clone(),
        id: record.id.clone(),
        incarnation: record.incarnation.clone(),
        bundle: record.bundle.to_string_lossy().into_owned(),
        driver: Some(shim::driver(&record.runtime)),
        stdio: Some(stdio),
        start: record.run,
        runtime_timeout_ms: u32::try_from(record.runtime.timeout_ms).unwrap_or(u32::MAX),
        cleanup_only: false,
        drain_timeout_ms: ms(config.drain_timeout),
        oom_score_adj: config.oom_score_adj,
        rootfs: Vec::new(),
        init: if record.init {
            config.path.to_string_lossy().into_owned()
        } else {
            String::new()
        },
    }
}

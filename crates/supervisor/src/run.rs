//! Run and Create: from the request to the container's task.

use std::sync::Arc;

use berth_core::{ContainerKey, ErrorCode, Incarnation, RequestId, Signal, StdioTo};
use berth_record::{ContainerRecord, StdioRecord};
use tokio::time::Duration;

use crate::reply::{Begun, Reply};
use crate::types::{MadeBundle, RunSpec, Started};
use crate::{Error, Supervisor, bundle, container, runtimes};

/// All labels together, keys and values.
const MAX_LABELS: usize = 64 << 10;
const MAX_LABEL_KEY: usize = 256;
/// For a thread that looks at a bundle.
const PATIENCE: Duration = Duration::from_millis(250);
const HOUR: Duration = Duration::from_secs(3600);

impl Supervisor {
    /// Creates the container and starts it in one go.
    pub async fn run(&self, spec: RunSpec, request: Option<RequestId>) -> Result<Started, Error> {
        self.make("run", spec, request).await
    }

    /// Creates the container and leaves it before execve.
    pub async fn create(&self, spec: RunSpec, request: Option<RequestId>) -> Result<Started, Error> {
        self.make("create", spec, request).await
    }

    async fn make(&self, operation: &'static str, spec: RunSpec, request: Option<RequestId>) -> Result<Started, Error> {
        let env = self.env();
        let call = Arc::new(env.calls.enter(operation, Some(&spec.key)));
        check(operation, &spec)?;
        if env.is_closing() {
            return Err(Error::new(
                ErrorCode::ShuttingDown,
                operation,
                &spec.key,
                "the daemon is shutting down",
            ));
        }
        let requests = if operation == "run" {
            &self.inner.methods.run
        } else {
            &self.inner.methods.create
        };
        let request_id = request.as_ref().map(ToString::to_string).unwrap_or_default();
        let (reply, answer) = loop {
            match requests.begin(&spec.key, request.clone())? {
                Begun::New(reply, answer) => break (reply.with_call(call), answer),
                Begun::Known(answer) => {
                    if let Some(answer) = answer.shared().await {
                        return answer;
                    }
                }
            }
        };
        reply.stage("looking at the bundle");
        match self.prepare(operation, &spec, request_id).await {
            Ok((incarnation, record)) => {
                let made = spec.made.map(Box::new);
                self.reserve(operation, spec.key, incarnation, record, made, reply)
                    .await
            }
            Err(error) => reply.send(Err(error)),
        }
        answer.get().await
    }

    /// All that can be wrong before anything is made.
    async fn prepare(
        &self,
        operation: &'static str,
        spec: &RunSpec,
        request_id: String,
    ) -> Result<(Incarnation, ContainerRecord), Error> {
        let env = self.env();
        let key = &spec.key;
        let config = env.config();
        let folder = env.layout.container(key);
        let options = &spec.runtime_options;
        let runtime = runtimes::resolve(&config.runtime, &spec.runtime, options, operation, key, &folder)?;
        let bundle = match &spec.made {
            Some(_) => env.layout.bundle(key),
            None => spec.bundle.clone(),
        };
        let (of, path) = (key.clone(), spec.bundle.clone());
        // Where others hang on dead disks the look is left out: it only makes for plainer answers, and the creator has its own.
        if spec.made.is_none()
            && let Some(thread) = env.lanes.bundles.free(PATIENCE).await
        {
            let disks = env.disks.clone();
            let looking = thread.run(move || {
                // What can't be reached is told by the look itself.
                let _ = disks.reach(&path);
                bundle::check(operation, &of, &path)
            });
            let deadline = spec.start_timeout.unwrap_or(config.start.timeout);
            let looked = tokio::time::timeout(deadline, looking).await.map_err(|_| {
                let message = format!(
                    "the disk of bundle {} has not answered within {} ms",
                    spec.bundle.display(),
                    deadline.as_millis()
                );
                Error::new(ErrorCode::Timeout, operation, key, message)
            })?;
            looked.map_err(|e| Error::new(ErrorCode::Internal, operation, key, e.to_string()))??;
        }
        let incarnation = berth_record::random::incarnation()
            .map_err(|e| Error::new(ErrorCode::Internal, operation, key, e.to_string()))?;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let mut record = ContainerRecord {
            namespace: key.namespace.to_string(),
            id: key.id.to_string(),
            incarnation: incarnation.to_string(),
            boot_id: env.boot_id.clone(),
            request_id,
            run: operation == "run",
            bundle,
            own_bundle: spec.made.is_some(),
            runtime,
            stdio: StdioRecord::from(&spec.stdio.clone().resolve(&config.log)),
            labels: spec.labels.clone(),
            stop_signal: spec.stop_signal.unwrap_or(Signal::TERM).number(),
            stop_timeout_ms: ms(spec.stop_timeout.unwrap_or(config.stop_timeout)),
            start_timeout_ms: ms(spec.start_timeout.unwrap_or(config.start.timeout)),
            created_at: env.clock.now(),
            remove: spec.remove,
            init: spec.init,
            ..ContainerRecord::default()
        };
        record.restart.set_policy(spec.restart);
        Ok((incarnation, record))
    }

    /// Takes the id, or says who has it.
    async fn reserve(
        &self,
        operation: &'static str,
        key: ContainerKey,
        incarnation: Incarnation,
        record: ContainerRecord,
        mut made: Option<Box<MadeBundle>>,
        mut reply: Reply<Started>,
    ) {
        loop {
            // One that is still to be adopted may turn out to be nothing.
            if let Some(handle) = self.env().registry.get(&key)
                && let Some(holder) = handle.snapshot().await
            {
                let same = !record.request_id.is_empty() && holder.request_id == record.request_id;
                if same && holder.run == record.run && (holder.view.started_at != 0 || !record.run) {
                    // Made by this very request, before a restart of the daemon.
                    let (pid, incarnation) = (holder.pid, holder.view.incarnation);
                    return reply.send(Ok(Started { pid, incarnation }));
                }
                let message = format!(
                    "this id is in use by a container that is {}; delete it first",
                    holder.view.state
                );
                return reply.send(Err(Error::new(ErrorCode::AlreadyExists, operation, &key, message)));
            }
            match container::run(self.env(), key.clone(), incarnation, record.clone(), made, reply) {
                Ok(()) => return,
                Err(back) => (made, reply) = back,
            }
        }
    }
}

/// Ranges, as `berth.v1` states them.
fn check(operation: &'static str, spec: &RunSpec) -> Result<(), Error> {
    let error = |message: String| Err(Error::new(ErrorCode::InvalidArgument, operation, &spec.key, message));
    let size: usize = spec.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_LABELS {
        return error(format!(
            "its labels are {size} bytes long; at most {MAX_LABELS} are allowed"
        ));
    }
    if let Some(key) = spec.labels.keys().find(|k| k.is_empty() || k.len() > MAX_LABEL_KEY) {
        return error(format!(
            "a label's key is {} bytes long; 1 to {MAX_LABEL_KEY} are allowed",
            key.len()
        ));
    }
    if spec.stop_timeout.is_some_and(|t| t > HOUR) {
        return error("its stop timeout is longer than an hour".into());
    }
    if spec.start_timeout.is_some_and(|t| t.is_zero() || t > HOUR) {
        return error("its start timeout is not between 1 ms and an hour".into());
    }
    match &spec.stdio.to {
        StdioTo::Log(log) => {
            if log.max_size.is_some_and(|size| size < 4096) {
                return error("its log's max_size is below 4096 bytes".into());
            }
            if log.max_files.is_some_and(|files| !(1..=1000).contains(&files)) {
                return error("its log's max_files is not between 1 and 1000".into());
            }
        }
        StdioTo::Fifo(fifo) => {
            let paths = [&fifo.stdin, &fifo.stdout, &fifo.stderr];
            if let Some(path) = paths.into_iter().flatten().find(|p| !p.is_absolute()) {
                return error(format!("the FIFO {} is not an absolute path", path.display()));
            }
        }
        StdioTo::File(path) if !path.is_absolute() => {
            return error(format!("the file {} is not an absolute path", path.display()));
        }
        StdioTo::Logger(logger) if !logger.program.is_absolute() => {
            return error(format!(
                "the logger {} is not an absolute path",
                logger.program.display()
            ));
        }
        StdioTo::Null | StdioTo::File(_) | StdioTo::Logger(_) => {}
    }
    Ok(())
}

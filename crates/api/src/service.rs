//! One method a call of `berth.v1.Supervisor`: check, ask, answer.

use std::future::Future;
use std::time::Duration;

use berth_core::{ErrorCode, RequestId};
use berth_supervisor::{AttachInput, Attachment, Error, Supervisor};
use berth_wire::v1;
use berth_wire::v1::supervisor_server;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use crate::convert::{Subject, answer, request};
use crate::page::page;
use crate::status::status;
use crate::stream::{Answers, Ending, Gone, Sink, answers};

/// Of this API, counted up with every addition.
const API_MINOR: u32 = 0;

/// The transport ends a call at its deadline with CANCELLED and no detail. We answer this much earlier with what it was.
const DEADLINE_MARGIN: Duration = Duration::from_millis(5);

pub struct Service {
    supervisor: Supervisor,
    ending: Ending,
}

impl Service {
    pub fn new(supervisor: Supervisor, ending: Ending) -> Self {
        Service { supervisor, ending }
    }

    /// Runs a call within the client's deadline and the daemon's life. Dropping the call is how the supervisor learns that
    /// nobody waits any more.
    async fn call<T>(
        &self,
        subject: &Subject,
        deadline: Option<Duration>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let in_time = async {
            match deadline {
                None => call.await,
                Some(deadline) => tokio::time::timeout(deadline.saturating_sub(DEADLINE_MARGIN), call)
                    .await
                    .unwrap_or_else(|_| Err(subject.error(ErrorCode::Timeout, "the call's deadline is over"))),
            }
        };
        let result = tokio::select! {
            // What is done is told, even at the end.
            biased;
            result = in_time => result,
            () = self.ending.begun() => Err(ended(subject)),
        };
        result.map(Response::new).map_err(|error| status(&error))
    }

    /// An answer that is a stream: until `fetch` ends, the client goes, or the daemon does.
    fn answers<T, F>(&self, subject: &Subject, fetch: impl FnOnce(Sink<T>) -> F) -> Answers<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Gone>> + Send + 'static,
    {
        answers(self.ending.clone(), status(&ended(subject)), fetch)
    }
}

/// A Wait and a stream may be asked for again, of the next daemon.
fn ended(subject: &Subject) -> Error {
    subject.error(
        ErrorCode::ShuttingDown,
        "the daemon is ending; ask again when it is back",
    )
}

/// A request that names one container.
trait Addressed {
    fn namespace(&self) -> &str;
    fn id(&self) -> &str;
}

macro_rules! addressed {
    ($($message:ident)*) => {$(
        impl Addressed for v1::$message {
            fn namespace(&self) -> &str { &self.namespace }
            fn id(&self) -> &str { &self.id }
        }
    )*};
}

addressed! {
    StartRequest ExecRequest SignalRequest StopRequest WaitRequest DeleteRequest PauseRequest ResumeRequest UpdateRequest
    ResizeTerminalRequest CloseStdinRequest GetRequest LogsRequest EventsRequest CheckpointRequest RestoreRequest
    MigrateRequest AttachOpen ContainerSpec
}

fn subject(operation: &'static str, request: &impl Addressed) -> Subject {
    Subject::new(operation, request.namespace(), request.id())
}

/// The deadline of a call, from its `grpc-timeout` (a number of at most 8 digits and a unit).
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|n| *n < 100_000_000)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn later(subject: &Subject) -> Status {
    status(&subject.error(ErrorCode::Unimplemented, "not built yet"))
}

#[tonic::async_trait]
impl supervisor_server::Supervisor for Service {
    async fn run(&self, request: Request<v1::RunRequest>) -> Result<Response<v1::RunResponse>, Status> {
        let deadline = deadline(&request);
        let v1::RunRequest { container, request_id } = request.into_inner();
        let container = container.unwrap_or_default();
        let subject = subject("run", &container);
        self.call(&subject, deadline, async {
            let request_id = subject.request_id(&request_id)?;
            let started = self
                .supervisor
                .run(request::spec(&subject, container)?, request_id)
                .await?;
            Ok(v1::RunResponse {
                pid: started.pid,
                incarnation: started.incarnation.to_string(),
            })
        })
        .await
    }

    async fn create(&self, request: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        let deadline = deadline(&request);
        let v1::CreateRequest { container, request_id } = request.into_inner();
        let container = container.unwrap_or_default();
        let subject = subject("create", &container);
        self.call(&subject, deadline, async {
            let request_id = subject.request_id(&request_id)?;
            let created = self
                .supervisor
                .create(request::spec(&subject, container)?, request_id)
                .await?;
            Ok(v1::CreateResponse {
                pid: created.pid,
                incarnation: created.incarnation.to_string(),
            })
        })
        .await
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("start", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            Ok(v1::StartResponse {
                pid: self.supervisor.start(key, request_id).await?,
            })
        })
        .await
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("exec", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            let started = self
                .supervisor
                .exec(key, request::exec(&subject, request)?, request_id)
                .await?;
            Ok(v1::ExecResponse {
                pid: started.pid,
                exec_id: started.exec_id.to_string(),
            })
        })
        .await
    }

    async fn signal(&self, request: Request<v1::SignalRequest>) -> Result<Response<v1::SignalResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("signal", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            let exec = subject.exec(&request.exec_id)?;
            if request.all && exec.is_some() {
                return Err(subject.refuse("exec_id", &request.exec_id, "empty together with `all`"));
            }
            let signal = subject.signal(&request.signal)?;
            self.supervisor
                .signal(key, exec, signal, request.all, request_id)
                .await?;
            Ok(v1::SignalResponse {})
        })
        .await
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("stop", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            let spec = request::stop(&subject, request.timeout_ms, &request.signal)?;
            let exit = self.supervisor.stop(key, spec, request_id).await?;
            Ok(v1::StopResponse {
                exit: Some(answer::exit(exit)),
            })
        })
        .await
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<v1::WaitResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("wait", &request);
        self.call(&subject, deadline, async {
            let key = subject.key(&request.namespace, &request.id)?;
            let exit = self.supervisor.wait(key, subject.exec(&request.exec_id)?).await?;
            Ok(v1::WaitResponse {
                exit: Some(answer::exit(exit)),
            })
        })
        .await
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("delete", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            let exec = subject.exec(&request.exec_id)?;
            Ok(answer::deleted(
                self.supervisor.delete(key, exec, request.force, request_id).await?,
            ))
        })
        .await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("pause", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            self.supervisor.pause(key, request_id).await?;
            Ok(v1::PauseResponse {})
        })
        .await
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("resume", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            self.supervisor.resume(key, request_id).await?;
            Ok(v1::ResumeResponse {})
        })
        .await
    }

    async fn update(&self, request: Request<v1::UpdateRequest>) -> Result<Response<v1::UpdateResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("update", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            let policy = match request.restart {
                None => None,
                Some(policy) => Some(request::restart(&subject, "restart", policy, request.restart_max)?),
            };
            if policy.is_none() || request.resources.is_some() || !request.resources_json.is_empty() {
                let update = request::update(&subject, request)?;
                self.supervisor.update(key.clone(), update, request_id.clone()).await?;
            }
            if let Some(policy) = policy {
                self.supervisor.set_restart(key, policy, request_id).await?;
            }
            Ok(v1::UpdateResponse {})
        })
        .await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("get", &request);
        self.call(&subject, deadline, async {
            let key = subject.key(&request.namespace, &request.id)?;
            let view = self.supervisor.get(key, request.processes).await?;
            Ok(v1::GetResponse {
                container: Some(answer::container(view)),
            })
        })
        .await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = Subject::new("list", &request.namespace, "");
        self.call(&subject, deadline, async {
            let namespace = request::namespaces(&subject, &request.namespace)?;
            let labels = request::list_labels(&subject, request.labels)?;
            let views = self.supervisor.list(namespace, labels, request.processes).await?;
            page(&subject, views, request.page_size, &request.after)
        })
        .await
    }

    type StatsStream = Answers<v1::StatsResponse>;

    async fn stats(&self, request: Request<v1::StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = Subject::new(
            "stats",
            &request.namespace,
            request.ids.first().map_or("", String::as_str),
        );
        self.call(&subject, deadline, async {
            let mut stats = self.supervisor.stats(request::stats(&subject, &request)?).await?;
            Ok(self.answers(&subject, async move |sink: Sink<_>| {
                while let Some(sample) = stats.next().await {
                    sink.send(sample.map(answer::stats).map_err(|e| status(&e))).await?;
                }
                Ok(())
            }))
        })
        .await
    }

    async fn resize_terminal(
        &self,
        request: Request<v1::ResizeTerminalRequest>,
    ) -> Result<Response<v1::ResizeTerminalResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("resize-terminal", &request);
        self.call(&subject, deadline, async {
            let key = subject.key(&request.namespace, &request.id)?;
            let exec = subject.exec(&request.exec_id)?;
            let size = subject.size("width", request.width, "height", request.height, false)?;
            self.supervisor.resize_terminal(key, exec, size).await?;
            Ok(v1::ResizeTerminalResponse {})
        })
        .await
    }

    async fn close_stdin(
        &self,
        request: Request<v1::CloseStdinRequest>,
    ) -> Result<Response<v1::CloseStdinResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("close-stdin", &request);
        self.call(&subject, deadline, async {
            let (key, request_id) = address(&subject, &request, &request.request_id)?;
            self.supervisor
                .close_stdin(key, subject.exec(&request.exec_id)?, request_id)
                .await?;
            Ok(v1::CloseStdinResponse {})
        })
        .await
    }

    type AttachStream = Answers<v1::AttachResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let deadline = deadline(&request);
        let mut requests = request.into_inner();
        let nobody = Subject::new("attach", "", "");
        let opening = self.call(&nobody, deadline, async {
            match requests.message().await {
                Ok(Some(v1::AttachRequest {
                    action: Some(v1::attach_request::Action::Open(open)),
                })) => Ok(open),
                Ok(_) => Err(nobody.refuse("action", "not `open`", "`open` in the first message")),
                Err(error) => {
                    let message = format!("the first message did not come: {}", error.message());
                    Err(nobody.error(ErrorCode::Cancelled, message))
                }
            }
        });
        let open = opening.await?.into_inner();
        let subject = subject("attach", &open);
        let attached = self.call(&subject, deadline, async {
            let key = subject.key(&open.namespace, &open.id)?;
            self.supervisor
                .attach(key, subject.exec(&open.exec_id)?, open.offset)
                .await
        });
        let Attachment { opened, input, output } = attached.await?.into_inner();
        let (failed, failure) = oneshot::channel();
        let output = self.answers(&subject, async move |sink: Sink<_>| {
            sink.send(Ok(answer::attach_opened(opened))).await?;
            pass_on(output, failure, &sink).await
        });
        tokio::spawn(async move {
            if let Err(error) = feed(&subject, requests, input).await {
                // The other half may have ended on its own.
                let _ = failed.send(error);
            }
        });
        Ok(Response::new(output))
    }

    type LogsStream = Answers<v1::LogsResponse>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("logs", &request);
        self.call(&subject, deadline, async {
            let mut logs = self.supervisor.logs(request::logs(&subject, request)?).await?;
            Ok(self.answers(&subject, async move |sink: Sink<_>| {
                while let Some(entries) = logs.next().await {
                    sink.send(entries.map(answer::logs).map_err(|e| status(&e))).await?;
                }
                Ok(())
            }))
        })
        .await
    }

    type EventsStream = Answers<v1::EventsResponse>;

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let subject = subject("events", &request);
        self.call(&subject, deadline, async {
            let mut events = self.supervisor.events(request::events(&subject, request)?).await?;
            Ok(self.answers(&subject, async move |sink: Sink<_>| {
                while let Some(item) = events.next().await {
                    sink.send(Ok(answer::event(item))).await?;
                }
                Ok(())
            }))
        })
        .await
    }

    async fn version(&self, _: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        let runtimes = self.supervisor.runtimes().await;
        let config = self.supervisor.config();
        Ok(Response::new(v1::VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("BERTH_REVISION").unwrap_or_default().into(),
            api_minor: API_MINOR,
            runtimes: runtimes.into_iter().map(answer::runtime).collect(),
            state: config.state.display().to_string(),
            root: config.root.display().to_string(),
        }))
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        Err(later(&subject("checkpoint", request.get_ref())))
    }

    async fn restore(&self, request: Request<v1::RestoreRequest>) -> Result<Response<v1::RestoreResponse>, Status> {
        Err(later(&subject("restore", request.get_ref())))
    }

    type MigrateStream = Answers<v1::MigrateResponse>;

    async fn migrate(&self, request: Request<v1::MigrateRequest>) -> Result<Response<Self::MigrateStream>, Status> {
        Err(later(&subject("migrate", request.get_ref())))
    }
}

fn address(
    subject: &Subject,
    request: &impl Addressed,
    request_id: &str,
) -> Result<(berth_core::ContainerKey, Option<RequestId>), Error> {
    Ok((
        subject.key(request.namespace(), request.id())?,
        subject.request_id(request_id)?,
    ))
}

/// The client's half of an attachment: until it stops sending, breaks a rule, or the process takes no more.
async fn feed(
    subject: &Subject,
    mut requests: Streaming<v1::AttachRequest>,
    input: mpsc::Sender<AttachInput>,
) -> Result<(), Error> {
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            // The process's half has ended; a client that keeps its own open is not waited for.
            () = input.closed() => return Ok(()),
        };
        // A client that is gone ends the stream with an error of the transport; its other half knows.
        let Ok(Some(request)) = request else {
            return Ok(());
        };
        let item = request::attach_input(subject, request)?;
        if input.send(item).await.is_err() {
            return Ok(());
        }
    }
}

/// The process's half: until the end, an error, or a rule that the client broke.
async fn pass_on(
    mut output: mpsc::Receiver<Result<berth_supervisor::AttachOutput, Error>>,
    mut failure: oneshot::Receiver<Error>,
    sink: &Sink<v1::AttachResponse>,
) -> Result<(), Gone> {
    let mut may_fail = true;
    loop {
        let item = tokio::select! {
            failed = &mut failure, if may_fail => match failed {
                Ok(error) => return sink.send(Err(status(&error))).await,
                Err(_) => {
                    may_fail = false;
                    continue;
                }
            },
            item = output.recv() => item,
        };
        let Some(item) = item else { return Ok(()) };
        sink.send(item.map(answer::attach).map_err(|e| status(&e))).await?;
    }
}

//! A berthd for tests, in this process, that can be cut off and restarted. Connections pass a relay: cutting the relay is what
//! SIGKILL of a daemon looks like from outside.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_wire::v1::supervisor_server::{Supervisor, SupervisorServer};
use berth_wire::v1::*;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::client::{Client, random_id};

#[derive(Clone, Debug, Default)]
pub struct Script {
    /// So many calls lose their connection before they are answered.
    pub breaks: u32,
    /// Never answer Wait.
    pub hold: bool,
    /// All the process ever wrote, served by Attach.
    pub output: Vec<u8>,
    /// Attach loses its connection after so many bytes.
    pub cut_after: Option<usize>,
    /// Attach begins so many bytes before what was asked for.
    pub overlap: usize,
    /// What Get says of the container's log; none = there is no container.
    pub log: Option<LogPolicy>,
    /// The window of Attach begins here.
    pub window: usize,
}

struct Shared {
    script: Script,
    left: AtomicU32,
    cut: Notify,
    called: Notify,
    seen: Mutex<Vec<String>>,
}

pub struct Daemon {
    folder: PathBuf,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Daemon {
    pub async fn start(script: Script) -> Self {
        let folder = std::env::temp_dir().join(format!("berth-fake-{}", random_id()));
        std::fs::create_dir(&folder).expect("folder");
        Self::start_in(folder, script)
    }

    fn start_in(folder: PathBuf, script: Script) -> Self {
        let left = AtomicU32::new(script.breaks);
        let shared = Arc::new(Shared {
            script,
            left,
            cut: Notify::new(),
            called: Notify::new(),
            seen: Mutex::default(),
        });
        let inner = folder.join("inner");
        let service = UnixListenerStream::new(UnixListener::bind(&inner).expect("inner socket"));
        let outer = UnixListener::bind(folder.join("sock")).expect("socket");
        let server = tonic::transport::Server::builder().add_service(SupervisorServer::new(Fake(shared.clone())));
        let serve = tokio::spawn(async move { server.serve_with_incoming(service).await.expect("server") });
        let cut = shared.clone();
        let relay = tokio::spawn(async move {
            // Dropped with the relay, so that its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = outer.accept() => {
                        let mut client = accepted.expect("accept").0;
                        let mut server = UnixStream::connect(&inner).await.expect("connect");
                        connections.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
                    }
                    () = cut.cut.notified() => connections.abort_all(),
                }
            }
        });
        Self {
            folder,
            shared,
            tasks: vec![relay, serve],
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.folder.join("sock"), "default")
            .await
            .expect("connect")
            .with_patience(Duration::from_secs(5))
    }

    /// Request ids and the like, in order.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when a Wait has come in.
    pub async fn called(&self) {
        self.shared.called.notified().await;
    }

    pub async fn kill(mut self) {
        self.stop().await;
    }

    pub async fn restart(mut self, script: Script) -> Self {
        self.stop().await;
        let folder = std::mem::take(&mut self.folder);
        for name in ["inner", "sock"] {
            std::fs::remove_file(folder.join(name)).expect("socket");
        }
        Self::start_in(folder, script)
    }

    async fn stop(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.folder.as_os_str().is_empty() {
            return;
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Fake(Arc<Shared>);

impl Shared {
    fn see(&self, text: String) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Loses the connection, if the script says so.
    async fn maybe_break(&self) {
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            self.cut.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! refuse {
    ($($name:ident $request:ident $response:ident)*) => {
        /// NotFound for everything that no test looks at.
        macro_rules! refusals { () => {
            $(fn $name<'a, 'b>(&'a self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
            where 'a: 'b, Self: 'b {
                Box::pin(async { Err(Status::not_found("no such container")) })
            })*
        } }
    };
}

refuse! {
    run RunRequest RunResponse
    create CreateRequest CreateResponse
    start StartRequest StartResponse
    exec ExecRequest ExecResponse
    delete DeleteRequest DeleteResponse
    pause PauseRequest PauseResponse
    resume ResumeRequest ResumeResponse
    update UpdateRequest UpdateResponse
    list ListRequest ListResponse
    resize_terminal ResizeTerminalRequest ResizeTerminalResponse
    close_stdin CloseStdinRequest CloseStdinResponse
    version VersionRequest VersionResponse
    checkpoint CheckpointRequest CheckpointResponse
    restore RestoreRequest RestoreResponse
}

fn seven() -> Option<ExitStatus> {
    Some(ExitStatus {
        code: 7,
        reason: ExitReason::Exited.into(),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl Supervisor for Fake {
    refusals!();

    type StatsStream = Answers<StatsResponse>;
    type LogsStream = Answers<LogsResponse>;
    type EventsStream = Answers<EventsResponse>;
    type AttachStream = Answers<AttachResponse>;
    type MigrateStream = Answers<MigrateResponse>;

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        self.0.see(request.into_inner().request_id);
        self.0.maybe_break().await;
        Ok(Response::new(StopResponse { exit: seven() }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let Some(policy) = self.0.script.log else {
            return Err(Status::not_found("no such container"));
        };
        let log = StdioLog {
            policy: policy.into(),
            format: LogFormat::Cri.into(),
            ..Default::default()
        };
        let stdio = Some(Stdio {
            to: Some(stdio::To::Log(log)),
            ..Default::default()
        });
        Ok(Response::new(GetResponse {
            container: Some(Container {
                stdio,
                ..Default::default()
            }),
        }))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        self.0.see(request.into_inner().signal);
        Ok(Response::new(SignalResponse {}))
    }

    async fn wait(&self, _: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        self.0.called.notify_one();
        if self.0.script.hold {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(WaitResponse { exit: seven() }))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        Err(Status::not_found("no such container"))
    }

    async fn events(&self, _: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Err(Status::not_found("no such container"))
    }

    async fn migrate(&self, _: Request<MigrateRequest>) -> Result<Response<Self::MigrateStream>, Status> {
        Err(Status::unimplemented("migrate"))
    }

    /// One entry a byte of the script's output; its cursor is its number.
    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let from = request.cursor.parse::<usize>().map_or(0, |seen| seen + 1);
        if self.0.script.log.is_none() {
            return Err(Status::not_found("no such container"));
        }
        self.0.see(format!("cursor={} tail={:?}", request.cursor, request.tail));
        let shared = self.0.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for (sent, at) in (from..shared.script.output.len()).enumerate() {
                if shared.script.cut_after == Some(sent) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    shared.cut.notify_one();
                    return std::future::pending().await;
                }
                let entry = LogEntry {
                    data: vec![shared.script.output[at]].into(),
                    cursor: at.to_string(),
                    ..Default::default()
                };
                if sender.send(Ok(LogsResponse { entries: vec![entry] })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        use attach_response::Event;
        let mut requests = request.into_inner();
        let Some(attach_request::Action::Open(open)) = requests.message().await?.and_then(|request| request.action)
        else {
            return Err(Status::invalid_argument("not opened"));
        };
        let asked = usize::try_from(open.offset.unwrap_or(0)).unwrap_or(usize::MAX);
        self.0.see(format!("offset={asked}"));
        let shared = self.0.clone();
        let (sender, receiver) = mpsc::channel::<Event>(1);
        tokio::spawn(async move {
            let script = &shared.script;
            let begin = asked.saturating_sub(script.overlap).max(script.window);
            let end = script
                .cut_after
                .map_or(script.output.len(), |count| (asked + count).min(script.output.len()));
            let _ = sender
                .send(Event::Opened(AttachOpened {
                    offset: begin as u64,
                    terminal: false,
                }))
                .await;
            if begin > asked {
                let _ = sender.send(Event::LostBytes((begin - asked) as u64)).await;
            }
            for at in (begin..end).step_by(3) {
                let data = script.output[at..(at + 3).min(end)].to_vec();
                let chunk = OutputChunk {
                    stream: berth_wire::v1::Stream::Stdout.into(),
                    data: data.into(),
                    offset: at as u64,
                };
                if sender.send(Event::Output(chunk)).await.is_err() {
                    return;
                }
            }
            if end < script.output.len() {
                // What was sent must arrive before the cut; nothing tells when it has.
                tokio::time::sleep(Duration::from_millis(20)).await;
                shared.cut.notify_one();
                return std::future::pending().await;
            }
            let _ = sender.send(Event::Exit(seven().unwrap_or_default())).await;
        });
        // Reads on for the input, as a daemon does.
        tokio::spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
        let answers = ReceiverStream::new(receiver).map(|event| Ok(AttachResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(answers)))
    }
}

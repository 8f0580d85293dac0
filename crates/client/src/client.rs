//! The connection to berthd. It outlives berthd: a call or stream that breaks is made again until berthd is back or patience ends.
//!
//! * The first connection is not waited for: who forgot to start berthd learns it at once.
//! * Mutating calls carry a request id made once, so that making them again does nothing twice.
//! * A broken connection is told from an answer by the status's source: an answer of berthd's has none.

use std::error::Error as _;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_wire::v1::ErrorCode;
use berth_wire::v1::supervisor_client::SupervisorClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::error::{Error, Result, detail};

/// How long berthd may be away before a call gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LAST_DELAY: Duration = Duration::from_millis(500);
/// A connection that held so long was a good one: the next break starts a new wait.
const GOOD: Duration = Duration::from_secs(1);
const MAX_MESSAGE: usize = 16 << 20;

/// The generated client.
pub type Stub = SupervisorClient<Channel>;

/// See the crate's own page. A clone shares the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Of requests that name none.
    pub namespace: String,
    address: PathBuf,
    channel: Channel,
    patience: Duration,
    /// Called once when berthd stays away for more than a second.
    away: fn(),
}

impl Client {
    /// Fails at once if nobody listens. `address` is a path, or `unix:` and a path.
    pub async fn connect(address: &Path, namespace: &str) -> Result<Self> {
        let address = match address.to_str().and_then(|text| text.strip_prefix("unix:")) {
            Some(path) => PathBuf::from(format!("/{}", path.trim_start_matches('/'))),
            None => address.to_owned(),
        };
        UnixStream::connect(&address)
            .await
            .map_err(|source| cannot_connect(&address, source))?;
        let path = address.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The authority is never resolved; the connector knows the way. Large windows: output comes in bulk.
        let channel = Endpoint::from_static("http://berthd")
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_with_connector_lazy(connector);
        Ok(Self {
            namespace: namespace.to_owned(),
            address,
            channel,
            patience: PATIENCE,
            away: || (),
        })
    }

    /// How long berthd may be away; 30 s if this is not called.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What to do when berthd stays away for more than a second, as telling a person.
    pub fn when_away(mut self, away: fn()) -> Self {
        self.away = away;
        self
    }

    /// The generated client, without retries.
    pub fn stub(&self) -> Stub {
        SupervisorClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// For a loop of one's own around [`Client::wait_or_fail`].
    pub fn patience(&self) -> Patience {
        Patience {
            limit: self.patience,
            since: None,
            delay: FIRST_DELAY,
            attempt: Instant::now(),
            told: false,
            away: self.away,
        }
    }

    /// One unary call, made again while the connection is broken.
    pub async fn call<R, T, F>(
        &self,
        operation: &'static str,
        id: &str,
        request: R,
        make: impl Fn(Stub, R) -> F,
    ) -> Result<T>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut patience = self.patience();
        loop {
            match make(self.stub(), request.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => self.wait_or_fail(&mut patience, operation, id, status).await?,
            }
        }
    }

    /// One stream of answers, opened again while the connection is broken. `take` moves the request's cursor on, so that
    /// it goes on behind what was taken.
    pub async fn stream<R, M, F, E>(
        &self,
        operation: &'static str,
        id: &str,
        mut request: R,
        open: impl Fn(Stub, R) -> F,
        mut take: impl FnMut(&mut R, M) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E>
    where
        R: Clone,
        E: From<Error>,
        F: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        let mut patience = self.patience();
        loop {
            let status = match open(self.stub(), request.clone()).await {
                Err(status) => status,
                Ok(response) => {
                    let mut stream = response.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(message)) => {
                                if take(&mut request, message)?.is_break() {
                                    return Ok(());
                                }
                            }
                            Ok(None) => return Ok(()),
                            Err(status) => break status,
                        }
                    }
                }
            };
            self.wait_or_fail(&mut patience, operation, id, status).await?;
        }
    }

    /// After a failed attempt: returns when it is worth another, or the error to end with.
    pub async fn wait_or_fail(
        &self,
        patience: &mut Patience,
        operation: &'static str,
        id: &str,
        status: Status,
    ) -> Result<()> {
        if !is_broken(&status) {
            return Err(Error::refused(operation, id, &status));
        }
        if patience.wait().await {
            return Ok(());
        }
        Err(self.lost(operation, id, &status))
    }

    fn lost(&self, operation: &'static str, id: &str, status: &Status) -> Error {
        Error::Lost {
            operation,
            id: id.to_owned(),
            address: self.address.clone(),
            seconds: self.patience.as_secs(),
            cause: root_cause(status),
        }
    }
}

/// The waits between attempts: growing, and bounded together.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    since: Option<Instant>,
    delay: Duration,
    attempt: Instant,
    told: bool,
    away: fn(),
}

impl Patience {
    /// False when it is over.
    pub async fn wait(&mut self) -> bool {
        if self.attempt.elapsed() >= GOOD + self.delay {
            self.since = None;
            self.delay = FIRST_DELAY;
            self.told = false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.limit {
            return false;
        }
        // A restart takes less; more than that a person wants to know.
        if since.elapsed() >= GOOD && !self.told {
            self.told = true;
            (self.away)();
        }
        // Nothing tells a client that a daemon is coming back.
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(LAST_DELAY);
        self.attempt = Instant::now();
        true
    }
}

/// Whether another attempt could succeed: the connection broke, or berthd is on its way down. A lost shim stays lost.
fn is_broken(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => detail(status).code() != ErrorCode::ShimLost,
        _ => status.source().is_some(),
    }
}

fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

fn cannot_connect(address: &Path, source: io::Error) -> Error {
    let address = address.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning { address },
        io::ErrorKind::PermissionDenied => Error::Forbidden { address },
        _ => Error::Connect { address, source },
    }
}

/// 128 random bits: makes a mutating call idempotent, or names a container that nobody named.
pub fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // Without flags the kernel's generator fails only when interrupted.
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::fake::{Daemon, Script};
    use berth_wire::v1::{PauseRequest, StopRequest};

    #[tokio::test]
    async fn no_daemon_is_told_at_once() {
        let error = Client::connect(Path::new("/nonexistent/berthd.sock"), "default")
            .await
            .expect_err("no socket");
        assert_eq!(error.to_string(), "berthd is not running at /nonexistent/berthd.sock");
    }

    #[tokio::test]
    async fn a_broken_call_is_made_again_with_its_request_id() {
        let daemon = Daemon::start(Script {
            breaks: 2,
            ..Script::default()
        })
        .await;
        let client = daemon.client().await;
        let request = StopRequest {
            id: "web".into(),
            request_id: random_id(),
            ..Default::default()
        };
        let response = client
            .call("stop", "web", request.clone(), |mut stub, request| async move {
                stub.stop(request).await
            })
            .await
            .expect("third time");
        assert_eq!(response.exit.map(|exit| exit.code), Some(7));
        let seen = daemon.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|id| *id == request.request_id), "{seen:?}");
    }

    #[tokio::test]
    async fn an_answer_is_final() {
        let daemon = Daemon::start(Script::default()).await;
        let client = daemon.client().await;
        let error = client
            .call(
                "pause",
                "web",
                PauseRequest::default(),
                |mut stub, request| async move { stub.pause(request).await },
            )
            .await
            .expect_err("refused");
        assert!(
            matches!(
                error,
                Error::Refused {
                    code: Code::NotFound,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_not_found());
    }

    #[tokio::test]
    async fn patience_ends() {
        let daemon = Daemon::start(Script::default()).await;
        let client = daemon.client().await.with_patience(Duration::from_millis(50));
        daemon.kill().await;
        let error = client
            .call(
                "pause",
                "web",
                PauseRequest::default(),
                |mut stub, request| async move { stub.pause(request).await },
            )
            .await
            .expect_err("gone");
        assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_restarted_daemon_is_found_again() {
        let daemon = Daemon::start(Script {
            hold: true,
            ..Script::default()
        })
        .await;
        let client = daemon.client().await;
        let waiting = tokio::spawn(async move {
            let request = berth_wire::v1::WaitRequest {
                id: "web".into(),
                ..Default::default()
            };
            client
                .call("wait", "web", request, |mut stub, request| async move {
                    stub.wait(request).await
                })
                .await
        });
        daemon.called().await;
        let daemon = daemon.restart(Script::default()).await;
        let exit = waiting
            .await
            .expect("task")
            .expect("answered by the second daemon")
            .exit;
        assert_eq!(exit.map(|exit| exit.code), Some(7));
        drop(daemon);
    }

    #[tokio::test]
    async fn a_broken_stream_goes_on_behind_its_cursor() {
        let daemon = Daemon::start(Script {
            output: b"abcdefgh".to_vec(),
            cut_after: Some(3),
            log: Some(berth_wire::v1::LogPolicy::Block),
            ..Script::default()
        })
        .await;
        let client = daemon.client().await;
        let request = berth_wire::v1::LogsRequest {
            tail: Some(8),
            ..Default::default()
        };
        let mut read = Vec::new();
        let result: Result<()> = client
            .stream(
                "logs",
                "web",
                request,
                |mut stub, request| async move { stub.logs(request).await },
                |request, response| {
                    for entry in response.entries {
                        read.extend_from_slice(&entry.data);
                        request.cursor = entry.cursor;
                        request.tail = None;
                    }
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(read, b"abcdefgh");
        // How much of what was sent before a cut arrives is not ours to say; that it is not asked for again is.
        assert!(daemon.seen().len() >= 3, "{:?}", daemon.seen());
        assert!(
            daemon.seen()[1..].iter().all(|seen| seen.ends_with("tail=None")),
            "{:?}",
            daemon.seen()
        );
    }

    #[test]
    fn ids_differ() {
        let (one, two) = (random_id(), random_id());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }
}

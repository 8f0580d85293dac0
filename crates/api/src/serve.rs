//! The server: our service, health and reflection on one unix socket, with limits of our own.
//!
//! HTTP/2's usual defaults are for strangers on the internet. Whoever can open this socket is root, and 200 Waits must not
//! block a Kill: so streams and resets are practically not counted, and memory is capped instead.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_content::Store;
use berth_meta::Meta;
use berth_supervisor::Supervisor;
use berth_wire::v1::supervisor_server::SupervisorServer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::authority::Lenient;
use crate::budget::Budget;
use crate::containerd;
use crate::service::Service;
use crate::stream::Ending;

/// Streams at once on one connection.
const MAX_STREAMS: u32 = 1 << 20;

/// Bytes of one message.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// Bytes that a client may have on the way on one connection, and on one stream. Not memory that is reserved.
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes of all requests in work.
const REQUESTS_IN_WORK: usize = 256 << 20;

/// How long accepting rests when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Our API over one supervisor.
pub struct Api {
    supervisor: Supervisor,
    meta: Meta,
    content: Store,
    shims: Option<UnixListener>,
}

impl Api {
    pub fn new(supervisor: Supervisor, meta: Meta, content: Store) -> Self {
        Api {
            supervisor,
            meta,
            content,
            shims: None,
        }
    }

    /// Takes the events of others' shims from this second socket.
    #[must_use]
    pub fn with_shims(mut self, listener: Option<UnixListener>) -> Self {
        self.shims = listener;
        self
    }

    /// Serves until `shutdown`: then Waits and streams end with UNAVAILABLE, what can still be answered is, and connections
    /// are let go when their clients close them; the caller bounds that wait. Health says SERVING from the end of adoption to the shutdown.
    pub async fn serve(
        self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), tonic::transport::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, ServingStatus::NotServing).await;
        let adopted = tokio::spawn({
            let (health, supervisor) = (health.clone(), self.supervisor.clone());
            async move {
                supervisor.adopted().await;
                report(&health, ServingStatus::Serving).await;
            }
        });
        let (end, ending) = watch::channel(false);
        let shutdown = async move {
            shutdown.await;
            end.send_replace(true);
            adopted.abort();
            report(&health, ServingStatus::NotServing).await;
        };
        let ending = Ending::new(ending);
        let theirs = containerd::Context::new(self.supervisor.clone(), self.meta, self.content, ending.clone());
        if let Some(listener) = self.shims {
            tokio::spawn(containerd::ttrpc::serve(listener, theirs.clone()));
        }
        let ours = SupervisorServer::new(Service::new(self.supervisor, ending))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut router = server().add_service(health_service).add_service(ours);
        router = containerd::mount(router, &theirs);
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(berth_wire::DESCRIPTOR)
                .with_service_name(berth_wire::v1::supervisor_server::SERVICE_NAME)
        };
        match (describe().build_v1(), describe().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => router = router.add_service(v1).add_service(v1alpha),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "no reflection: the descriptor can't be read");
            }
        }
        router
            .serve_with_incoming_shutdown(Incoming { listener, pause: None }, shutdown)
            .await
    }
}

fn server() -> Server<tower::layer::util::Stack<Budget, tower::layer::util::Identity>> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_pending_accept_reset_streams(Some(MAX_STREAMS as usize))
        // None = not counted.
        .http2_max_local_error_reset_streams(None)
        .layer(Budget::new(REQUESTS_IN_WORK))
}

async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in ["", berth_wire::v1::supervisor_server::SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
}

/// Connections as they come. Running out of descriptors pauses accepting; it does not end the daemon.
struct Incoming {
    listener: UnixListener,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Lenient<UnixStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => return Poll::Ready(Some(Ok(Lenient::new(stream)))),
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted; trying again");
                    // A descriptor that gets free tells nobody.
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod test;

//! The limits of the server, on a real socket, with services that need no containers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

/// A server of health alone, under our limits.
struct Bare {
    path: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    health: HealthReporter,
}

impl Bare {
    async fn start() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("berth-api-{}-{serial}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a socket");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (health, service) = tonic_health::server::health_reporter();
        let router = server().add_service(service);
        tokio::spawn(
            router.serve_with_incoming_shutdown(Incoming { listener, pause: None }, async {
                let _ = stopped.await;
            }),
        );
        Bare {
            path,
            stop: Some(stop),
            health,
        }
    }

    async fn client(&self) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.path.display())).expect("an address");
        HealthClient::new(endpoint.connect().await.expect("connected"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = std::fs::remove_file(&self.path);
    }
}

fn overall() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

#[tokio::test]
async fn ten_thousand_streams_and_one_more_call_on_a_connection() {
    let server = Bare::start().await;
    let client = server.client().await;
    let mut watches = Vec::new();
    for _ in 0..10_000 {
        let mut client = client.clone();
        watches.push(tokio::spawn(async move { client.watch(overall()).await }));
    }
    let mut open = Vec::new();
    for watch in watches {
        let mut stream = watch.await.expect("no panic").expect("accepted").into_inner();
        stream.message().await.expect("alive").expect("the status now");
        open.push(stream);
    }
    let mut client = client;
    client
        .check(overall())
        .await
        .expect("ten thousand watches block nobody");
    server.health.set_service_status("", ServingStatus::NotServing).await;
    for stream in &mut open {
        stream.message().await.expect("alive").expect("the change");
    }
}

#[tokio::test]
async fn five_thousand_cancels_leave_the_connection_alone() {
    let server = Bare::start().await;
    let mut client = server.client().await;
    for _ in 0..100 {
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.watch(overall()).await })
            })
            .collect();
        // Some have been answered by now, some not: both kinds are reset.
        tokio::task::yield_now().await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        for call in calls {
            drop(call.await);
        }
    }
    client.check(overall()).await.expect("the same connection");
}

#[tokio::test]
async fn an_oversized_message_costs_its_call_only() {
    let server = Bare::start().await;
    let client = server.client().await;
    let mut watch = client.clone().watch(overall()).await.expect("accepted").into_inner();
    watch.message().await.expect("alive").expect("the status now");
    let huge = HealthCheckRequest {
        service: "x".repeat(MAX_MESSAGE + 1),
    };
    let refused = client.clone().check(huge).await.expect_err("too long");
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused:?}");
    client.clone().check(overall()).await.expect("the same connection");
    server.health.set_service_status("", ServingStatus::NotServing).await;
    watch.message().await.expect("alive").expect("the change");
}

#[tokio::test]
async fn garbage_and_cut_frames_end_their_connection_only() {
    let server = Bare::start().await;
    let mut client = server.client().await;
    client.check(overall()).await.expect("well");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 100],
        &[preface, &[0, 0, 9, 4][..]].concat(),
    ] {
        let mut raw = UnixStream::connect(&server.path).await.expect("connected");
        raw.write_all(bytes).await.expect("sent");
        raw.shutdown().await.expect("half closed");
        // What it answers does not matter; that it ends does.
        let _ = raw.read_to_end(&mut Vec::new()).await;
    }
    client.check(overall()).await.expect("still well");
}

//! Clients in other languages, made from our `.proto` alone, over a relay that keeps what they sent: the test holds what arrived,
//! and what HTTP/2 authority each library really names.
use berth_e2e::{Daemon, LIMIT, Runtime, within};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the project")
}

fn installed(part: &str) -> PathBuf {
    let path = project().join("target/clients").join(part);
    assert!(path.exists(), "{} is missing: run clients/install", path.display());
    path
}

/// Passes connections on to the daemon and keeps all that clients send.
fn relay(d: &Daemon) -> (PathBuf, Arc<Mutex<Vec<u8>>>) {
    let (path, to) = (d.dir.join("relay.sock"), d.socket());
    let listener = UnixListener::bind(&path).expect("a socket");
    let sent = Arc::new(Mutex::new(Vec::new()));
    let keep = sent.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, keep) = (to.clone(), keep.clone());
            tokio::spawn(async move {
                let daemon = UnixStream::connect(to).await.expect("the daemon");
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_daemon, mut to_daemon) = daemon.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_daemon, &mut to_client).await });
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    keep.lock().expect("lock").extend(&buffer[..count]);
                    if to_daemon.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                drop(to_daemon);
                let _ = back.await;
            });
        }
    });
    (path, sent)
}

/// `:authority` of the first request of a stream, as it left the client.
fn authority(sent: &[u8]) -> String {
    let mut rest = sent.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("HTTP/2");
    while let [a, b, c, kind, flags, _, _, _, _, later @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (payload, later) = later.split_at(length);
        if *kind == 1 {
            assert_eq!(flags & 0x0c, 0x04, "one frame, not padded");
            let block = if flags & 0x20 == 0 { payload } else { &payload[5..] };
            let fields = loona_hpack::Decoder::new().decode(block).expect("HPACK");
            let (_, value) = fields
                .iter()
                .find(|(name, _)| name == b":authority")
                .expect("an authority");
            return String::from_utf8(value.clone()).expect("UTF-8");
        }
        rest = later;
    }
    panic!("no request in {sent:?}");
}

/// Runs a client on a bundle that writes a line and ends with 7.
async fn run(d: &Daemon, id: &str, command: &mut Command, arguments: &[&str]) -> String {
    let bundle = d.sh(id, "echo hello from $(hostname); exit 7");
    let (socket, sent) = relay(d);
    command
        .arg(&socket)
        .arg(&bundle.dir)
        .args(arguments)
        .stdin(Stdio::null());
    let output = within(id, LIMIT * 3, command.output()).await.expect("started");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello from berth\n",
        "{output:?}"
    );
    let kinds: Vec<_> = d
        .history()
        .await
        .iter()
        .filter(|e| e.id == id)
        .map(|e| e.kind())
        .collect();
    use berth_e2e::v1::EventKind::{Created, Deleted, Exited, Started};
    assert_eq!(kinds, [Created, Started, Exited, Deleted]);
    let sent = sent.lock().expect("lock");
    authority(&sent)
}

/// grpc's C core: the path without its first slash, percent-encoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    let d = Daemon::start(Runtime::Embedded).await;
    let mut command = Command::new(installed("python").join("bin/python"));
    command
        .arg(project().join("clients/python/run.py"))
        .env("PYTHONPATH", installed("generated"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let named = run(&d, "python", &mut command, &[]).await;
    let socket = d.dir.join("relay.sock");
    let path = socket.to_str().expect("UTF-8").trim_start_matches('/');
    assert_eq!(named, path.replace('/', "%2F"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let d = Daemon::start(Runtime::Embedded).await;
    let mut command = Command::new("node");
    command
        .arg(project().join("clients/node/run.js"))
        .env("NODE_PATH", installed("node/node_modules"));
    let proto = project().join("crates/wire/proto/berth/v1/supervisor.proto");
    let named = run(&d, "node", &mut command, &[proto.to_str().expect("UTF-8")]).await;
    assert_eq!(named, "localhost");
}

/// The crate `berth-client`, by the example that its documentation shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust() {
    let d = Daemon::start(Runtime::Embedded).await;
    let named = run(&d, "rust", &mut Command::new(env!("CARGO_BIN_EXE_berth-example")), &[]).await;
    assert_eq!(named, "berthd");
}

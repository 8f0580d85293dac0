//! What one connection must bear, and what comes over it that is no request.
use berth_e2e::v1::{self, ErrorCode};
use berth_e2e::{Daemon, LIMIT, Runtime, on_all, within};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;

on_all!(
    thousand_waits_and_a_kill,
    five_thousand_cancels,
    cut_and_garbage_frames,
    cut_messages,
    oversized_frames,
    list_in_pages,
    garbage_at_the_shim,
    two_clients_create_one_id,
);

/// 1,000 Waits on one connection do not keep a Kill on it from working.
pub async fn thousand_waits_and_a_kill(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("w")).await;
    let api = d.connect();
    let waits: Vec<_> = (0..1000)
        .map(|_| {
            let mut api = api.clone();
            let request = v1::WaitRequest {
                id: "w".into(),
                ..Default::default()
            };
            tokio::spawn(async move { api.wait(request).await })
        })
        .collect();
    let mut api = api;
    let kill = v1::SignalRequest {
        id: "w".into(),
        signal: "KILL".into(),
        ..Default::default()
    };
    within("the kill", LIMIT, api.signal(kill)).await.expect("kill");
    for wait in waits {
        let answer = within("a wait", LIMIT, wait)
            .await
            .expect("join")
            .expect("wait")
            .into_inner();
        assert_eq!(answer.exit.expect("exit").signal, 9);
    }
}

/// 5,000 calls that their client drops, and the connection lives.
pub async fn five_thousand_cancels(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    let mut api = d.connect();
    let get = || v1::GetRequest {
        id: "c".into(),
        ..Default::default()
    };
    api.get(get()).await.expect("the connection stands");
    for _ in 0..50 {
        let waits: Vec<_> = (0..100)
            .map(|_| {
                let mut api = api.clone();
                let request = v1::WaitRequest {
                    id: "c".into(),
                    ..Default::default()
                };
                tokio::spawn(async move { api.wait(request).await })
            })
            .collect();
        // An answer behind them on the same connection says that they were sent.
        within("get", LIMIT, api.get(get())).await.expect("get");
        for wait in waits {
            wait.abort();
            assert!(wait.await.is_err_and(|e| e.is_cancelled()), "the wait was cut");
        }
        within("get", LIMIT, api.get(get()))
            .await
            .expect("the connection lives");
    }
}

async fn alive(d: &Daemon) {
    within("version", LIMIT, d.connect().version(v1::VersionRequest {}))
        .await
        .expect("the daemon lives");
}

/// Sends raw bytes and reads until the peer has closed or has nothing to say.
async fn raw(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.expect("connect");
    // The peer may close in the middle: that is an answer too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = within("the peer closes", LIMIT, stream.read_to_end(&mut answer)).await;
    answer
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

pub async fn cut_and_garbage_frames(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("c")).await;
    let whole = [PREFACE, SETTINGS].concat();
    for end in 0..whole.len() {
        raw(&d.socket(), &whole[..end]).await;
    }
    let garbage: Vec<u8> = (0..100_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    raw(&d.socket(), &garbage).await;
    raw(&d.socket(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw(&d.socket(), &[PREFACE, SETTINGS, &garbage].concat()).await;
    // HEADERS that promise more than comes.
    raw(
        &d.socket(),
        &[PREFACE, SETTINGS, &[0, 1, 0, 1, 4, 0, 0, 0, 1, 0x82]].concat(),
    )
    .await;
    alive(&d).await;
    assert_eq!(d.get("c").await.pid, pid);
}

/// Get on stream 1, with this as the body and all that comes.
fn get_with(body: &[u8]) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    let headers = [
        // POST, http.
        vec![0x83, 0x86],
        literal(&[0x04], "/berth.v1.Supervisor/Get"),
        literal(&[0x01], "berth"),
        literal(&[0x0f, 0x10], "application/grpc"),
        literal(b"\x00\x02te", "trailers"),
    ]
    .concat();
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = &(payload.len() as u32).to_be_bytes()[1..];
        [length, &[kind, flags], &1_u32.to_be_bytes(), payload].concat()
    };
    [PREFACE, SETTINGS, &frame(1, 4, &headers), &frame(0, 1, body)].concat()
}

/// Reads frames until the one that ends stream 1, or an answer to it is past hoping for.
async fn stream_ends(stream: &mut UnixStream) -> bool {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return false;
        }
        // HEADERS that end the stream, or RST_STREAM.
        if u32::from_be_bytes(id) == 1 && (kind == 1 && flags & 1 == 1 || kind == 3) {
            return true;
        }
    }
    false
}

/// A whole HTTP/2 request whose gRPC message is cut, or is none: it is answered, and nobody else notices.
pub async fn cut_messages(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let message = |flag: u8, length: u32, bytes: &[u8]| [&[flag], &length.to_be_bytes()[..], bytes].concat();
    let bodies = [
        vec![],
        vec![0, 0, 0],
        message(0, 100, b"\x12\x01c"),
        message(0, u32::MAX, b"\x12\x01c"),
        message(1, 3, b"\x12\x01c"),
        message(9, 3, b"\x12\x01c"),
        message(0, 4, &[0xff; 4]),
        // A string that is longer than its message, and one that is no UTF-8.
        message(0, 3, b"\x12\x09c"),
        message(0, 4, b"\x12\x02\xff\xfe"),
    ];
    for body in bodies {
        let mut stream = UnixStream::connect(d.socket()).await.expect("connect");
        stream.write_all(&get_with(&body)).await.expect("write");
        let ended = within("an answer", LIMIT, stream_ends(&mut stream)).await;
        assert!(ended, "{body:?} is not answered");
    }
    alive(&d).await;
}

/// A list that is too long for one message comes in pages.
pub async fn list_in_pages(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for id in ["a", "b", "c"] {
        d.try_create(d.sleeper(id).spec()).await.expect("create");
    }
    let page = async |after: &str| {
        let request = v1::ListRequest {
            page_size: 2,
            after: after.into(),
            ..Default::default()
        };
        let page = within("list", LIMIT, d.api().list(request)).await?.into_inner();
        let ids: Vec<_> = page.containers.into_iter().map(|c| c.id).collect();
        Ok::<_, tonic::Status>((ids.concat(), page.next))
    };
    let (first, next) = page("").await.expect("the first page");
    assert_eq!((first.as_str(), next.as_str()), ("ab", "default/b"));
    d.delete("b").await;
    let (second, next) = page(&next).await.expect("the second page");
    assert_eq!((second.as_str(), next.as_str()), ("c", ""));
    berth_e2e::assert_fails(page("no name").await, ErrorCode::InvalidArgument, &["after"]);
}

pub async fn oversized_frames(rt: Runtime) {
    let d = Daemon::start(rt).await;
    // An HTTP/2 frame that says it is 16 MiB long.
    raw(
        &d.socket(),
        &[PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[0; 1000]].concat(),
    )
    .await;
    // A gRPC message past the limit, by an honest client.
    let mut api = d.connect().max_encoding_message_size(64 << 20);
    let huge = v1::GetRequest {
        id: "x".repeat(20 << 20),
        ..Default::default()
    };
    let refused = within("get", LIMIT, api.get(huge)).await.expect_err("too large");
    assert!(
        matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{refused:?}"
    );
    alive(&d).await;
    // 1 MB is a fine message and a bad id.
    let big = v1::GetRequest {
        id: "x".repeat(1 << 20),
        ..Default::default()
    };
    berth_e2e::assert_fails(api.get(big).await, ErrorCode::InvalidArgument, &["id"]);
}

/// A shim's socket takes garbage from whoever may open it; its container goes on.
pub async fn garbage_at_the_shim(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("c")).await;
    let shim = d.folder("c").join("shim.sock");
    let mut hello = b"BERTH\0".to_vec();
    hello.extend([0, 1, 0, 1, 2, 0]);
    hello.extend([0; 8]);
    let frame = |len: u32, kind: u8| [&len.to_be_bytes()[..], &1_u32.to_be_bytes(), &[kind, 0]].concat();
    for end in 0..hello.len() {
        raw(&shim, &hello[..end]).await;
    }
    raw(&shim, &[0xff; 4096]).await;
    raw(&shim, &[&hello[..], &frame(10, 1)[..5]].concat()).await;
    raw(&shim, &[&hello[..], &frame(10, 1), &[0xff; 10]].concat()).await;
    raw(&shim, &[&hello[..], &frame(u32::MAX, 1), &[0; 100]].concat()).await;
    raw(&shim, &[&hello[..], &frame(0, 9)].concat()).await;
    let c = d.get("c").await;
    assert_eq!((c.pid, c.state()), (pid, v1::ContainerState::Running));
    d.exec("c", "e", "exit 3").await;
    assert_eq!(d.wait_exec("c", "e").await.code, 3);
}

/// Of two clients exactly one gets the id, and it gets it whole.
pub async fn two_clients_create_one_id(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for round in 0..10 {
        let (a, b) = (d.sleeper(&format!("a{round}")), d.sleeper(&format!("b{round}")));
        let run = |bundle: &berth_e2e::Bundle| {
            let spec = v1::ContainerSpec {
                id: "one".into(),
                ..bundle.spec()
            };
            let (mut api, request) = (
                d.connect(),
                v1::RunRequest {
                    container: Some(spec),
                    ..Default::default()
                },
            );
            async move { api.run(request).await }
        };
        let (first, second) = tokio::join!(run(&a), run(&b));
        let (won, lost) = if first.is_ok() {
            (first, second)
        } else {
            (second, first)
        };
        let won = won.expect("one wins").into_inner();
        berth_e2e::assert_fails(lost, ErrorCode::AlreadyExists, &["one"]);
        assert_eq!(d.get("one").await.pid, won.pid);
        d.delete("one").await;
    }
}

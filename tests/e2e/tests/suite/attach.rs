//! Attach: many at once, input, terminal, resuming by offset, losses marked.
use berth_e2e::calls::log;
use berth_e2e::v1::attach_request::Action;
use berth_e2e::v1::attach_response::Event;
use berth_e2e::v1::{self, AttachOpen, AttachRequest, ErrorCode, StdioLog};
use berth_e2e::{Daemon, LIMIT, Runtime, assert_fails, on_all, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

on_all!(
    input_and_output,
    many_at_once,
    resumes_by_offset,
    resumes_across_daemon_restart,
    loss_is_marked,
    slow_reader_stalls_nobody,
    terminal_and_resize,
    attach_to_an_exec,
    needs_open_first_and_kept_stdio,
);

struct Session {
    send: mpsc::Sender<AttachRequest>,
    from: Streaming<v1::AttachResponse>,
    opened: v1::AttachOpened,
    bytes: Vec<u8>,
    lost: u64,
    exit: Option<v1::ExitStatus>,
}

impl Session {
    async fn try_open(d: &Daemon, open: AttachOpen) -> Result<Session, Status> {
        let (send, receive) = mpsc::channel(16);
        send.send(AttachRequest {
            action: Some(Action::Open(open)),
        })
        .await
        .expect("open");
        let mut from = d.api().attach(ReceiverStream::new(receive)).await?.into_inner();
        let first = within("opened", LIMIT, from.message()).await?.expect("an answer");
        let Some(Event::Opened(opened)) = first.event else {
            panic!("the first answer is opened: {first:?}")
        };
        Ok(Session {
            send,
            from,
            opened,
            bytes: Vec::new(),
            lost: 0,
            exit: None,
        })
    }

    async fn open(d: &Daemon, id: &str, offset: Option<u64>) -> Session {
        Session::try_open(
            d,
            AttachOpen {
                id: id.into(),
                offset,
                ..Default::default()
            },
        )
        .await
        .expect("attach")
    }

    async fn act(&self, action: Action) {
        self.send
            .send(AttachRequest { action: Some(action) })
            .await
            .expect("send");
    }

    /// Where the next byte is.
    fn position(&self) -> u64 {
        self.opened.offset + self.bytes.len() as u64 + self.lost
    }

    /// One more answer; false at the end.
    async fn next(&mut self) -> bool {
        let Some(answer) = within("output", LIMIT, self.from.message())
            .await
            .expect("attach goes on")
        else {
            return false;
        };
        match answer.event.expect("an event") {
            Event::Opened(_) => panic!("opened twice"),
            Event::Output(chunk) => {
                assert_eq!(chunk.offset, self.position(), "offsets have no hole that is not told");
                self.bytes.extend_from_slice(&chunk.data);
            }
            Event::LostBytes(n) => self.lost += n,
            Event::Exit(exit) => self.exit = Some(exit),
        }
        true
    }

    async fn until_bytes(&mut self, end: &[u8]) {
        while !self.bytes.ends_with(end) {
            assert!(
                self.next().await,
                "ended before {:?}: {:?}",
                String::from_utf8_lossy(end),
                String::from_utf8_lossy(&self.bytes)
            );
        }
    }

    async fn finish(&mut self) -> v1::ExitStatus {
        while self.exit.is_none() {
            assert!(self.next().await, "the exit is the last message");
        }
        assert!(!self.next().await, "nothing comes after the exit");
        self.exit.clone().expect("exit")
    }
}

fn open_stdin() -> v1::Stdio {
    log(StdioLog {
        stdin: true,
        ..Default::default()
    })
}

pub async fn input_and_output(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sh("cat", "cat; echo eof; exit 5").stdio(open_stdin())).await;
    let mut s = Session::open(&d, "cat", Some(0)).await;
    assert!(!s.opened.terminal);
    s.act(Action::Stdin(b"hello\n".to_vec().into())).await;
    s.until_bytes(b"hello\n").await;
    let big: Vec<u8> = (0..300_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
    s.act(Action::Stdin(big.clone().into())).await;
    s.act(Action::CloseStdin(true)).await;
    assert_eq!(s.finish().await.code, 5);
    let mut expected = b"hello\n".to_vec();
    expected.extend(big);
    expected.extend(b"eof\n");
    // More than the window holds may be lost to a slow reader, and then it is told.
    assert_eq!(s.position(), expected.len() as u64);
    assert!(s.lost > 0 || s.bytes == expected, "{} bytes", s.bytes.len());
    assert_eq!(d.logs("cat").await.len(), expected.len(), "the log has it too");
}

/// Ten sessions see the same bytes and the same end.
pub async fn many_at_once(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "many",
        "while [ ! -e /out/go ]; do sleep 0.02; done; seq 1 1000; exit 3",
    );
    d.run(&b).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(Session::open(&d, "many", Some(0)).await);
    }
    std::fs::write(b.out("go"), "").expect("go");
    let expected: Vec<u8> = (1..=1000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    for mut s in sessions {
        assert_eq!(s.finish().await.code, 3);
        assert!(s.bytes == expected, "{} bytes, {} lost", s.bytes.len(), s.lost);
    }
}

pub async fn resumes_by_offset(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "res",
        "echo first; while [ ! -e /out/go ]; do sleep 0.02; done; echo second",
    );
    d.run(&b).await;
    let mut one = Session::open(&d, "res", Some(0)).await;
    one.until_bytes(b"first\n").await;
    let offset = one.position();
    drop(one);
    std::fs::write(b.out("go"), "").expect("go");
    d.wait("res").await;
    let mut two = Session::open(&d, "res", Some(offset)).await;
    two.finish().await;
    assert_eq!(two.bytes, b"second\n");
    let mut live = Session::open(&d, "res", None).await;
    live.finish().await;
    assert_eq!(live.bytes, b"", "without an offset only what comes from now on");
}

/// The daemon dies under an attached client: by its offset nothing is lost.
pub async fn resumes_across_daemon_restart(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("re", "echo first; while [ ! -e /out/go ]; do sleep 0.02; done; echo second; echo x > /out/did; while [ ! -e /out/die ]; do sleep 0.02; done");
    d.run(&b).await;
    let mut one = Session::open(&d, "re", Some(0)).await;
    one.until_bytes(b"first\n").await;
    d.kill();
    std::fs::write(b.out("go"), "").expect("go");
    b.line("did").await;
    d.restart().await;
    let mut two = Session::open(&d, "re", Some(one.position())).await;
    two.until_bytes(b"second\n").await;
    std::fs::write(b.out("die"), "").expect("die");
    two.finish().await;
    assert_eq!(two.bytes, b"second\n");
}

/// What left the window is counted, not passed over.
pub async fn loss_is_marked(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("lost", "head -c 20000000 /dev/zero")).await;
    let mut s = Session::open(&d, "lost", Some(0)).await;
    s.finish().await;
    assert!(s.lost > 0, "no window holds 20 MB");
    assert_eq!(s.position(), 20_000_000);
}

/// A session that reads nothing holds up neither the container nor the others.
pub async fn slow_reader_stalls_nobody(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "slow",
        "while [ ! -e /out/go ]; do sleep 0.02; done; head -c 50000000 /dev/zero; exit 2",
    );
    d.run(&b).await;
    let mut lazy = Session::open(&d, "slow", Some(0)).await;
    std::fs::write(b.out("go"), "").expect("go");
    assert_eq!(d.wait("slow").await.code, 2);
    assert_eq!(lazy.finish().await.code, 2);
    assert_eq!(lazy.position(), 50_000_000);
}

pub async fn terminal_and_resize(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d
        .sh(
            "tty",
            "trap 'stty size' WINCH; trap 'exit 77' INT; stty size; while :; do read l && echo \"got $l\"; done",
        )
        .stdio(open_stdin())
        .terminal();
    d.run(&b).await;
    let mut s = Session::open(&d, "tty", Some(0)).await;
    assert!(s.opened.terminal);
    s.until_bytes(b"24 80\r\n").await;
    s.act(Action::Resize(v1::TerminalSize { width: 99, height: 44 })).await;
    s.act(Action::Stdin(b"word\n".to_vec().into())).await;
    s.until_bytes(b"got word\r\n").await;
    assert!(
        String::from_utf8_lossy(&s.bytes).contains("44 99"),
        "{:?}",
        String::from_utf8_lossy(&s.bytes)
    );
    // Ctrl-C is the terminal's to turn into a signal.
    s.act(Action::Stdin(b"\x03".to_vec().into())).await;
    assert_eq!(s.finish().await.code, 77);
}

pub async fn attach_to_an_exec(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    let request = v1::ExecRequest {
        stdio: Some(v1::Stdio {
            terminal: true,
            ..open_stdin()
        }),
        ..berth_e2e::calls::exec_request("c", "sh", &["/bin/sh", "-c", "read l; echo \"<$l>\"; exit 9"])
    };
    d.try_exec(request).await.expect("exec");
    let open = AttachOpen {
        id: "c".into(),
        exec_id: "sh".into(),
        offset: Some(0),
        ..Default::default()
    };
    let mut s = Session::try_open(&d, open).await.expect("attach");
    assert!(s.opened.terminal);
    s.act(Action::Stdin(b"hi\n".to_vec().into())).await;
    assert_eq!(s.finish().await.code, 9);
    assert!(
        s.bytes.ends_with(b"<hi>\r\n"),
        "{:?}",
        String::from_utf8_lossy(&s.bytes)
    );
}

pub async fn needs_open_first_and_kept_stdio(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("null").stdio(berth_e2e::calls::null())).await;
    let open = |id: &str| AttachOpen {
        id: id.into(),
        ..Default::default()
    };
    assert_fails(
        Session::try_open(&d, open("null")).await.map(|_| ()),
        ErrorCode::WrongState,
        &["null"],
    );
    assert_fails(
        Session::try_open(&d, open("nobody")).await.map(|_| ()),
        ErrorCode::NotFound,
        &["nobody"],
    );
    let first = AttachRequest {
        action: Some(Action::CloseStdin(true)),
    };
    let refused = async {
        d.api()
            .attach(tokio_stream::iter([first]))
            .await?
            .into_inner()
            .message()
            .await
    };
    assert_fails(
        within("attach", LIMIT, refused).await,
        ErrorCode::InvalidArgument,
        &["open"],
    );
}

//! Null, FIFOs and terminals: every byte, in order, whatever the reader does.
use berth_e2e::calls::null;
use berth_e2e::v1::{self, ErrorCode, stdio};
use berth_e2e::{Bundle, Daemon, LIMIT, Runtime, assert_fails, fifo, on_all, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_all!(
    null_is_empty_and_silent,
    fifo_both_ways,
    fifo_bytes_are_intact,
    fifo_reader_dies_and_returns,
    fifo_without_stdin,
    fifo_grandchild_holds_the_pipe,
    close_stdin_of_a_fifo,
    terminal_by_fifo,
    terminal_must_agree,
    fifos_are_the_callers,
);

/// Nothing to read, nowhere to write, no error either.
pub async fn null_is_empty_and_silent(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d
        .sh("null", "cat > /out/in; echo lost; echo lost >&2; exit 3")
        .stdio(null());
    assert_eq!(d.run_to_end(&b).await.code, 3);
    assert_eq!(std::fs::read(b.out("in")).expect("in"), b"");
    assert!(d.get("null").await.log_path.is_empty());
}

pub async fn fifo_both_ways(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "both");
    let (out, err) = (fifo::reader(&f.stdout), fifo::reader(&f.stderr));
    d.run(
        &d.sh(
            "both",
            "while read l; do echo \"<$l>\"; echo \"!$l\" >&2; done; exit 12",
        )
        .stdio(f.stdio()),
    )
    .await;
    let mut stdin = fifo::writer(&f.stdin).await;
    stdin.write_all(b"one\ntwo\n").await.expect("write");
    drop(stdin);
    // Another writer may come until the caller says that none will.
    let mut again = fifo::writer(&f.stdin).await;
    again.write_all(b"three\n").await.expect("write");
    drop(again);
    d.api().close_stdin(close("both")).await.expect("close stdin");
    assert_eq!(fifo::read_all(out, ended(&d, "both")).await, b"<one>\n<two>\n<three>\n");
    assert_eq!(fifo::read_all(err, ended(&d, "both")).await, b"!one\n!two\n!three\n");
    assert_eq!(d.wait("both").await.code, 12);
}

async fn ended(d: &Daemon, id: &str) {
    d.wait(id).await;
}

/// 2^n - 1, 2^n and 2^n + 1 bytes of everything a byte can be, up to well past a pipe's 64 KiB.
pub async fn fifo_bytes_are_intact(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for n in [0_u32, 4, 8, 12, 16, 20, 22] {
        for size in [(1_usize << n) - 1, 1 << n, (1 << n) + 1] {
            let id = format!("size-{size}-{n}");
            let bytes: Vec<u8> = (0..size).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
            let b = d.sh(&id, "cat /out/data");
            std::fs::write(b.out("data"), &bytes).expect("data");
            let f = fifo::Fifos::new(&d.dir, &id);
            let out = fifo::reader(&f.stdout);
            d.run(&b.stdio(f.stdout_only())).await;
            let read = within("all bytes", LIMIT, fifo::read_all(out, ended(&d, &id))).await;
            assert!(read == bytes, "{size} bytes came as {}", read.len());
            d.delete(&id).await;
        }
    }
}

/// The reader goes away in the middle and another comes: the container waits and nothing between is lost.
pub async fn fifo_reader_dies_and_returns(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "back");
    let mut first = fifo::reader(&f.stdout);
    d.run(&d.sh("back", "seq 1 200000").stdio(f.stdout_only())).await;
    let mut got = vec![0; 1000];
    within("first bytes", LIMIT, first.read_exact(&mut got))
        .await
        .expect("read");
    drop(first);
    let second = fifo::reader(&f.stdout);
    let rest = within("the rest", LIMIT, fifo::read_all(second, ended(&d, "back"))).await;
    let expected: Vec<u8> = (1..=200_000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    assert!(expected.starts_with(&got));
    // What sat in the pipe itself when its reader closed it is the kernel's to keep or drop: it kept it if we hold it open too.
    assert!(expected.ends_with(&rest), "{} of {} bytes", rest.len(), expected.len());
    assert_eq!(got.len() + rest.len(), expected.len(), "nothing between is lost");
}

/// An unset path is null.
pub async fn fifo_without_stdin(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "out");
    let out = fifo::reader(&f.stdout);
    d.run(&d.sh("out", "cat; echo done; echo nowhere >&2").stdio(f.stdout_only()))
        .await;
    assert_eq!(fifo::read_all(out, ended(&d, "out")).await, b"done\n");
}

/// A process outside the container's own tree of exits that keeps the pipe open delays the exit only by a bound.
pub async fn fifo_grandchild_holds_the_pipe(rt: Runtime) {
    let d = Daemon::start(rt).await;
    // Without a pid namespace the grandchild outlives the init.
    let b = d
        .sh(
            "held",
            "sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & echo last; exit 7",
        )
        .edit(|c| {
            let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|n| n["type"] != "pid");
        });
    let f = fifo::Fifos::new(&d.dir, "held");
    let out = fifo::reader(&f.stdout);
    d.run(&b.stdio(f.stdout_only())).await;
    assert_eq!(d.wait("held").await.code, 7);
    let read = within("the output", LIMIT, fifo::read_all(out, async {})).await;
    assert_eq!(read, b"last\n");
}

fn close(id: &str) -> v1::CloseStdinRequest {
    v1::CloseStdinRequest {
        id: id.into(),
        ..Default::default()
    }
}

/// After CloseStdin the input ends as soon as the caller's own end is closed, and not before it was read.
pub async fn close_stdin_of_a_fifo(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "shut");
    let mut out = fifo::reader(&f.stdout);
    d.run(&d.sh("shut", "cat; echo EOF").stdio(f.stdio())).await;
    let mut stdin = fifo::writer(&f.stdin).await;
    stdin.write_all(b"in\n").await.expect("write");
    let mut seen = [0; 3];
    within("the echo", LIMIT, out.read_exact(&mut seen))
        .await
        .expect("read");
    assert_eq!(&seen, b"in\n");
    d.api().close_stdin(close("shut")).await.expect("close stdin");
    stdin.write_all(b"more\n").await.expect("write");
    drop(stdin);
    assert_eq!(fifo::read_all(out, ended(&d, "shut")).await, b"more\nEOF\n");
    assert_fails(
        d.api().close_stdin(close("shut")).await,
        ErrorCode::WrongState,
        &["shut"],
    );
}

/// A terminal whose other end is the caller's FIFO: size, resize, one stream.
pub async fn terminal_by_fifo(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "tty");
    let stdio = v1::Stdio {
        width: 100,
        height: 30,
        ..f.stdio()
    };
    let line = "test -t 0 && test -t 1 && test -t 2 && stty size > /out/size; trap 'stty size > /out/resized' WINCH; echo up > /out/up; while [ ! -s /out/resized ]; do sleep 0.05; done; echo bye";
    let b = d.sh("tty", line).stdio(stdio).terminal();
    let out = fifo::reader(&f.stdout);
    d.run(&b).await;
    assert_eq!(b.line("size").await, "30 100");
    b.line("up").await;
    let resize = v1::ResizeTerminalRequest {
        id: "tty".into(),
        width: 132,
        height: 50,
        ..Default::default()
    };
    d.api().resize_terminal(resize).await.expect("resize");
    assert_eq!(b.line("resized").await, "50 132");
    assert_eq!(fifo::read_all(out, ended(&d, "tty")).await, b"bye\r\n");
}

/// The request's terminal and config.json's must be one.
pub async fn terminal_must_agree(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("agree", "exit 0");
    let stdio = v1::Stdio {
        terminal: true,
        ..null()
    };
    let spec = v1::ContainerSpec {
        stdio: Some(stdio),
        ..b.spec()
    };
    assert_fails(d.try_run(spec).await, ErrorCode::Bundle, &["terminal"]);
    let b = b.terminal();
    let spec = v1::ContainerSpec {
        stdio: Some(null()),
        ..b.spec()
    };
    assert_fails(d.try_run(spec).await, ErrorCode::Bundle, &["terminal"]);
    let plain = d.sleeper("plain");
    d.run(&plain).await;
    let resize = v1::ResizeTerminalRequest {
        id: "plain".into(),
        width: 80,
        height: 24,
        ..Default::default()
    };
    assert_fails(
        d.api().resize_terminal(resize).await,
        ErrorCode::WrongState,
        &["terminal"],
    );
    let resize = v1::ResizeTerminalRequest {
        id: "plain".into(),
        width: 0,
        height: 24,
        ..Default::default()
    };
    assert_fails(
        d.api().resize_terminal(resize).await,
        ErrorCode::InvalidArgument,
        &["width"],
    );
}

/// The caller's FIFOs are opened, never made and never removed.
pub async fn fifos_are_the_callers(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let f = fifo::Fifos::new(&d.dir, "mine");
    let out = fifo::reader(&f.stdout);
    d.run(&d.sh("mine", "echo x").stdio(f.stdout_only())).await;
    fifo::read_all(out, ended(&d, "mine")).await;
    d.delete("mine").await;
    for path in [&f.stdin, &f.stdout, &f.stderr] {
        assert!(path.exists());
    }
    let file = d.dir.join("regular");
    std::fs::write(&file, "").expect("file");
    let to = v1::StdioFifo {
        stdout: file.to_str().expect("utf-8").into(),
        ..Default::default()
    };
    let b: Bundle = d.sh("file", "echo x").stdio(v1::Stdio {
        to: Some(stdio::To::Fifo(to)),
        ..Default::default()
    });
    assert_fails(d.try_run(b.spec()).await, ErrorCode::InvalidArgument, &["regular"]);
    until("nothing of it is left", || (!d.folder("file").exists()).then_some(())).await;
}

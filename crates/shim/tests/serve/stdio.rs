//! Null, FIFOs, terminals, logs, attach.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use berth_core::ErrorCode;
use berth_wire::hello::Hello;
use berth_wire::rpc::Method;
use berth_wire::shim::{
    AttachInput, AttachOutput, AttachRequest, CloseStdinRequest, CloseStdinResponse, ExecOverrides, ExecRequest,
    ExecResponse, Fifo, Log, ResizeRequest, ResizeResponse, SignalRequest, SignalResponse, Stdio, stdio::To,
};
use berth_wire::ttrpc::Kind;
use prost::Message;

use crate::harness::{Box, Client, PATIENCE, each, log, null, to, until};

fn fifo(it: &Box, name: &str) -> PathBuf {
    let path = it.dir.join(name);
    let folder = berth_sys::dir::open(&it.dir).unwrap();
    berth_sys::fifo::make_at(&folder, name, 0o600).unwrap();
    path
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().into()
}

#[test]
fn a_log_has_every_line_of_both_streams() {
    each(|it| {
        it.shell("for i in $(seq 1 2000); do echo out $i; echo err $i >&2; done; printf tail");
        let stdio = to(To::Log(log(it)));
        it.run(stdio);
        assert_eq!(it.exit().code, 0);
        let log = it.log();
        for stream in ["stdout", "stderr"] {
            let lines = log.lines().filter(|line| line.contains(&format!(" {stream} F ")));
            let wanted = if stream == "stdout" { "out" } else { "err" };
            assert!(
                lines
                    .filter(|l| l.contains(wanted))
                    .map(|l| l.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
                    .eq(1..=2000)
            );
        }
        assert!(
            log.trim_end().ends_with("stdout P tail") || log.contains(" stdout P tail"),
            "{}",
            &log[log.len() - 200..]
        );
    });
}

#[test]
fn a_fifo_is_the_containers_own() {
    each(|it| {
        let (stdin, stdout, stderr) = (fifo(it, "in"), fifo(it, "out"), fifo(it, "err"));
        it.shell("echo begin; cat; echo end >&2");
        let spec = Fifo {
            stdin: text(&stdin),
            stdout: text(&stdout),
            stderr: text(&stderr),
            ..Fifo::default()
        };
        // Nobody has opened them yet, and nothing waits for that.
        it.run(to(To::Fifo(spec)));
        let mut reader = File::open(&stdout).unwrap();
        let mut begin = [0; 6];
        reader.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"begin\n");
        // A reader that dies breaks nothing, and one that comes and goes ends no input.
        drop(reader);
        for word in ["one\n", "two\n"] {
            OpenOptions::new()
                .write(true)
                .open(&stdin)
                .unwrap()
                .write_all(word.as_bytes())
                .unwrap();
        }
        let mut reader = OpenOptions::new().read(true).custom_flags(0).open(&stdout).unwrap();
        let _: CloseStdinResponse = it.conn.call(Method::CloseStdin, &CloseStdinRequest::default()).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "one\ntwo\n");
        assert_eq!(it.exit().code, 0);
        // What was written is there for whoever comes late, also by an open that waits for a writer.
        assert_eq!(read_late(&stderr), "end\n");
        for path in [stdin, stdout, stderr] {
            assert!(path.exists());
        }
    });
}

/// All that is in a FIFO until its end, as a client reads it whose open waits for a writer.
fn read_late(path: &Path) -> String {
    let path = path.to_owned();
    let (told, all) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        let _ = told.send(text);
    });
    // A thread that waits for ever ends with the test.
    let all = all
        .recv_timeout(PATIENCE)
        .expect("the FIFO is opened and read to its end");
    reader.join().unwrap();
    all
}

fn exec(id: &str, stdio: Stdio, line: &str) -> ExecRequest {
    ExecRequest {
        exec_id: id.into(),
        overrides: Some(ExecOverrides {
            args: vec!["/bin/sh".into(), "-c".into(), line.into()],
            ..ExecOverrides::default()
        }),
        stdio: Some(stdio),
        ..ExecRequest::default()
    }
}

#[test]
fn whoever_reads_a_fifo_after_the_end_gets_it_whole() {
    each(|it| {
        let only = |out: &Path| {
            to(To::Fifo(Fifo {
                stdout: text(out),
                ..Fifo::default()
            }))
        };
        let whole = fifo(it, "init");
        it.shell("head -c 65536 /dev/zero; sleep 1000");
        it.run(only(&whole));
        let terminal = Stdio {
            terminal: true,
            ..only(&fifo(it, "terminal"))
        };
        let many = (0..8).map(|n| format!("e{n}")).collect::<Vec<_>>();
        let mut asked: Vec<_> = many
            .iter()
            .map(|id| exec(id, only(&fifo(it, id)), &format!("echo {id}")))
            .collect();
        asked.push(exec("terminal", terminal, "echo typed"));
        asked.push(exec("mute", only(&fifo(it, "mute")), ":"));
        // All at once: a creator has copies of what was held for others that end meanwhile.
        let mut calls: Vec<(u32, Client)> = Vec::new();
        for request in &asked {
            let mut client = it.connect();
            client.greet(Hello::daemon(1)).unwrap();
            calls.push((client.send(Method::Exec, request), client));
        }
        for (call, client) in &mut calls {
            let _: ExecResponse = client.answer(*call).unwrap();
        }
        let mut ends = it.events();
        for _ in 0..many.len() + 2 {
            assert_eq!(ends.exited().exit.unwrap().code, 0);
        }
        for id in &many {
            assert_eq!(read_late(&it.dir.join(id)), format!("{id}\n"));
        }
        assert_eq!(read_late(&it.dir.join("terminal")), "typed\r\n");
        assert_eq!(read_late(&it.dir.join("mute")), "");
        let signal = SignalRequest {
            signal: 9,
            ..SignalRequest::default()
        };
        let _: SignalResponse = it.conn.call(Method::Signal, &signal).unwrap();
        assert_eq!(it.exit().code, 137);
        assert_eq!(read_late(&whole).len(), 65536);
    });
}

#[test]
fn a_fifo_that_is_none_is_refused() {
    each(|it| {
        let file = it.dir.join("file");
        fs::write(&file, "").unwrap();
        for (path, wanted) in [
            (text(&file), "not a FIFO"),
            (text(&it.dir.join("none")), "No such file"),
            ("x".into(), "absolute"),
        ] {
            let request = it.request(
                to(To::Fifo(Fifo {
                    stdout: path,
                    ..Fifo::default()
                })),
                true,
            );
            let (message, failure) = it
                .conn
                .call::<berth_wire::shim::CreateResponse>(Method::Create, &request)
                .unwrap_err();
            assert_eq!(
                ErrorCode::from_number(failure.code),
                Some(ErrorCode::InvalidArgument),
                "{message}"
            );
            assert!(message.contains(wanted), "{message}");
        }
    });
}

#[test]
fn a_terminal_through_fifos() {
    each(|it| {
        let (stdin, stdout) = (fifo(it, "in"), fifo(it, "out"));
        it.config(
            &["/bin/sh", "-c", "stty size; read line; stty size; echo got $line"],
            |config| {
                config["process"]["terminal"] = true.into();
            },
        );
        let spec = Fifo {
            stdin: text(&stdin),
            stdout: text(&stdout),
            ..Fifo::default()
        };
        let stdio = Stdio {
            to: Some(To::Fifo(spec)),
            terminal: true,
            width: 100,
            height: 30,
        };
        it.run(stdio);
        let mut reader = File::open(&stdout).unwrap();
        let mut first = [0; 8];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"30 100\r\n");
        let resize = ResizeRequest {
            width: 90,
            height: 20,
            ..ResizeRequest::default()
        };
        let _: ResizeResponse = it.conn.call(Method::Resize, &resize).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&stdin)
            .unwrap()
            .write_all(b"hello\n")
            .unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap_or_default();
        assert_eq!(rest, "hello\r\n20 90\r\ngot hello\r\n");
        assert_eq!(it.exit().code, 0);
    });
}

#[test]
fn a_terminal_that_nobody_reads_does_not_hold_the_container() {
    each(|it| {
        it.config(&["/bin/sh", "-c", "seq 1 100000; tty"], |config| {
            config["process"]["terminal"] = true.into()
        });
        it.run(Stdio {
            terminal: true,
            ..null()
        });
        assert_eq!(it.exit().code, 0);
    });
}

/// An attached client.
struct Attached {
    client: Client,
    stream: u32,
}

impl Attached {
    fn new(it: &Box, request: AttachRequest) -> (Attached, AttachOutput) {
        let mut client = it.connect();
        client.greet(Hello::tool()).unwrap();
        let stream = client.send(Method::Attach, &request);
        let mut attached = Attached { client, stream };
        let opened = attached.next().unwrap();
        assert!(opened.opened);
        (attached, opened)
    }

    /// None = the stream has ended.
    fn next(&mut self) -> Option<AttachOutput> {
        let frame = self.client.frame().expect("hung up");
        assert_eq!(frame.stream, self.stream);
        (frame.kind == Kind::Data).then(|| AttachOutput::decode(frame.body).unwrap())
    }

    fn input(&mut self, input: &AttachInput) -> std::io::Result<()> {
        self.client.data(self.stream, input)
    }

    /// Text of one stream up to the end, and the exit's code.
    fn rest(mut self, stream: u32) -> (String, u32) {
        let mut text = Vec::new();
        let mut code = None;
        while let Some(output) = self.next() {
            if output.stream == stream {
                text.extend_from_slice(&output.data);
            }
            code = output.exit.map(|exit| exit.code).or(code);
        }
        (String::from_utf8(text).unwrap(), code.expect("no exit was told"))
    }
}

#[test]
fn attached_clients_see_output_and_give_input() {
    each(|it| {
        it.shell("echo first; read a; echo second $a; cat >&2; exit 4");
        let stdio = to(To::Log(Log { stdin: true, ..log(it) }));
        it.run(stdio);
        until("the first line", || it.log().contains("first"));
        let from_begin = AttachRequest {
            offset: Some(0),
            ..AttachRequest::default()
        };
        let (mut one, opened) = Attached::new(it, from_begin.clone());
        assert_eq!((opened.offset, opened.terminal), (0, false));
        let (live, opened) = Attached::new(it, AttachRequest::default());
        assert_eq!(opened.offset, 6);
        one.input(&AttachInput {
            stdin: b"x\n".to_vec().into(),
            ..AttachInput::default()
        })
        .unwrap();
        one.input(&AttachInput {
            stdin: b"to stderr".to_vec().into(),
            ..AttachInput::default()
        })
        .unwrap();
        one.input(&AttachInput {
            close_stdin: true,
            ..AttachInput::default()
        })
        .unwrap();
        assert_eq!(one.rest(1), ("first\nsecond x\n".into(), 4));
        assert_eq!(live.rest(1), ("second x\n".into(), 4));
        let (after, _) = Attached::new(it, from_begin);
        assert_eq!(after.rest(2), ("to stderr".into(), 4));
    });
}

#[test]
fn a_terminal_in_the_log_and_attached() {
    each(|it| {
        it.config(
            &["/bin/sh", "-c", "read a; echo got $a; read b || echo end"],
            |config| {
                config["process"]["terminal"] = true.into();
            },
        );
        let stdio = Stdio {
            terminal: true,
            ..to(To::Log(Log { stdin: true, ..log(it) }))
        };
        it.run(stdio);
        let (mut one, opened) = Attached::new(
            it,
            AttachRequest {
                offset: Some(0),
                ..AttachRequest::default()
            },
        );
        assert!(opened.terminal);
        one.input(&AttachInput {
            stdin: b"hi\n".to_vec().into(),
            width: 70,
            height: 20,
            ..AttachInput::default()
        })
        .unwrap();
        one.input(&AttachInput {
            close_stdin: true,
            ..AttachInput::default()
        })
        .unwrap();
        assert_eq!(one.rest(1), ("hi\r\ngot hi\r\nend\r\n".into(), 0));
        assert!(it.log().contains("got hi"));
    });
}

#[test]
fn execs_have_stdio_of_their_own() {
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        let window = Log {
            stdin: true,
            ..Log::default()
        };
        let piped = exec("piped", to(To::Log(window.clone())), "cat; echo error >&2; exit 5");
        let _: ExecResponse = it.conn.call(Method::Exec, &piped).unwrap();
        let of = |id: &str| AttachRequest {
            exec_id: id.into(),
            offset: Some(0),
        };
        let (mut one, _) = Attached::new(it, of("piped"));
        one.input(&AttachInput {
            stdin: b"abc".to_vec().into(),
            close_stdin: true,
            ..AttachInput::default()
        })
        .unwrap();
        assert_eq!(one.rest(1), ("abc".into(), 5));
        // crun sets no size before the process runs.
        let line = r#"until [ "$(stty size 2>/dev/null)" = "11 33" ]; do :; done; stty size"#;
        let stdio = Stdio {
            terminal: true,
            width: 33,
            height: 11,
            ..to(To::Log(window))
        };
        let _: ExecResponse = it.conn.call(Method::Exec, &exec("tty", stdio, line)).unwrap();
        assert_eq!(Attached::new(it, of("tty")).0.rest(1), ("11 33\r\n".into(), 0));
        let (message, failure) = it
            .conn
            .call::<()>(Method::Attach, &AttachRequest::default())
            .unwrap_err();
        assert_eq!(
            ErrorCode::from_number(failure.code),
            Some(ErrorCode::WrongState),
            "{message}"
        );
    });
}

#[test]
fn a_client_that_does_not_read_or_is_not_read_from_stalls_nobody() {
    each(|it| {
        it.shell("dd if=/dev/zero bs=1024 count=8192 2>/dev/null; sleep 1000");
        let stdio = to(To::Log(Log { stdin: true, ..log(it) }));
        it.run(stdio);
        // This one does not read.
        let (mut deaf, _) = Attached::new(
            it,
            AttachRequest {
                offset: Some(0),
                ..AttachRequest::default()
            },
        );
        // And what it sends is not read by the container.
        deaf.client
            .socket()
            .set_write_timeout(Some(std::time::Duration::from_millis(200)))
            .unwrap();
        let block = AttachInput {
            stdin: vec![b'x'; 64 << 10].into(),
            ..AttachInput::default()
        };
        let held = (0..64).map(|_| deaf.input(&block)).find(Result::is_err);
        assert!(held.is_some(), "4 MiB were taken for a process that reads nothing");
        until("all output is in the log", || it.log().len() > 8 << 20);
        it.state();
    });
}

#[test]
fn a_stranger_that_holds_the_pipe_delays_the_exit_by_its_bound_only() {
    each(|it| {
        it.shell("echo last; read stay");
        let stdio = to(To::Log(Log { stdin: true, ..log(it) }));
        let init = it.run(stdio);
        let mut held = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/fd/1", init.pid))
            .unwrap();
        let _: CloseStdinResponse = it.conn.call(Method::CloseStdin, &CloseStdinRequest::default()).unwrap();
        assert_eq!(it.exit().code, 1);
        assert!(it.log().contains("last"));
        // What comes later is late, not lost.
        held.write_all(b"later\n").unwrap();
        until("the late line is in the log", || it.log().contains("later"));
    });
}

//! Runtimes that are not there, hang, lie or die; commands that can't be run; FIFOs; signals; wrong states.
use berth_e2e::calls::exec_request;
use berth_e2e::v1::{self, ErrorCode, StdioFifo, stdio};
use berth_e2e::{Daemon, Options, Runtime, assert_fails, fifo, on_all, on_both, proc, until};

on_both!(
    unknown_name,
    path_only_where_allowed,
    missing_binary,
    not_executable,
    hanging,
    killed,
    printing_garbage,
    silent_success_without_a_container,
    kill_fails_but_the_process_is_gone,
);

on_all!(
    last_line_is_told,
    command_not_found,
    command_not_executable,
    fifo_missing,
    fifo_without_reader,
    signals_out_of_range,
    wrong_states,
);

/// Refused, and nothing is left.
async fn refused(d: &Daemon, spec: v1::ContainerSpec, code: ErrorCode, says: &[&str]) -> v1::ErrorDetail {
    let id = spec.id.clone();
    let detail = assert_fails(d.try_run(spec).await, code, says);
    assert!(d.list().await.is_empty(), "{id} is listed");
    until("its folder is gone", || (!d.folder(&id).exists()).then_some(())).await;
    detail
}

fn on(d: &Daemon, runtime: &str) -> v1::ContainerSpec {
    v1::ContainerSpec {
        runtime: runtime.into(),
        ..d.sh("bad", "exit 0").spec()
    }
}

pub async fn unknown_name(rt: Runtime) {
    let d = Daemon::start(rt).await;
    refused(&d, on(&d, "nonesuch"), ErrorCode::InvalidArgument, &["nonesuch"]).await;
}

pub async fn path_only_where_allowed(rt: Runtime) {
    let binary = rt.binary();
    let path = binary.to_str().expect("utf-8");
    let d = Daemon::start(rt).await;
    refused(&d, on(&d, path), ErrorCode::InvalidArgument, &["path"]).await;
    let d = Options {
        runtime_keys: "allow_paths = true".into(),
        ..Options::new(rt)
    }
    .start()
    .await;
    d.try_run(on(&d, path)).await.expect("run by path");
    assert_eq!(d.wait("bad").await.code, 0);
}

pub async fn missing_binary(rt: Runtime) {
    let d = Options::new(rt)
        .config("[runtimes.gone]\npath = \"/no/such/runtime\"")
        .start()
        .await;
    refused(&d, on(&d, "gone"), ErrorCode::Runtime, &["/no/such/runtime"]).await;
    // The daemon and its good runtimes do not mind.
    d.run_to_end(&d.sh("good", "exit 0")).await;
}

pub async fn not_executable(rt: Runtime) {
    let d = Options::new(rt).script("plain", "exit 0").start().await;
    let path = d.script("plain");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
    refused(&d, on(&d, "plain"), ErrorCode::Runtime, &["plain.sh"]).await;
}

/// The deadline of one call ends it, and the runtime's processes with it.
pub async fn hanging(rt: Runtime) {
    let hang = "case \"$*\" in *' create '*) echo $$ > $DIR/pid; sleep 1000 & echo $! > $DIR/child; wait;; esac\nexec $REAL \"$@\"";
    let options = Options {
        runtime_keys: "timeout_ms = 500".into(),
        ..Options::new(rt)
    };
    let d = options.script("hang", hang).start().await;
    refused(&d, on(&d, "hang"), ErrorCode::Timeout, &["bad"]).await;
    for file in ["pid", "child"] {
        let pid: u32 = std::fs::read_to_string(d.dir.join(file))
            .expect(file)
            .trim()
            .parse()
            .expect("pid");
        until("it is killed", || (!proc::alive(pid)).then_some(())).await;
    }
    d.run_to_end(&d.sh("good", "exit 0")).await;
}

pub async fn killed(rt: Runtime) {
    let d = Options::new(rt)
        .script(
            "die",
            "case \"$*\" in *' create '*) kill -9 $$;; esac\nexec $REAL \"$@\"",
        )
        .start()
        .await;
    refused(&d, on(&d, "die"), ErrorCode::Runtime, &["killed by signal 9"]).await;
}

pub async fn printing_garbage(rt: Runtime) {
    let noise = "case \"$*\" in *' create '*) head -c 300000 /dev/urandom; head -c 300000 /dev/urandom >&2; exit 1;; esac\nexec $REAL \"$@\"";
    let d = Options::new(rt).script("noise", noise).start().await;
    refused(&d, on(&d, "noise"), ErrorCode::Runtime, &["the runtime"]).await;
    // It talks a lot and does its work: its output is drained and is no error.
    let chatty = "head -c 300000 /dev/zero >&2; exec $REAL \"$@\"";
    let d = Options::new(rt).script("chatty", chatty).start().await;
    d.try_run(on(&d, "chatty")).await.expect("run");
    assert_eq!(d.wait("bad").await.code, 0);
}

pub async fn silent_success_without_a_container(rt: Runtime) {
    let d = Options::new(rt)
        .script("lie", "case \"$*\" in *' create '*) exit 0;; esac\nexec $REAL \"$@\"")
        .start()
        .await;
    refused(&d, on(&d, "lie"), ErrorCode::Runtime, &["pid"]).await;
}

/// What the runtime itself said last is in the error.
pub async fn last_line_is_told(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0").edit(|c| {
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        mounts.push(serde_json::json!({ "destination": "/tmp/x", "type": "bind", "source": "/no/such/source", "options": ["bind"] }));
    });
    let detail = refused(&d, b.spec(), ErrorCode::Runtime, &["/no/such/source"]).await;
    assert!(detail.runtime_message.contains("/no/such/source"), "{detail:?}");
    assert_eq!((detail.operation.as_str(), detail.id.as_str()), ("run", "default/bad"));
}

pub async fn command_not_found(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for command in ["/bin/no-such-command", "no-such-command"] {
        let detail = refused(
            &d,
            d.bundle("bad", &[command]).spec(),
            ErrorCode::CommandNotFound,
            &["no-such-command"],
        )
        .await;
        assert_eq!(detail.exit_code, 127);
        assert!(
            detail.runtime_message.contains("no-such-command"),
            "the runtime's own line: {detail:?}"
        );
    }
}

pub async fn command_not_executable(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let spec = d.bundle("bad", &["/bin/not-executable"]).spec();
    let detail = refused(&d, spec, ErrorCode::CommandNotExecutable, &["ermission denied"]).await;
    assert_eq!(detail.exit_code, 126);
    assert!(!detail.runtime_message.is_empty());
}

fn fifo_stdio(stdout: &std::path::Path) -> v1::Stdio {
    let to = StdioFifo {
        stdout: stdout.to_str().expect("utf-8").into(),
        ..Default::default()
    };
    v1::Stdio {
        to: Some(stdio::To::Fifo(to)),
        ..Default::default()
    }
}

pub async fn fifo_missing(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0").stdio(fifo_stdio(&d.dir.join("no-such-fifo")));
    refused(&d, b.spec(), ErrorCode::InvalidArgument, &["no-such-fifo"]).await;
    let b = b.stdio(fifo_stdio(std::path::Path::new("relative")));
    refused(&d, b.spec(), ErrorCode::InvalidArgument, &["relative"]).await;
}

/// Nobody reads: the output waits in the pipe and the container at its write, nothing is lost, and another container does not notice.
pub async fn fifo_without_reader(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let path = d.dir.join("lonely");
    fifo::make(&path);
    let b = d
        .sh("lonely", "echo up > /out/up; seq 1 30000; exit 6")
        .stdio(fifo_stdio(&path));
    let mut api = d.api();
    let request = v1::RunRequest {
        container: Some(b.spec()),
        ..Default::default()
    };
    let run = tokio::spawn(async move { api.run(request).await });
    assert_eq!(d.run_to_end(&d.sh("good", "exit 0")).await.code, 0);
    let reader = fifo::reader(&path);
    run.await.expect("join").expect("run");
    let read = fifo::read_all(reader, async {
        d.wait("lonely").await;
    });
    let expected: Vec<u8> = (1..=30_000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    let read = read.await;
    assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
    assert_eq!(d.wait("lonely").await.code, 6);
}

pub async fn signals_out_of_range(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("c")).await;
    for signal in ["", "0", "65", "-1", "999999999999", "SIGNOPE", "9x", "\0", "sig kill"] {
        assert_fails(
            d.try_signal("c", "", signal).await,
            ErrorCode::InvalidArgument,
            &["signal"],
        );
    }
    assert!(proc::alive(pid));
    d.try_signal("c", "", "sigkill")
        .await
        .or(d.try_signal("c", "", "SIGKILL").await)
        .expect("a good one");
}

/// Each operation in each state that does not allow it.
pub async fn wrong_states(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let id = || "c".to_owned();
    let wrong = ErrorCode::WrongState;
    let pause = || v1::PauseRequest {
        id: id(),
        ..Default::default()
    };
    let resume = || v1::ResumeRequest {
        id: id(),
        ..Default::default()
    };
    let update = || v1::UpdateRequest {
        id: id(),
        resources: Some(v1::Resources {
            pids_limit: Some(10),
            ..Default::default()
        }),
        ..Default::default()
    };
    let exec = |e: &str| exec_request("c", e, &["/bin/true"]);

    d.try_create(d.sleeper("c").spec()).await.expect("create");
    assert_fails(d.try_exec(exec("early")).await, wrong, &["default/c", "not started"]);
    assert_fails(d.api().pause(pause()).await, wrong, &["default/c", "not started"]);
    assert_fails(d.api().resume(resume()).await, wrong, &["c"]);
    assert_fails(d.try_delete("c", false).await, wrong, &["c"]);
    d.try_start("c").await.expect("start");
    assert_fails(d.api().resume(resume()).await, wrong, &["default/c"]);
    assert_fails(d.try_start("c").await, wrong, &["default/c"]);
    assert_fails(d.try_delete("c", false).await, wrong, &["default/c", "running"]);
    d.api().pause(pause()).await.expect("pause");
    assert_fails(d.api().pause(pause()).await, wrong, &["default/c", "already paused"]);
    assert_fails(d.try_start("c").await, wrong, &["default/c"]);
    assert_fails(d.try_exec(exec("cold")).await, wrong, &["default/c"]);
    assert_fails(d.try_delete("c", false).await, wrong, &["default/c"]);
    d.api().resume(resume()).await.expect("resume");
    d.signal("c", "KILL").await;
    d.wait("c").await;
    assert_fails(d.try_start("c").await, wrong, &["default/c"]);
    assert_fails(d.try_exec(exec("late")).await, wrong, &["default/c"]);
    assert_fails(d.api().pause(pause()).await, wrong, &["default/c"]);
    assert_fails(d.api().resume(resume()).await, wrong, &["default/c"]);
    assert_fails(d.api().update(update()).await, wrong, &["default/c"]);
    assert_fails(d.try_signal("c", "", "TERM").await, wrong, &["default/c"]);
    assert_fails(d.try_signal("c", "", "KILL").await, wrong, &["default/c"]);
    let close = v1::CloseStdinRequest {
        id: id(),
        ..Default::default()
    };
    assert_fails(d.api().close_stdin(close).await, wrong, &["default/c"]);
    let resize = v1::ResizeTerminalRequest {
        id: id(),
        width: 80,
        height: 25,
        ..Default::default()
    };
    assert_fails(d.api().resize_terminal(resize).await, wrong, &["default/c"]);
}

/// A runtime whose `kill` always fails can't keep a container from being deleted.
pub async fn kill_fails_but_the_process_is_gone(rt: Runtime) {
    let d = Options::new(rt)
        .script("nokill", "case \"$*\" in *' kill '*) exit 1;; esac\nexec $REAL \"$@\"")
        .start()
        .await;
    let pid = d
        .try_run(v1::ContainerSpec {
            runtime: "nokill".into(),
            ..d.sleeper("c").spec()
        })
        .await
        .expect("run")
        .pid;
    d.delete("c").await;
    assert!(!proc::alive(pid));
    assert!(!d.folder("c").exists());
}

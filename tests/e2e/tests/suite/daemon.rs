//! The daemon as a program: its flags, its file, its signals, and the services beside its own.
use berth_e2e::daemon::{binary, temporary};
use berth_e2e::v1;
use berth_e2e::{Daemon, LIMIT, Options, Runtime, eventually, on_all, proc, until, within};
use rustix::process::Signal;
use std::process::{Command, Output};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_all!(
    second_daemon_is_refused,
    health_and_reflection,
    metrics,
    dump_of_live_calls,
    reload,
    modes_of_files,
    socket_activation,
    systemd_notify_and_watchdog,
    without_template
);

fn berthd(args: &[&str]) -> Output {
    Command::new(binary("berthd")).args(args).output().expect("berthd")
}

/// One daemon a state folder, and the second says who has it.
async fn second_daemon_is_refused(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let output = d.command().output().expect("berthd");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(d.state().to_str().expect("utf-8")), "{text}");
    within("version", LIMIT, d.api().version(v1::VersionRequest {}))
        .await
        .expect("the first does not mind");
}

/// What `config default` prints, `config check` accepts; an unknown key is named with the nearest known one.
#[test]
fn config_default_and_check() {
    let output = berthd(&["config", "default"]);
    assert!(output.status.success());
    let dir = temporary("config");
    let file = dir.join("config.toml");
    std::fs::write(&file, &output.stdout).expect("write");
    let path = file.to_str().expect("utf-8");
    let check = berthd(&["config", "check", path]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    std::fs::write(&file, "[start]\nconcurency = 3\n").expect("write");
    let check = berthd(&["config", "check", path]);
    assert!(!check.status.success());
    let text = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("concurency") && text.contains("concurrency"), "{text}");
    let run = berthd(&["--config", path, "--state", dir.join("s").to_str().expect("utf-8")]);
    assert!(!run.status.success(), "and the daemon does not start on it");
    std::fs::remove_dir_all(dir).expect("remove");
}

async fn health_and_reflection(rt: Runtime) {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let d = Daemon::start(rt).await;
    for service in ["", "berth.v1.Supervisor"] {
        let mut health = HealthClient::new(d.channel());
        eventually("SERVING", || {
            let (mut health, request) = (health.clone(), HealthCheckRequest { service: service.into() });
            async move { (health.check(request).await.ok()?.into_inner().status() == ServingStatus::Serving).then_some(()) }
        })
        .await;
        let unknown = HealthCheckRequest {
            service: "no.such.Service".into(),
        };
        assert_eq!(
            health.check(unknown).await.expect_err("unknown").code(),
            tonic::Code::NotFound
        );
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut stream = ServerReflectionClient::new(d.channel())
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .expect("reflection")
        .into_inner();
    let answer = within("reflection", LIMIT, stream.message())
        .await
        .expect("reflection")
        .expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("a list: {answer:?}")
    };
    assert!(list.service.iter().any(|s| s.name == "berth.v1.Supervisor"), "{list:?}");
}

/// Prometheus text on a socket of its own: starts, exits by kind, the queue.
async fn metrics(rt: Runtime) {
    let dir = temporary("metrics");
    let socket = dir.join("m.sock");
    let d = Options::new(rt)
        .config(&format!("[daemon]\nmetrics_address = \"unix:{}\"", socket.display()))
        .start()
        .await;
    d.run_to_end(&d.sh("a", "exit 0")).await;
    until("the metrics socket", || socket.exists().then_some(())).await;
    let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("connect");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n")
        .await
        .expect("write");
    let mut text = String::new();
    within("metrics", LIMIT, stream.read_to_string(&mut text))
        .await
        .expect("read");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for part in ["# TYPE", "start", "exit", "queue", "_bucket{"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    drop(d);
    std::fs::remove_dir_all(dir).expect("remove");
}

/// SIGUSR1 writes every live call with its age to the log, and all goes on.
async fn dump_of_live_calls(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("dumped")).await;
    let mut api = d.connect();
    let wait = tokio::spawn(async move {
        api.wait(v1::WaitRequest {
            id: "dumped".into(),
            ..Default::default()
        })
        .await
    });
    eventually("the dump names the wait", || async {
        proc::kill(d.pid(), Signal::USR1);
        d.get("dumped").await;
        let log = d.log();
        log.lines()
            .any(|l| l.to_lowercase().contains("wait") && l.contains("dumped"))
            .then_some(())
    })
    .await;
    d.signal("dumped", "KILL").await;
    within("the wait", LIMIT, wait).await.expect("join").expect("wait");
}

/// SIGHUP with a broken file keeps what was, and says so; the daemon goes on.
async fn reload(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let config = d.dir.join("config.toml");
    let good = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, "[start]\nconcurency = 1\n").expect("write");
    proc::kill(d.pid(), Signal::HUP);
    until("the log names the key", || d.log().contains("concurency").then_some(())).await;
    d.run_to_end(&d.sh("a", "exit 0")).await;
    std::fs::write(&config, good + "\n[stop]\ntimeout_ms = 4321\n").expect("write");
    proc::kill(d.pid(), Signal::HUP);
    eventually("a container gets the new stop timeout", || async {
        d.run_to_end(&d.sh("b", "exit 0")).await;
        let timeout = d.get("b").await.stop_timeout_ms;
        d.delete("b").await;
        (timeout == 4321).then_some(())
    })
    .await;
}

/// A reload that is asked for before the daemon has read its file for the first time does not end it.
#[tokio::test]
async fn an_early_reload_is_no_end() {
    let dir = temporary("early");
    let (config, plain) = (dir.join("config.toml"), dir.join("plain"));
    berth_e2e::fifo::make(&config);
    std::fs::write(&plain, "").expect("config");
    let mut daemon = Command::new(binary("berthd"))
        .arg("--config")
        .arg(&config)
        .arg("--address")
        .arg(dir.join("s.sock"))
        .arg("--state")
        .arg(dir.join("state"))
        .arg("--root")
        .arg(dir.join("root"))
        .spawn()
        .expect("berthd");
    // Opens as soon as the daemon does.
    let writer = std::fs::File::options()
        .write(true)
        .open(&config)
        .expect("the daemon reads");
    proc::kill(daemon.id(), Signal::HUP);
    proc::kill(daemon.id(), Signal::USR1);
    std::fs::rename(&plain, &config).expect("a plain file for the reload");
    drop(writer);
    until("it serves", || {
        if let Some(status) = daemon.try_wait().expect("wait") {
            panic!("berthd ended: {status}");
        }
        std::os::unix::net::UnixStream::connect(dir.join("s.sock")).ok()
    })
    .await;
    proc::kill(daemon.id(), Signal::TERM);
    until("it ended", || daemon.try_wait().expect("wait")).await;
    std::fs::remove_dir_all(dir).expect("remove");
}

/// Whatever the umask: folders 0711 and 0700, sockets 0660 and 0600, the rest 0600.
async fn modes_of_files(rt: Runtime) {
    use std::os::unix::fs::PermissionsExt;
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("m")).await;
    let mode = |p: std::path::PathBuf| {
        p.metadata()
            .unwrap_or_else(|e| panic!("{}: {e}", p.display()))
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode(d.state()), 0o711);
    assert_eq!(mode(d.socket()), 0o660);
    assert_eq!(mode(d.folder("m")), 0o700);
    for file in std::fs::read_dir(d.folder("m")).expect("folder").flatten() {
        let wanted = if file.path().is_dir() { 0o711 } else { 0o600 };
        assert_eq!(mode(file.path()), wanted, "{}", file.path().display());
    }
    assert_eq!(mode(d.root().join("logs/default:m")), 0o700);
    assert_eq!(mode(d.root().join("logs/default:m/log")), 0o600);
}

/// Without a template the daemon execs each shim; all else is the same.
async fn without_template(rt: Runtime) {
    let mut d = Options::new(rt).config("[shim]\ntemplate = false").start().await;
    let b = d.sh("x", "echo hi; while [ ! -e /out/go ]; do sleep 0.02; done; exit 3");
    let pid = d.run(&b).await;
    d.exec("x", "e", "exit 2").await;
    assert_eq!(d.wait_exec("x", "e").await.code, 2);
    d.kill_and_restart().await;
    assert_eq!(d.get("x").await.pid, pid);
    std::fs::write(b.out("go"), "").expect("go");
    assert_eq!(d.wait("x").await.code, 3);
    assert_eq!(d.logs("x").await, b"hi\n");
    d.check_exits().await;
}

/// systemd's socket is used as it is; the one that was asked for by flag is not made.
async fn socket_activation(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let dir = temporary("act");
    let socket = dir.join("a.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    let passed = rustix::io::fcntl_dupfd_cloexec(&listener, 10).expect("dup");
    rustix::io::fcntl_setfd(&passed, rustix::io::FdFlags::empty()).expect("let it be inherited");
    let mut bash = Command::new("/bin/bash");
    let script = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&{0} {0}<&-",
        std::os::fd::AsRawFd::as_raw_fd(&passed)
    );
    bash.args(["-c", &script, "bash"]).arg(binary("berthd"));
    bash.arg("--state").arg(dir.join("s")).arg("--root").arg(dir.join("r"));
    bash.arg("--config").arg(d.dir.join("config.toml"));
    let mut child = bash.spawn().expect("berthd");
    let mut api = berth_e2e::client::client(&socket);
    within("version", LIMIT, api.version(v1::VersionRequest {}))
        .await
        .expect("it answers on systemd's socket");
    proc::kill(child.id(), Signal::TERM);
    let status = until("it ends", || child.try_wait().expect("wait")).await;
    assert!(status.success(), "{status}");
    assert!(socket.exists(), "the socket is systemd's");
    std::fs::remove_dir_all(dir).expect("remove");
}

/// READY=1 once it serves, WATCHDOG=1 while it does, STOPPING=1 when it goes.
async fn systemd_notify_and_watchdog(rt: Runtime) {
    let dir = temporary("notify");
    let path = dir.join("n.sock");
    let socket = tokio::net::UnixDatagram::bind(&path).expect("bind");
    let options = Options::new(rt)
        .env("NOTIFY_SOCKET", path.to_str().expect("utf-8"))
        .env("WATCHDOG_USEC", "400000");
    let mut d = options.start().await;
    let mut seen = String::new();
    for wanted in ["READY=1", "WATCHDOG=1"] {
        while !seen.contains(wanted) {
            let mut buffer = [0; 4096];
            let n = within(wanted, LIMIT, socket.recv(&mut buffer)).await.expect("recv");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
            seen.push('\n');
        }
    }
    d.terminate().await;
    let mut buffer = [0; 4096];
    while let Ok(n) = socket.try_recv(&mut buffer) {
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(seen.contains("STOPPING=1"), "{seen}");
    drop(d);
    std::fs::remove_dir_all(dir).expect("remove");
}

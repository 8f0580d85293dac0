//! One more process in a running container.
use berth_e2e::calls::exec_request;
use berth_e2e::v1::{self, ErrorCode, ExecRequest, ExitReason, Rlimit};
use berth_e2e::{Daemon, LIMIT, Runtime, assert_fails, fifo, on_all, proc, until, within};

on_all!(
    own_id_and_code,
    made_up_id,
    exits_at_once,
    twenty_in_parallel,
    user_env_cwd,
    user_by_number_and_groups,
    capabilities_are_what_was_asked,
    rlimits_are_seen_inside,
    no_new_privileges,
    process_json,
    stdio_by_fifo,
    ends_with_its_container,
    deleted_alone,
    command_not_found,
);

async fn with_sleeper(rt: Runtime) -> Daemon {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    d
}

fn sh(exec_id: &str, line: &str) -> ExecRequest {
    exec_request("c", exec_id, &["/bin/sh", "-c", line])
}

/// The text that a `sh -c` line writes to /out/EXEC_ID, and its exit code.
async fn answer(d: &Daemon, request: ExecRequest) -> String {
    let id = request.exec_id.clone();
    d.try_exec(request).await.unwrap_or_else(|e| panic!("exec {id}: {e:?}"));
    assert_eq!(d.wait_exec("c", &id).await.code, 0, "{id}");
    let out = d.dir.join("b/c/out").join(&id);
    std::fs::read_to_string(&out)
        .unwrap_or_else(|e| panic!("{}: {e}", out.display()))
        .trim_end()
        .to_owned()
}

/// Its own id, pid and code; the container goes on.
pub async fn own_id_and_code(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let exec = d
        .exec("c", "one", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 17")
        .await;
    assert_eq!(exec.exec_id, "one");
    assert!(proc::alive(exec.pid));
    let init = d.get("c").await.pid;
    let ns = |pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("ns");
    assert_eq!(ns(exec.pid), ns(init), "it is inside");
    assert_eq!(
        proc::cgroup_dirs(exec.pid),
        proc::cgroup_dirs(init),
        "and in the container's cgroup"
    );
    assert_fails(
        d.try_exec(sh("one", "exit 0")).await,
        ErrorCode::AlreadyExists,
        &["one"],
    );
    std::fs::write(d.dir.join("b/c/out/go"), "").expect("go");
    let exit = d.wait_exec("c", "one").await;
    assert_eq!((exit.code, exit.reason()), (17, ExitReason::Exited));
    let c = d.get("c").await;
    let info = c
        .execs
        .iter()
        .find(|e| e.exec_id == "one")
        .expect("it is listed until deleted");
    assert!(!info.running);
    assert_eq!(info.exit.as_ref().expect("exit").code, 17);
    let kinds: Vec<_> = d
        .check_exits()
        .await
        .iter()
        .filter(|e| e.exec_id == "one")
        .map(|e| e.kind())
        .collect();
    assert_eq!(kinds, [v1::EventKind::ExecStarted, v1::EventKind::ExecExited]);
}

/// Without an id the daemon makes one and tells it.
pub async fn made_up_id(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let (a, b) = (d.exec("c", "", "exit 1").await, d.exec("c", "", "exit 2").await);
    assert!(!a.exec_id.is_empty() && a.exec_id != b.exec_id);
    assert_eq!(d.wait_exec("c", &a.exec_id).await.code, 1);
    assert_eq!(d.wait_exec("c", &b.exec_id).await.code, 2);
}

/// An exec that ends before anybody looks keeps its code.
pub async fn exits_at_once(rt: Runtime) {
    let d = with_sleeper(rt).await;
    for i in 0..20 {
        let id = format!("quick-{i}");
        d.try_exec(exec_request("c", &id, &["/bin/sh", "-c", &format!("exit {i}")]))
            .await
            .expect("exec");
        assert_eq!(d.wait_exec("c", &id).await.code, i);
    }
    d.check_exits().await;
}

/// Twenty at once, each with its own code.
pub async fn twenty_in_parallel(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let mut api = d.api();
            tokio::spawn(async move {
                let id = format!("p{i}");
                api.exec(exec_request("c", &id, &["/bin/sh", "-c", &format!("exit {i}")]))
                    .await
                    .expect("exec");
                let wait = v1::WaitRequest {
                    id: "c".into(),
                    exec_id: id,
                    ..Default::default()
                };
                api.wait(wait)
                    .await
                    .expect("wait")
                    .into_inner()
                    .exit
                    .expect("exit")
                    .code
            })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        assert_eq!(within("exec", LIMIT * 2, task).await.expect("join") as usize, i);
    }
    d.check_exits().await;
}

/// User by name, environment added to the init's, working folder.
pub async fn user_env_cwd(rt: Runtime) {
    let d = with_sleeper(rt).await;
    std::fs::set_permissions(
        d.dir.join("b/c/out"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("chmod");
    let request = ExecRequest {
        user: "alice".into(),
        env: vec!["NEW=1".into(), "FROM=exec".into()],
        cwd: "/tmp".into(),
        ..sh("who", "echo $(id -u) $(id -g) $(pwd) $NEW $FROM $PATH > /out/who")
    };
    assert_eq!(answer(&d, request).await, "1000 1000 /tmp 1 exec /bin");
    assert_eq!(
        answer(&d, sh("init", "echo $(id -u) $(pwd) $FROM > /out/init")).await,
        "0 / bundle"
    );
    let nobody = ExecRequest {
        user: "nobody-here".into(),
        ..sh("nobody", "exit 0")
    };
    assert_fails(d.try_exec(nobody).await, ErrorCode::InvalidArgument, &["nobody-here"]);
}

pub async fn user_by_number_and_groups(rt: Runtime) {
    let d = with_sleeper(rt).await;
    std::fs::set_permissions(
        d.dir.join("b/c/out"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("chmod");
    let request = ExecRequest {
        user: "1234:77".into(),
        additional_gids: vec![88, 99],
        ..sh("num", "echo $(id -u) $(id -g) $(id -G) > /out/num")
    };
    assert_eq!(answer(&d, request).await, "1234 77 77 88 99");
}

fn caps(pid: u32) -> u64 {
    u64::from_str_radix(&proc::status(pid, "CapEff").expect("CapEff"), 16).expect("hex")
}

/// Unset: those of the init. Set: exactly these. Seen in /proc.
pub async fn capabilities_are_what_was_asked(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let wait = "while :; do sleep 1; done";
    let init = d.get("c").await.pid;
    let same = d.exec("c", "same", wait).await.pid;
    assert_eq!(caps(same), caps(init));
    let names = vec!["CAP_KILL".into(), "CAP_CHOWN".into()];
    let less = ExecRequest {
        capabilities: Some(v1::CapabilitySet { names }),
        ..sh("less", wait)
    };
    let less = d.try_exec(less).await.expect("exec").pid;
    assert_eq!(caps(less), 1 << 5 | 1);
    let none = ExecRequest {
        capabilities: Some(v1::CapabilitySet::default()),
        ..sh("none", wait)
    };
    let none = d.try_exec(none).await.expect("exec").pid;
    assert_eq!(caps(none), 0);
    let names = vec!["CAP_NOT_REAL".into()];
    let bad = ExecRequest {
        capabilities: Some(v1::CapabilitySet { names }),
        ..sh("bad", wait)
    };
    assert_fails(d.try_exec(bad).await, ErrorCode::InvalidArgument, &["CAP_NOT_REAL"]);
}

pub async fn rlimits_are_seen_inside(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let rlimit = |t: &str, soft, hard| Rlimit {
        r#type: t.into(),
        soft,
        hard,
    };
    // Not RLIMIT_NOFILE: Go raises the soft one in older runcs.
    let rlimits = vec![rlimit("RLIMIT_FSIZE", 100 << 9, 200 << 9), rlimit("RLIMIT_CORE", 0, 0)];
    let request = ExecRequest {
        rlimits,
        ..sh("lim", "echo $(ulimit -Sf) $(ulimit -Hf) $(ulimit -c) > /out/lim")
    };
    assert_eq!(answer(&d, request).await, "100 200 0");
    let request = ExecRequest {
        rlimits: vec![rlimit("RLIMIT_COOKIES", 1, 1)],
        ..sh("bad", "exit 0")
    };
    assert_fails(
        d.try_exec(request).await,
        ErrorCode::InvalidArgument,
        &["RLIMIT_COOKIES"],
    );
}

pub async fn no_new_privileges(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let wait = "while :; do sleep 1; done";
    let request = ExecRequest {
        no_new_privileges: Some(true),
        ..sh("nnp", wait)
    };
    let pid = d.try_exec(request).await.expect("exec").pid;
    assert_eq!(proc::status(pid, "NoNewPrivs").as_deref(), Some("1"));
    let pid = d.exec("c", "free", wait).await.pid;
    assert_eq!(proc::status(pid, "NoNewPrivs").as_deref(), Some("0"));
}

/// A whole OCI process object; mixed with the simple fields it is refused.
pub async fn process_json(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let json = br#"{"args":["/bin/sh","-c","echo $X $(pwd) > /out/json"],"env":["PATH=/bin","X=y"],"cwd":"/tmp","user":{"uid":0,"gid":0}}"#;
    let request = ExecRequest {
        id: "c".into(),
        exec_id: "json".into(),
        process_json: json.to_vec().into(),
        ..Default::default()
    };
    assert_eq!(answer(&d, request.clone()).await, "y /tmp");
    let mixed = ExecRequest {
        exec_id: "mixed".into(),
        args: vec!["/bin/true".into()],
        ..request.clone()
    };
    assert_fails(d.try_exec(mixed).await, ErrorCode::InvalidArgument, &["process_json"]);
    let broken = ExecRequest {
        exec_id: "broken".into(),
        process_json: b"{not json".to_vec().into(),
        ..request
    };
    assert_fails(d.try_exec(broken).await, ErrorCode::InvalidArgument, &["process_json"]);
}

/// Input and both outputs by the caller's FIFOs.
pub async fn stdio_by_fifo(rt: Runtime) {
    use tokio::io::AsyncWriteExt;
    let d = with_sleeper(rt).await;
    let fifos = fifo::Fifos::new(&d.dir, "x");
    let (out, err) = (fifo::reader(&fifos.stdout), fifo::reader(&fifos.stderr));
    let request = ExecRequest {
        stdio: Some(fifos.stdio()),
        ..sh("io", "echo oops >&2; cat; exit 4")
    };
    d.try_exec(request).await.expect("exec");
    let mut stdin = fifo::writer(&fifos.stdin).await;
    stdin.write_all(b"to and fro\n").await.expect("write");
    drop(stdin);
    let close = v1::CloseStdinRequest {
        id: "c".into(),
        exec_id: "io".into(),
        ..Default::default()
    };
    d.api().close_stdin(close).await.expect("close stdin");
    let ended = || async {
        d.wait_exec("c", "io").await;
    };
    assert_eq!(fifo::read_all(out, ended()).await, b"to and fro\n");
    assert_eq!(fifo::read_all(err, ended()).await, b"oops\n");
    assert_eq!(d.wait_exec("c", "io").await.code, 4);
}

/// When the init ends its execs end, and their exits are told before its own.
pub async fn ends_with_its_container(rt: Runtime) {
    let d = with_sleeper(rt).await;
    d.exec("c", "child", "while :; do sleep 1; done").await;
    d.signal("c", "KILL").await;
    assert_eq!(d.wait_exec("c", "child").await.signal, 9);
    d.wait("c").await;
    let order: Vec<_> = d
        .check_exits()
        .await
        .into_iter()
        .map(|e| e.kind())
        .filter(|k| matches!(k, v1::EventKind::Exited | v1::EventKind::ExecExited))
        .collect();
    assert_eq!(order, [v1::EventKind::ExecExited, v1::EventKind::Exited]);
    assert_fails(d.try_exec(sh("late", "exit 0")).await, ErrorCode::WrongState, &["c"]);
}

/// An ended exec can be deleted alone, a running one only by force; the container does not notice.
pub async fn deleted_alone(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let delete = |force| v1::DeleteRequest {
        id: "c".into(),
        exec_id: "e".into(),
        force,
        ..Default::default()
    };
    let pid = d.exec("c", "e", "while :; do sleep 1; done").await.pid;
    assert_fails(d.api().delete(delete(false)).await, ErrorCode::WrongState, &["e"]);
    d.api().delete(delete(true)).await.expect("delete by force");
    until("the exec is gone", || (!proc::alive(pid)).then_some(())).await;
    assert!(d.get("c").await.execs.is_empty());
    d.api().delete(delete(false)).await.expect("delete again");
    d.exec("c", "e", "exit 8").await;
    assert_eq!(d.wait_exec("c", "e").await.code, 8);
}

/// 127 and 126, with the runtime's own line, and nothing is left of the attempt.
pub async fn command_not_found(rt: Runtime) {
    let d = with_sleeper(rt).await;
    let missing = d.try_exec(exec_request("c", "m", &["/bin/no-such-command"])).await;
    let detail = assert_fails(missing, ErrorCode::CommandNotFound, &["no-such-command"]);
    assert_eq!(detail.exit_code, 127);
    assert!(!detail.runtime_message.is_empty());
    let refused = d.try_exec(exec_request("c", "n", &["/bin/not-executable"])).await;
    assert_eq!(
        assert_fails(refused, ErrorCode::CommandNotExecutable, &["ermission denied"]).exit_code,
        126
    );
    assert!(d.get("c").await.execs.is_empty());
    d.exec("c", "m", "exit 0").await;
}

//! The life of a container: run, signals, stop, wait, delete, pause, update, look.
use berth_e2e::calls::null;
use berth_e2e::v1::{self, ContainerState, ErrorCode, ExitReason};
use berth_e2e::{Daemon, LIMIT, Runtime, assert_fails, on_all, proc, until, within};

on_all!(
    exit_codes,
    signals,
    signal_all,
    stop_by_signal,
    stop_before_start,
    stop_needs_sigkill,
    wait_before_start,
    wait_after_exit_and_many,
    create_then_start,
    delete_is_idempotent,
    delete_needs_force,
    id_can_be_used_again,
    namespaces_are_apart,
    pause_and_resume,
    update_is_seen_in_the_cgroup,
    stats_from_the_cgroup,
    stats_by_interval,
    get_and_list,
    stop_signal_of_the_container,
    version_names_the_runtimes,
    not_built_yet,
);

/// The exit code comes through whole, from 0 to 255.
pub async fn exit_codes(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for code in [0, 1, 2, 3, 42, 125, 126, 127, 128, 137, 143, 200, 254, 255] {
        let exit = d
            .run_to_end(&d.sh(&format!("code-{code}"), &format!("exit {code}")))
            .await;
        assert_eq!((exit.code, exit.signal, exit.reason()), (code, 0, ExitReason::Exited));
        assert!(exit.exited_at > 0);
    }
}

/// A signal ends a process, and the exit tells which; names and numbers are the same.
pub async fn signals(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for (signal, number) in [("KILL", 9), ("SIGKILL", 9), ("9", 9)] {
        let id = format!("sig-{signal}");
        d.run(&d.sleeper(&id)).await;
        d.signal(&id, signal).await;
        let exit = d.wait(&id).await;
        assert_eq!(
            (exit.code, exit.signal, exit.reason()),
            (128 + number, number, ExitReason::Signaled)
        );
    }
    // A handler sees exactly the signal that was sent.
    for (signal, name) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("12", "USR2")] {
        let id = format!("trap-{name}");
        let b = d.sh(
            &id,
            &format!("trap 'exit 33' {name}; echo up > /out/up; while :; do sleep 1000 & wait $!; done"),
        );
        d.run(&b).await;
        b.line("up").await;
        d.signal(&id, signal).await;
        assert_eq!(d.wait(&id).await.code, 33, "{signal}");
    }
}

/// `all` reaches every process of the container, not its init alone.
pub async fn signal_all(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("all", "for i in 1 2 3; do sh -c \"trap 'echo got > /out/$i; exit' USR1; echo up > /out/up$i; while :; do sleep 0.1; done\" & done; trap '' USR1; while :; do sleep 1; done");
    d.run(&b).await;
    for i in 1..=3 {
        b.line(&format!("up{i}")).await;
    }
    let request = v1::SignalRequest {
        id: "all".into(),
        signal: "USR1".into(),
        all: true,
        ..Default::default()
    };
    d.api().signal(request).await.expect("signal all");
    for i in 1..=3 {
        assert_eq!(b.line(&i.to_string()).await, "got");
    }
}

/// Stop sends SIGTERM and answers when the container has ended.
pub async fn stop_by_signal(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "stop",
        "trap 'exit 5' TERM; echo up > /out/up; while :; do sleep 1000 & wait $!; done",
    );
    let pid = d.run(&b).await;
    b.line("up").await;
    let exit = d.stop("stop", 20_000).await;
    assert_eq!((exit.code, exit.signal), (5, 0));
    assert!(!proc::alive(pid));
    assert_eq!(d.get("stop").await.state(), ContainerState::Stopped);
    // Once more: it has ended, and this is how.
    assert_eq!(d.stop("stop", 0).await, exit);
}

/// What ignores the stop signal is killed after the timeout.
pub async fn stop_needs_sigkill(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("stubborn", "trap '' TERM; echo up > /out/up; while :; do sleep 1; done");
    d.run(&b).await;
    b.line("up").await;
    let exit = d.stop("stubborn", 200).await;
    assert_eq!((exit.code, exit.signal, exit.reason()), (137, 9, ExitReason::Signaled));
}

/// Nothing of its command runs yet: it ends at once, and not after the hour.
pub async fn stop_before_start(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.try_create(d.sh("early", "sleep 1000").spec()).await.expect("create");
    let exit = d.stop("early", 3_600_000).await;
    assert_eq!((exit.code, exit.signal), (137, 9));
}

/// The container's own stop signal and timeout.
pub async fn stop_signal_of_the_container(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "own",
        "trap 'exit 6' QUIT; trap '' TERM; echo up > /out/up; while :; do sleep 1000 & wait $!; done",
    );
    let spec = v1::ContainerSpec {
        stop_signal: "SIGQUIT".into(),
        stop_timeout_ms: Some(20_000),
        ..b.spec()
    };
    d.try_run(spec).await.expect("run");
    b.line("up").await;
    let request = v1::StopRequest {
        id: "own".into(),
        ..Default::default()
    };
    let exit = within("stop", LIMIT, d.api().stop(request))
        .await
        .expect("stop")
        .into_inner()
        .exit
        .expect("exit");
    assert_eq!(exit.code, 6);
    let c = d.get("own").await;
    assert_eq!((c.stop_signal.as_str(), c.stop_timeout_ms), ("SIGQUIT", 20_000));
}

/// A wait that comes before the start is answered by the exit.
pub async fn wait_before_start(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.try_create(d.sh("early", "exit 9").spec()).await.expect("create");
    let mut api = d.api();
    let request = v1::WaitRequest {
        id: "early".into(),
        ..Default::default()
    };
    let waiter = tokio::spawn(async move { api.wait(request).await });
    d.try_start("early").await.expect("start");
    let exit = within("wait", LIMIT, waiter)
        .await
        .expect("join")
        .expect("wait")
        .into_inner()
        .exit
        .expect("exit");
    assert_eq!(exit.code, 9);
}

/// Many waiters at once and one long after get the same answer.
pub async fn wait_after_exit_and_many(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("many", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 21");
    d.run(&b).await;
    let waiters: Vec<_> = (0..100)
        .map(|_| {
            let mut api = d.api();
            let request = v1::WaitRequest {
                id: "many".into(),
                ..Default::default()
            };
            tokio::spawn(async move { api.wait(request).await.expect("wait").into_inner().exit.expect("exit") })
        })
        .collect();
    std::fs::write(b.out("go"), "").expect("go");
    let late = d.wait("many").await;
    assert_eq!(late.code, 21);
    for waiter in waiters {
        assert_eq!(within("waiter", LIMIT, waiter).await.expect("join"), late);
    }
    assert_eq!(d.wait("many").await, late);
}

/// Create leaves the process before execve; Start lets it go.
pub async fn create_then_start(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("two", "echo ran > /out/ran; while :; do sleep 1; done");
    let created = d.try_create(b.spec()).await.expect("create");
    assert!(proc::alive(created.pid));
    assert_eq!(created.incarnation.len(), 32);
    assert!(!b.out("ran").exists(), "it must not run before Start");
    let c = d.get("two").await;
    assert_eq!(
        (c.state(), c.pid, c.started_at),
        (ContainerState::Created, created.pid, 0)
    );
    assert_eq!(d.try_start("two").await.expect("start").pid, created.pid);
    assert_eq!(b.line("ran").await, "ran");
    let c = d.get("two").await;
    assert_eq!((c.state(), c.pid), (ContainerState::Running, created.pid));
    assert!(c.started_at >= c.created_at && c.created_at > 0);
    assert_fails(d.try_start("two").await, ErrorCode::WrongState, &["two"]);
}

/// What is gone already can be deleted again; nothing of it is left.
pub async fn delete_is_idempotent(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("gone", "exit 3")).await;
    let first = d.try_delete("gone", false).await.expect("delete");
    assert_eq!(first.exit.as_ref().expect("exit").code, 3);
    assert!(!first.pending, "{first:?}");
    assert!(!d.folder("gone").exists());
    let again = d.try_delete("gone", false).await.expect("delete again");
    assert_eq!(again.exit, None);
    assert_fails(d.try_get("gone").await, ErrorCode::NotFound, &["gone"]);
    d.try_delete("never-was", true).await.expect("delete what never was");
}

/// A running container is deleted only by force, and then it is dead.
pub async fn delete_needs_force(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("held")).await;
    assert_fails(d.try_delete("held", false).await, ErrorCode::WrongState, &["held"]);
    assert!(proc::alive(pid));
    let exit = d.delete("held").await.exit.expect("exit");
    assert_eq!((exit.code, exit.signal), (137, 9));
    assert!(!proc::alive(pid));
    // Created and never started: force too.
    let pid = d.try_create(d.sleeper("never").spec()).await.expect("create").pid;
    d.delete("never").await;
    until("the init is gone", || (!proc::alive(pid)).then_some(())).await;
}

/// A deleted id is free, and its next container is another incarnation.
pub async fn id_can_be_used_again(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let mut seen = std::collections::HashSet::new();
    for code in 0..5 {
        let b = d.sh("again", &format!("exit {code}"));
        let run = d.try_run(b.spec()).await.expect("run");
        assert!(seen.insert(run.incarnation));
        assert_eq!(d.wait("again").await.code, code);
        d.delete("again").await;
    }
    d.check_exits().await;
}

/// One id in two namespaces is two containers.
pub async fn namespaces_are_apart(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let (a, b) = (d.sh("ns-a", "exit 1"), d.sh("ns-b", "exit 2"));
    for (namespace, bundle) in [("one", &a), ("two", &b)] {
        let spec = v1::ContainerSpec {
            namespace: namespace.into(),
            id: "same".into(),
            ..bundle.spec()
        };
        d.try_run(spec).await.expect("run");
    }
    for (namespace, code) in [("one", 1), ("two", 2)] {
        let request = v1::WaitRequest {
            namespace: namespace.into(),
            id: "same".into(),
            ..Default::default()
        };
        let exit = d
            .api()
            .wait(request)
            .await
            .expect("wait")
            .into_inner()
            .exit
            .expect("exit");
        assert_eq!(exit.code, code);
    }
    assert_fails(d.try_get("same").await, ErrorCode::NotFound, &["same"]);
    let names: Vec<_> = d.list().await.into_iter().map(|c| c.namespace).collect();
    assert_eq!(names, ["one", "two"]);
}

fn frozen(pid: u32) -> Option<String> {
    proc::cgroup_file(pid, "freezer", "freezer.state", "cgroup.freeze")
}

/// Paused is frozen in the kernel: nothing runs; resumed it goes on.
pub async fn pause_and_resume(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("ice", "i=0; while :; do i=$((i+1)); echo $i > /out/n; sleep 0.01; done");
    let pid = d.run(&b).await;
    b.line("n").await;
    let pause = v1::PauseRequest {
        id: "ice".into(),
        ..Default::default()
    };
    d.api().pause(pause.clone()).await.expect("pause");
    assert_eq!(d.get("ice").await.state(), ContainerState::Paused);
    let state = frozen(pid).expect("freezer");
    assert!(state == "FROZEN" || state == "1", "{state}");
    assert_fails(d.api().pause(pause).await, ErrorCode::WrongState, &["ice"]);
    let resume = v1::ResumeRequest {
        id: "ice".into(),
        ..Default::default()
    };
    d.api().resume(resume.clone()).await.expect("resume");
    let state = frozen(pid).expect("freezer");
    assert!(state == "THAWED" || state == "0", "{state}");
    let before = std::fs::read_to_string(b.out("n")).expect("n");
    until("it counts again", || {
        (std::fs::read_to_string(b.out("n")).ok()? != before).then_some(())
    })
    .await;
    assert_fails(d.api().resume(resume).await, ErrorCode::WrongState, &["ice"]);
    // A paused one can be killed and deleted.
    d.api()
        .pause(v1::PauseRequest {
            id: "ice".into(),
            ..Default::default()
        })
        .await
        .expect("pause");
    assert_eq!(d.delete("ice").await.exit.expect("exit").signal, 9);
}

/// Update writes the cgroup's files: what is unset stays.
pub async fn update_is_seen_in_the_cgroup(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("grow").memory(64 << 20);
    let pid = d.run(&b).await;
    let limit = || proc::cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max").expect("memory");
    assert_eq!(limit(), (64 << 20).to_string());
    let resources = v1::Resources {
        memory_limit: Some(96 << 20),
        memory_swap: Some(96 << 20),
        pids_limit: Some(77),
        ..Default::default()
    };
    let request = v1::UpdateRequest {
        id: "grow".into(),
        resources: Some(resources),
        ..Default::default()
    };
    d.api().update(request).await.expect("update");
    assert_eq!(limit(), (96 << 20).to_string());
    assert_eq!(
        proc::cgroup_file(pid, "pids", "pids.max", "pids.max").expect("pids"),
        "77"
    );
    let json = br#"{"cpu":{"shares":512}}"#.to_vec();
    let request = v1::UpdateRequest {
        id: "grow".into(),
        resources_json: json.into(),
        ..Default::default()
    };
    d.api().update(request).await.expect("update by JSON");
    let shares = proc::cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight").expect("cpu");
    assert!(shares == "512" || shares == "59", "{shares}");
    assert_eq!(limit(), (96 << 20).to_string(), "what is unset stays");
}

async fn one_stat(d: &Daemon, id: &str) -> v1::ContainerStats {
    let request = v1::StatsRequest {
        ids: vec![id.into()],
        ..Default::default()
    };
    let mut stream = d.api().stats(request).await.expect("stats").into_inner();
    let mut answer = stream.message().await.expect("stats").expect("one answer");
    assert!(answer.at > 0);
    assert_eq!(
        stream.message().await.expect("stats ends").map(|a| a.containers),
        None,
        "interval 0 is once"
    );
    assert_eq!(answer.containers.len(), 1);
    answer.containers.remove(0)
}

/// The numbers are the cgroup's.
pub async fn stats_from_the_cgroup(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("stat", "dd if=/dev/zero of=/tmp/ball bs=1M count=20 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up > /out/up; while :; do sleep 1000; done")
        .memory(128 << 20)
        .edit(|c| c["linux"]["resources"]["pids"] = serde_json::json!({ "limit": 50 }));
    d.run(&b).await;
    b.line("up").await;
    let s = one_stat(&d, "stat").await;
    assert!(s.cpu_ns > 0, "{s:?}");
    assert!(s.memory_bytes > 20 << 20, "{s:?}");
    assert!(s.memory_peak_bytes >= s.memory_bytes.min(20 << 20), "{s:?}");
    assert_eq!((s.memory_limit_bytes, s.pids_limit), (128 << 20, 50));
    assert!((1..=10).contains(&s.pids), "{s:?}");
    assert_eq!(s.oom_kills, 0);
}

/// With an interval the stream goes on, and CPU time only grows.
pub async fn stats_by_interval(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sh("busy", "while :; do :; done")).await;
    d.run(&d.sleeper("idle")).await;
    let request = v1::StatsRequest {
        interval_ms: 100,
        ..Default::default()
    };
    let mut stream = d.api().stats(request).await.expect("stats").into_inner();
    let mut last = 0;
    for _ in 0..3 {
        let answer = within("stats", LIMIT, stream.message())
            .await
            .expect("stats")
            .expect("goes on");
        assert_eq!(
            answer.containers.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
            ["busy", "idle"]
        );
        assert!(answer.containers[0].cpu_ns > last);
        last = answer.containers[0].cpu_ns;
    }
}

/// Get and List tell what is, with the processes inside.
pub async fn get_and_list(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("look", "sleep 1000 & echo up > /out/up; wait").stdio(null());
    let labels = [("team", "blue"), ("tier", "web")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let spec = v1::ContainerSpec {
        labels: labels.clone().into(),
        ..b.spec()
    };
    let run = d.try_run(spec).await.expect("run");
    b.line("up").await;
    d.run(&d.sleeper("other")).await;
    let exec = d.exec("look", "probe", "while :; do sleep 1; done").await;

    let c = d.get("look").await;
    assert_eq!(
        (c.namespace.as_str(), c.pid, c.incarnation.as_str()),
        ("default", run.pid, run.incarnation.as_str())
    );
    assert_eq!(c.bundle, b.dir.to_str().expect("utf-8"));
    assert_eq!(c.runtime, rt.name());
    assert_eq!(c.labels, labels.clone().into());
    assert!(
        matches!(
            c.stdio.as_ref().and_then(|s| s.to.as_ref()),
            Some(v1::stdio::To::Null(_))
        ),
        "{:?}",
        c.stdio
    );
    assert!(proc::alive(c.shim_pid));
    assert!(!c.stages.is_empty(), "the stages of the start");
    assert!(c.cgroup.ends_with(&format!("{}/look", d.cgroup)), "{}", c.cgroup);
    let init = c
        .processes
        .iter()
        .find(|p| p.pid == run.pid)
        .expect("the init is listed");
    assert_eq!((init.exec_id.as_str(), init.command.as_str()), ("", "sh"));
    assert!(c.processes.iter().any(|p| p.command == "sleep"), "{:?}", c.processes);
    assert!(
        c.processes.iter().any(|p| p.pid == exec.pid && p.exec_id == "probe"),
        "{:?}",
        c.processes
    );
    assert_eq!(c.execs.len(), 1);
    assert!(c.execs[0].running && c.execs[0].pid == exec.pid);

    let names = |l: Vec<v1::Container>| l.into_iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(names(d.list().await), ["look", "other"]);
    let blue = v1::ListRequest {
        labels: labels.into(),
        ..Default::default()
    };
    assert_eq!(
        names(d.api().list(blue).await.expect("list").into_inner().containers),
        ["look"]
    );
    let red = v1::ListRequest {
        labels: [("team".to_owned(), "red".to_owned())].into(),
        ..Default::default()
    };
    assert!(
        d.api()
            .list(red)
            .await
            .expect("list")
            .into_inner()
            .containers
            .is_empty()
    );
    let empty = v1::ListRequest {
        namespace: "nobody".into(),
        ..Default::default()
    };
    assert!(
        d.api()
            .list(empty)
            .await
            .expect("list")
            .into_inner()
            .containers
            .is_empty()
    );
}

/// Version says what this daemon can use.
pub async fn version_names_the_runtimes(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let v = d
        .api()
        .version(v1::VersionRequest {})
        .await
        .expect("version")
        .into_inner();
    assert_eq!(v.version, env!("CARGO_PKG_VERSION"));
    let mine = v
        .runtimes
        .iter()
        .find(|r| r.name == rt.name())
        .expect("the runtime is listed");
    assert!(mine.default && !mine.version.is_empty(), "{mine:?}");
    assert_eq!(mine.path, rt.binary().to_str().expect("utf-8"));
}

/// What is not built yet says so.
pub async fn not_built_yet(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("x")).await;
    let (mut api, id) = (d.api(), "x".to_owned());
    let none = ErrorCode::Unimplemented;
    assert_fails(
        api.checkpoint(v1::CheckpointRequest {
            id: id.clone(),
            ..Default::default()
        })
        .await,
        none,
        &[],
    );
    assert_fails(
        api.restore(v1::RestoreRequest {
            id: id.clone(),
            ..Default::default()
        })
        .await,
        none,
        &[],
    );
    assert_fails(
        api.migrate(v1::MigrateRequest {
            id,
            ..Default::default()
        })
        .await
        .map(|_| ()),
        none,
        &[],
    );
}

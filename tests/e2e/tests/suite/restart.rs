//! The daemon dies and comes back: nothing is lost, and what is broken costs only itself.
use berth_e2e::proc::{self, Process};
use berth_e2e::v1::{self, ContainerState, EventKind, ExitReason};
use berth_e2e::{Daemon, LIMIT, Options, Runtime, eventually, on_all, on_both, until, within};
use rustix::process::Signal;
use std::path::Path;

on_all!(
    same_pids_and_no_output_lost,
    exit_meanwhile_is_told_true,
    hundred_containers,
    terminate_leaves_containers_alone,
    everything_works_after_adoption,
    execs_are_adopted,
    broken_record_costs_one,
    mute_shim_costs_one,
    killed_shim_is_lost,
    shim_killed_while_the_daemon_is_down,
    reboot_ends_every_record,
    wait_is_answered_by_the_next_daemon,
    request_id_outlives_the_daemon,
);

on_both!(an_undo_that_was_cut_short_goes_on);

/// SIGKILL, several times, while a container writes: same pid, every line.
pub async fn same_pids_and_no_output_lost(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh(
        "writer",
        "i=0; while [ ! -e /out/stop ]; do i=$((i+1)); echo $i; done; echo $i > /out/last",
    );
    let pid = d.run(&b).await;
    let process = Process::find(pid).expect("init");
    for _ in 0..5 {
        d.kill_and_restart().await;
        let c = d.get("writer").await;
        assert_eq!((c.pid, c.state()), (pid, ContainerState::Running));
        assert!(process.alive());
    }
    std::fs::write(b.out("stop"), "").expect("stop");
    assert_eq!(d.wait("writer").await.code, 0);
    let last: u64 = b.line("last").await.parse().expect("number");
    let text = String::from_utf8(d.logs("writer").await).expect("utf-8");
    let lines: Vec<u64> = text.lines().map(|l| l.parse().expect("number")).collect();
    // Rotation may have removed the first ones; the rest is whole.
    assert!(lines.windows(2).all(|w| w[1] == w[0] + 1), "no hole");
    assert_eq!(lines.last(), Some(&last));
    d.check_exits().await;
}

/// It ended while no daemon lived: its true code and time, one number, after any number of restarts.
pub async fn exit_meanwhile_is_told_true(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("meanwhile", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 77");
    let pid = d.run(&b).await;
    d.kill();
    std::fs::write(b.out("go"), "").expect("go");
    until("the init ended", || (!proc::alive(pid)).then_some(())).await;
    let ended = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_nanos() as i64;
    d.restart().await;
    let exit = d.wait("meanwhile").await;
    assert_eq!((exit.code, exit.reason()), (77, ExitReason::Exited));
    // At the time when it happened, not when it was found.
    assert!(exit.exited_at <= ended + 1_000_000_000, "{exit:?}");
    for _ in 0..3 {
        d.kill_and_restart().await;
        assert_eq!(d.wait("meanwhile").await, exit);
    }
    let exits = d
        .check_exits()
        .await
        .into_iter()
        .filter(|e| e.kind() == EventKind::Exited)
        .count();
    assert_eq!(exits, 1);
}

/// A hundred, each found again with its pid; half of them ended meanwhile, each with its own code.
pub async fn hundred_containers(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    // They wait without using the machine, and end when the test signals them itself.
    let line = |i| format!("trap 'exit {i}' USR1; echo up > /out/up; while :; do sleep 1000 & wait $!; done");
    let bundles: Vec<_> = (0..100).map(|i| d.sh(&format!("h{i:02}"), &line(i))).collect();
    let mut tasks = Vec::new();
    for b in &bundles {
        let (mut api, container) = (d.api(), Some(b.spec()));
        tasks.push(tokio::spawn(async move {
            let request = v1::RunRequest {
                container,
                ..Default::default()
            };
            api.run(request).await
        }));
    }
    let mut pids = Vec::new();
    for task in tasks {
        let run = within("run", LIMIT * 3, task).await.expect("join").expect("run");
        pids.push(run.into_inner().pid);
    }
    for b in &bundles {
        b.line("up").await;
    }
    d.kill();
    for pid in pids.iter().step_by(2) {
        proc::kill(*pid, Signal::USR1);
        until("it ended", || (!proc::alive(*pid)).then_some(())).await;
    }
    d.restart().await;
    for (i, b) in bundles.iter().enumerate() {
        let c = d.get(&b.id).await;
        if i % 2 == 0 {
            assert_eq!(d.wait(&b.id).await.code as usize, i);
        } else {
            assert_eq!((c.state(), c.pid), (ContainerState::Running, pids[i]), "{}", b.id);
        }
    }
    assert_eq!(d.list().await.len(), 100);
    d.check_exits().await;
}

/// SIGTERM: the daemon drains and goes, the containers stay.
pub async fn terminate_leaves_containers_alone(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("stay")).await;
    let process = Process::find(pid).expect("init");
    d.terminate().await;
    assert!(process.alive());
    d.restart().await;
    assert_eq!(d.get("stay").await.pid, pid);
}

/// An adopted container can do all that it could before.
pub async fn everything_works_after_adoption(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let labels = [("k".to_owned(), "v".to_owned())];
    let b = d.sh(
        "all",
        "trap 'exit 3' TERM; echo up > /out/up; while :; do sleep 1000 & wait $!; done",
    );
    d.try_run(v1::ContainerSpec {
        labels: labels.clone().into(),
        ..b.spec()
    })
    .await
    .expect("run");
    b.line("up").await;
    let created = d.sh("cr", "exit 8");
    d.try_create(created.spec()).await.expect("create");
    let before = d.get("all").await;
    d.kill_and_restart().await;
    let after = d.get("all").await;
    assert_eq!(
        v1::Container {
            processes: vec![],
            ..after
        },
        v1::Container {
            processes: vec![],
            ..before
        }
    );
    let id = || "all".to_owned();
    d.exec("all", "e", "exit 6").await;
    assert_eq!(d.wait_exec("all", "e").await.code, 6);
    d.api()
        .pause(v1::PauseRequest {
            id: id(),
            ..Default::default()
        })
        .await
        .expect("pause");
    d.kill_and_restart().await;
    assert_eq!(d.get("all").await.state(), ContainerState::Paused);
    d.api()
        .resume(v1::ResumeRequest {
            id: id(),
            ..Default::default()
        })
        .await
        .expect("resume");
    let stats = v1::StatsRequest {
        ids: vec![id()],
        ..Default::default()
    };
    d.api()
        .stats(stats)
        .await
        .expect("stats")
        .into_inner()
        .message()
        .await
        .expect("stats")
        .expect("one");
    assert_eq!(d.stop("all", 20_000).await.code, 3);
    d.try_start("cr").await.expect("start what was created before");
    assert_eq!(d.wait("cr").await.code, 8);
    d.check_exits().await;
}

pub async fn execs_are_adopted(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sleeper("c");
    d.run(&b).await;
    let lives = d
        .exec("c", "lives", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 5")
        .await
        .pid;
    let ends = d
        .exec("c", "ends", "while [ ! -e /out/end ]; do sleep 0.02; done; exit 6")
        .await
        .pid;
    d.kill();
    std::fs::write(b.out("end"), "").expect("end");
    until("it ended", || (!proc::alive(ends)).then_some(())).await;
    d.restart().await;
    assert_eq!(d.wait_exec("c", "ends").await.code, 6);
    let c = d.get("c").await;
    assert!(
        c.execs
            .iter()
            .any(|e| e.exec_id == "lives" && e.running && e.pid == lives),
        "{:?}",
        c.execs
    );
    std::fs::write(b.out("go"), "").expect("go");
    assert_eq!(d.wait_exec("c", "lives").await.code, 5);
    d.check_exits().await;
}

/// One unreadable record is named in the log and costs its container only.
pub async fn broken_record_costs_one(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    d.run(&d.sleeper("good")).await;
    d.run(&d.sleeper("bad")).await;
    d.kill();
    let record = d.folder("bad").join("container.json");
    let whole = std::fs::read(&record).expect("record");
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    for bytes in [
        &broken[..],
        &whole[..whole.len() / 2],
        b"",
        b"berth-record 99 crc32=00000000 len=2\n{}",
    ] {
        std::fs::write(&record, bytes).expect("break it");
        d.restart().await;
        assert_eq!(d.get("good").await.state(), ContainerState::Running);
        d.exec("good", "", "exit 0").await;
        until("the log names it", || d.log().contains("bad").then_some(())).await;
        assert!(record.exists(), "what can't be read is not thrown away");
        d.kill();
    }
    std::fs::write(&record, whole).expect("mend it");
    d.restart().await;
    assert_eq!(d.get("bad").await.state(), ContainerState::Running);
}

/// A shim that does not answer is waited for only by the calls that name its container.
pub async fn mute_shim_costs_one(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    d.run(&d.sleeper("good")).await;
    d.run(&d.sleeper("mute")).await;
    let shim = d.get("mute").await.shim_pid;
    d.kill();
    proc::kill(shim, Signal::STOP);
    d.restart().await;
    assert_eq!(d.get("good").await.state(), ContainerState::Running);
    d.exec("good", "e", "exit 4").await;
    assert_eq!(d.wait_exec("good", "e").await.code, 4);
    d.run_to_end(&d.sh("new", "exit 0")).await;
    proc::kill(shim, Signal::CONT);
    eventually("it is adopted after all", || async {
        (d.try_get("mute").await.ok()?.state() == ContainerState::Running).then_some(())
    })
    .await;
    d.exec("mute", "e", "exit 4").await;
    assert_eq!(d.wait_exec("mute", "e").await.code, 4);
}

/// A killed shim takes its container with it, and that is told as what it is.
pub async fn killed_shim_is_lost(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("lost")).await;
    d.run(&d.sleeper("good")).await;
    proc::kill(d.get("lost").await.shim_pid, Signal::KILL);
    let exit = d.wait("lost").await;
    assert_eq!((exit.code, exit.reason()), (255, ExitReason::Lost));
    assert!(!exit.message.is_empty());
    until("the init is killed", || (!proc::alive(pid)).then_some(())).await;
    assert_eq!(d.get("lost").await.state(), ContainerState::Stopped);
    assert_eq!(d.get("good").await.state(), ContainerState::Running);
    d.check_exits().await;
    d.delete("lost").await;
    assert!(!d.folder("lost").exists());
}

pub async fn shim_killed_while_the_daemon_is_down(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("lost")).await;
    let shim = d.get("lost").await.shim_pid;
    d.kill();
    proc::kill(shim, Signal::KILL);
    until("the shim is gone", || (!proc::alive(shim)).then_some(())).await;
    d.restart().await;
    let exit = d.wait("lost").await;
    assert_eq!((exit.code, exit.reason()), (255, ExitReason::Lost));
    until("the init is killed", || (!proc::alive(pid)).then_some(())).await;
    d.kill_and_restart().await;
    assert_eq!(d.wait("lost").await, exit);
    d.check_exits().await;
}

/// Changes the JSON of a record and gives it a right checksum again.
fn rewrite(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = std::fs::read_to_string(path).expect("record");
    let Some((_, json)) = text
        .split_once('\n')
        .filter(|(head, _)| head.starts_with("berth-record"))
    else {
        return;
    };
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    change(&mut value);
    let json = serde_json::to_string_pretty(&value).expect("json");
    let crc = crc32fast::hash(json.as_bytes());
    std::fs::write(
        path,
        format!("berth-record 1 crc32={crc:08x} len={}\n{json}", json.len()),
    )
    .expect("write");
}

/// The boot id of the records is not this boot's: ended by a reboot, once.
pub async fn reboot_ends_every_record(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("old")).await;
    d.run_to_end(&d.sh("ended", "exit 4")).await;
    let shim = d.get("old").await.shim_pid;
    let ended_shim = d.get("ended").await.shim_pid;
    d.kill();
    for victim in [shim, ended_shim, pid] {
        proc::kill(victim, Signal::KILL);
        until("gone", || (!proc::alive(victim)).then_some(())).await;
    }
    for id in ["old", "ended"] {
        for file in std::fs::read_dir(d.folder(id)).expect("folder").flatten() {
            if file.path().extension().is_some_and(|e| e == "json") {
                rewrite(&file.path(), |v| {
                    if v.get("boot_id").is_some() {
                        v["boot_id"] = "00000000-1111-2222-3333-444444444444".into();
                    }
                });
            }
        }
    }
    d.restart().await;
    let exit = d.wait("old").await;
    assert_eq!((exit.code, exit.reason()), (255, ExitReason::Reboot));
    assert_eq!(d.wait("ended").await.code, 4, "what had ended before keeps its code");
    d.kill_and_restart().await;
    assert_eq!(d.wait("old").await, exit);
    d.check_exits().await;
    d.delete("old").await;
}

/// A client that waits again after the daemon's death gets its answer.
pub async fn wait_is_answered_by_the_next_daemon(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("w", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 11");
    d.run(&b).await;
    let mut api = d.api();
    let request = v1::WaitRequest {
        id: "w".into(),
        ..Default::default()
    };
    let waiting = tokio::spawn(async move { api.wait(request).await });
    d.kill();
    let cut = within("the wait is cut", LIMIT, waiting)
        .await
        .expect("join")
        .expect_err("the daemon died");
    // What the client's library makes of a connection that broke.
    assert!(
        matches!(cut.code(), tonic::Code::Unavailable | tonic::Code::Unknown),
        "{cut:?}"
    );
    d.restart().await;
    std::fs::write(b.out("go"), "").expect("go");
    assert_eq!(d.wait("w").await.code, 11);
}

/// The same request id after a restart: the first call's answer, and nothing a second time.
pub async fn request_id_outlives_the_daemon(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sleeper("same");
    let request = v1::RunRequest {
        container: Some(b.spec()),
        request_id: "r-1".into(),
    };
    let first = d.api().run(request.clone()).await.expect("run").into_inner();
    d.kill_and_restart().await;
    let again = within("run again", LIMIT, d.api().run(request))
        .await
        .expect("run again")
        .into_inner();
    assert_eq!(again, first);
    assert_eq!(d.list().await.len(), 1);
}

/// What the undoing of a start has killed is no container that ran and ended: the request repeated makes a new one.
pub async fn an_undo_that_was_cut_short_goes_on(rt: Runtime) {
    let hold = "for a in \"$@\"; do case $a in\n\
        start) $REAL \"$@\" && touch $DIR/started; while [ -e $DIR/hold-start ]; do sleep 0.02; done; exit;;\n\
        delete) while [ -e $DIR/hold-delete ]; do sleep 0.02; done;;\n\
        esac; done; exec $REAL \"$@\"";
    let mut d = Options::new(rt).script("slow", hold).start().await;
    for held in ["hold-start", "hold-delete"] {
        std::fs::write(d.dir.join(held), "").expect("hold");
    }
    let bundle = d.sleeper("again");
    let request = v1::RunRequest {
        container: Some(v1::ContainerSpec {
            runtime: "slow".into(),
            ..bundle.spec()
        }),
        request_id: "r".into(),
    };
    let (mut api, first) = (d.connect(), request.clone());
    let run = tokio::spawn(async move { api.run(first).await });
    let started = d.dir.join("started");
    until("it runs, and the runtime does not say so", || {
        started.exists().then_some(())
    })
    .await;
    let groups = d.leftovers().cgroups;
    let init = groups
        .iter()
        .filter_map(|group| std::fs::read_to_string(group.join("cgroup.procs")).ok())
        .find_map(|pids| Process::find(pids.lines().next()?.parse().ok()?))
        .expect("the init");
    d.kill();
    let _ = run.await;
    d.restart().await;
    until("the undo has killed the init", || (!init.alive()).then_some(())).await;
    d.kill();
    for held in ["hold-start", "hold-delete"] {
        std::fs::remove_file(d.dir.join(held)).expect("let go");
    }
    let state = d.runtime_root(rt).join("default/again");
    until("the shim has deleted it", || (!state.exists()).then_some(())).await;
    d.restart().await;
    let again = within("the same request again", LIMIT, d.connect().run(request)).await;
    let pid = again.expect("it is made anew").into_inner().pid;
    assert!(proc::alive(pid), "an answer that names a dead process");
    assert_eq!(d.get("again").await.state(), ContainerState::Running);
}

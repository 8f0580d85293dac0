//! Restart policies with real runtimes: what has ended is there again, and what was stopped is not; over the daemon's death and a reboot.
use berth_e2e::v1::{self, ContainerState, EventKind, RestartPolicy};
use berth_e2e::{Daemon, Options, Runtime, eventually, on_all, proc, until};
use rustix::process::Signal;

on_all!(
    failures_are_counted_and_the_log_goes_on,
    stopped_is_stopped,
    killed_daemon_goes_on_with_the_pause,
    there_again_after_a_reboot,
    update_takes_it_back,
    deleted_while_it_waits,
    one_that_cannot_be_made_again_stays_and_is_tried,
);

fn spec(b: &berth_e2e::Bundle, policy: RestartPolicy, max: u32) -> v1::ContainerSpec {
    v1::ContainerSpec {
        restart: policy.into(),
        restart_max: max,
        ..b.spec()
    }
}

async fn reaches(d: &Daemon, id: &str, what: &str, ok: impl Fn(&v1::Container) -> bool) -> v1::Container {
    eventually(what, async || Some(d.get(id).await).filter(|c| ok(c))).await
}

/// Three lives, then no more; the log has all of them, and every one was told with a number of its own.
pub async fn failures_are_counted_and_the_log_goes_on(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("fails", "echo life; exit 3");
    d.try_run(spec(&b, RestartPolicy::OnFailure, 2)).await.expect("run");
    let c = reaches(&d, "fails", "two restarts, then the end", |c| {
        c.restart_count == 2 && c.state() == ContainerState::Stopped && c.restart_at == 0
    })
    .await;
    assert_eq!((c.restart(), c.restart_max), (RestartPolicy::OnFailure, 2));
    assert_eq!(c.exit.expect("exit").code, 3);
    assert_eq!(d.logs("fails").await, b"life\nlife\nlife\n");
    let events = d.check_exits().await;
    let started: Vec<_> = events
        .iter()
        .filter(|e| e.kind() == EventKind::Started)
        .map(|e| e.message.as_str())
        .collect();
    assert_eq!(started, ["", "restart 1", "restart 2"]);
    let mut lives: Vec<_> = events.iter().map(|e| &e.incarnation).collect();
    lives.sort();
    lives.dedup();
    assert_eq!(lives.len(), 3, "{events:?}");
    // One that ended well is not a failure.
    let b = d.sh("well", "exit 0");
    d.try_run(spec(&b, RestartPolicy::OnFailure, 0)).await.expect("run");
    d.wait("well").await;
    assert_eq!(d.get("well").await.state(), ContainerState::Stopped);
    for id in ["fails", "well"] {
        d.delete(id).await;
    }
}

/// By Stop, by SIGKILL, and by Stop in the middle of the pause.
pub async fn stopped_is_stopped(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    for id in ["stop", "kill"] {
        d.try_run(spec(&d.sleeper(id), RestartPolicy::Always, 0))
            .await
            .expect("run");
    }
    d.stop("stop", 5_000).await;
    d.signal("kill", "KILL").await;
    let b = d.sh("loop", "exit 1");
    d.try_run(spec(&b, RestartPolicy::UnlessStopped, 0)).await.expect("run");
    reaches(&d, "loop", "a pause long enough", |c| {
        c.restart_count >= 3 && c.state() == ContainerState::Restarting
    })
    .await;
    assert_eq!(d.stop("loop", 5_000).await.code, 1);
    for _ in 0..2 {
        for id in ["stop", "kill", "loop"] {
            d.wait(id).await;
            let c = d.get(id).await;
            assert_eq!((c.state(), c.restart_at), (ContainerState::Stopped, 0), "{id}");
        }
        d.kill_and_restart().await;
    }
    d.check_exits().await;
    for id in ["stop", "kill", "loop"] {
        d.delete(id).await;
    }
}

/// SIGKILL during the pause and in the middle of everything else: it comes back, with all of its log.
pub async fn killed_daemon_goes_on_with_the_pause(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("again", "echo life >> /out/lives; echo life; exit 1");
    d.try_run(spec(&b, RestartPolicy::Always, 0)).await.expect("run");
    reaches(&d, "again", "a pause", |c| {
        c.restart_count >= 2 && c.state() == ContainerState::Restarting
    })
    .await;
    d.kill_and_restart().await;
    let c = d.get("again").await;
    assert!(c.restart_count >= 2, "{c:?}");
    let seen = c.restart_count;
    reaches(&d, "again", "another life", |c| c.restart_count > seen).await;
    for _ in 0..3 {
        d.kill_and_restart().await;
    }
    let seen = eventually("it is known", async || d.try_get("again").await.ok())
        .await
        .restart_count;
    reaches(&d, "again", "one more life", |c| c.restart_count > seen).await;
    d.stop("again", 5_000).await;
    let lives = std::fs::read_to_string(b.out("lives")).expect("lives").lines().count();
    let text = String::from_utf8(d.logs("again").await).expect("utf-8");
    assert_eq!(text.lines().count(), lives);
    d.delete("again").await;
}

/// The state folder is gone, the root folder is there.
pub async fn there_again_after_a_reboot(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    d.try_run(spec(&d.sleeper("always"), RestartPolicy::Always, 0))
        .await
        .expect("run");
    d.try_run(spec(&d.sleeper("was-stopped"), RestartPolicy::Always, 0))
        .await
        .expect("run");
    d.try_run(spec(&d.sleeper("unless"), RestartPolicy::UnlessStopped, 0))
        .await
        .expect("run");
    d.try_run(spec(&d.sleeper("deleted"), RestartPolicy::Always, 0))
        .await
        .expect("run");
    let done = d.sh("done", "exit 0");
    d.try_run(spec(&done, RestartPolicy::OnFailure, 0)).await.expect("run");
    d.run(&d.sleeper("no")).await;
    d.wait("done").await;
    d.stop("was-stopped", 5_000).await;
    d.stop("unless", 5_000).await;
    d.try_delete("deleted", true).await.expect("delete");
    let before = d.get("always").await;
    // What was told last is in the database when a removal is.
    d.try_run(spec(&d.sleeper("last"), RestartPolicy::Always, 0))
        .await
        .expect("run");
    d.try_delete("last", true).await.expect("delete");
    let processes: Vec<u32> = d
        .list()
        .await
        .iter()
        .flat_map(|c| [c.shim_pid, c.pid])
        .filter(|pid| *pid != 0)
        .collect();
    d.kill();
    for pid in processes {
        proc::kill(pid, Signal::KILL);
        until("gone", || (!proc::alive(pid)).then_some(())).await;
    }
    for entry in std::fs::read_dir(d.state()).expect("state").flatten() {
        if entry.path().is_dir() {
            std::fs::remove_dir_all(entry.path()).expect("empty the state folder");
        } else {
            std::fs::remove_file(entry.path()).expect("empty the state folder");
        }
    }
    // A boot takes the cgroups, too, and what runtimes keep.
    let _ = std::fs::remove_dir_all(d.dir.join(rt.name()));
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup")
        .expect("cgroups")
        .flatten()
        .map(|entry| entry.path());
    for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
        let _ = std::fs::remove_dir(hierarchy.join(format!("{}/no", d.cgroup.trim_start_matches('/'))));
    }
    d.set_env(&[("BERTH_BOOT_ID", "00000000-1111-2222-3333-444444444444")]);
    d.restart().await;
    for id in ["always", "was-stopped"] {
        let c = eventually("it runs again", async || {
            d.try_get(id)
                .await
                .ok()
                .filter(|c| c.state() == ContainerState::Running)
        })
        .await;
        assert_eq!(c.restart_count, 1, "{id}");
        assert_ne!(c.incarnation, before.incarnation);
    }
    for id in ["unless", "done"] {
        let c = eventually("it is there", async || d.try_get(id).await.ok()).await;
        assert_eq!(c.state(), ContainerState::Stopped, "{id}");
    }
    for id in ["deleted", "no", "last"] {
        assert!(d.try_get(id).await.is_err(), "{id}");
    }
    for id in ["always", "was-stopped", "unless", "done"] {
        d.try_delete(id, true).await.expect("delete");
    }
}

pub async fn update_takes_it_back(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("loop", "exit 1");
    d.try_run(spec(&b, RestartPolicy::Always, 0)).await.expect("run");
    reaches(&d, "loop", "a pause long enough", |c| {
        c.restart_count >= 3 && c.state() == ContainerState::Restarting
    })
    .await;
    let update = v1::UpdateRequest {
        id: "loop".into(),
        restart: Some(RestartPolicy::No.into()),
        ..Default::default()
    };
    d.api().update(update).await.expect("update");
    let c = d.get("loop").await;
    assert_eq!((c.state(), c.restart()), (ContainerState::Stopped, RestartPolicy::No));
    d.delete("loop").await;
}

/// Nothing is left, whichever moment it was.
pub async fn deleted_while_it_waits(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    for n in 0..6 {
        let id = format!("loop{n}");
        let b = d.sh(&id, "exit 1");
        d.try_run(spec(&b, RestartPolicy::Always, 0)).await.expect("run");
        reaches(&d, &id, "another life", |c| c.restart_count >= n % 3).await;
        d.try_delete(&id, true).await.expect("delete");
        assert!(d.try_get(&id).await.is_err());
    }
    d.kill_and_restart().await;
    assert!(d.list().await.is_empty());
    assert!(std::fs::read_dir(d.root().join("logs")).expect("logs").next().is_none());
}

/// Its bundle is gone, and comes back.
pub async fn one_that_cannot_be_made_again_stays_and_is_tried(rt: Runtime) {
    let d = Options::new(rt).start().await;
    let b = d.sh("bundle", "echo life; exit 1");
    let config = b.dir.join("config.json");
    d.try_run(spec(&b, RestartPolicy::Always, 0)).await.expect("run");
    let text = std::fs::read(&config).expect("config.json");
    std::fs::remove_file(&config).expect("remove");
    let c = reaches(&d, "bundle", "a start that failed", |c| {
        c.exit
            .as_ref()
            .is_some_and(|e| e.reason() == v1::ExitReason::StartFailed)
    })
    .await;
    assert!(
        matches!(c.state(), ContainerState::Restarting | ContainerState::Stopped),
        "{c:?}"
    );
    std::fs::write(&config, text).expect("config.json");
    let lines = d.logs("bundle").await.len();
    reaches(&d, "bundle", "a life", |c| {
        c.exit.as_ref().is_some_and(|e| e.reason() == v1::ExitReason::Exited)
    })
    .await;
    assert!(d.logs("bundle").await.len() >= lines);
    d.try_delete("bundle", true).await.expect("delete");
}

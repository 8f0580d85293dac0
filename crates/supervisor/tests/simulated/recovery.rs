//! What a container recovers from: lost answers, lost connections, a daemon that died in between, and a defect of ours.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fake::World;
use crate::place::Place;
use crate::{history, key};
use berth_core::{ErrorCode, EventKind, RequestId, Stdio};
use berth_supervisor::{ContainerState, ExecProcess, ExecSpec, StopSpec, Supervisor};

/// One that is dropped dies as of SIGKILL.
fn daemon() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits for a fact that nobody tells.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}: never"));
}

async fn state(supervisor: &Supervisor, id: &str) -> ContainerState {
    supervisor.look(&key(id)).await.unwrap().state
}

#[tokio::test(start_paused = true)]
async fn ended_execs_of_callers_that_never_delete_are_forgotten() {
    let (place, world) = (Place::new("forgotten"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    let shim = world.shim("default/a");
    let exec = async |id: String| {
        let spec = ExecSpec {
            exec_id: Some(id.parse().unwrap()),
            process: ExecProcess::Json(b"{}".to_vec()),
            stdio: Stdio::null(),
        };
        supervisor.exec(key("a"), spec, None).await.unwrap();
    };
    exec("running".into()).await;
    for i in 0..103 {
        let id = format!("e{i}");
        exec(id.clone()).await;
        shim.end_exec(&id);
        let ended = supervisor.wait(key("a"), Some(id.parse().unwrap())).await;
        assert_eq!(ended.unwrap().code, 0);
    }
    until("the oldest are forgotten", async || {
        supervisor.look(&key("a")).await.unwrap().execs.len() == 101
    })
    .await;
    assert_eq!(shim.forgotten(), ["e0", "e1", "e2"]);
    let left = supervisor.look(&key("a")).await.unwrap().execs;
    assert!(left.iter().any(|e| e.exec_id.as_str() == "running"), "it has not ended");
}

#[test]
fn an_oom_kill_is_told_once() {
    let (place, world) = (Place::new("oom"), World::new());
    let shim = world.shim("default/kept");
    shim.be_deaf(true);
    let ooms = async |supervisor: &Supervisor| {
        let events = history(supervisor).await;
        let ooms = events.iter().filter(|e| e.what.kind == EventKind::Oom);
        ooms.map(|e| e.what.oom_kills).collect::<Vec<_>>()
    };
    let first = daemon();
    first.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
        shim.oom(1);
        until("it is told", async || ooms(&supervisor).await == [1]).await;
    });
    drop(first);
    assert_eq!(shim.untold(), 1);
    shim.be_deaf(false);
    daemon().block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.adopted().await;
        until("it is acknowledged", async || shim.untold() == 0).await;
        shim.oom(2);
        until("the next one is told", async || ooms(&supervisor).await.contains(&2)).await;
        assert_eq!(ooms(&supervisor).await, [1, 2]);
    });
}

#[test]
fn a_list_does_not_wait_for_an_adoption_that_hangs() {
    let (place, world) = (Place::new("list"), World::new());
    let shim = world.shim("default/kept");
    let first = daemon();
    first.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
        supervisor.run(place.spec("", "kept2"), None).await.unwrap();
    });
    drop(first);
    // As if the daemon had died before it was told that the container was made: it is undone, and that hangs.
    let layout = berth_record::Layout::new(&place.config().state, &place.config().root);
    let folder = berth_record::Folder::open(&layout, &key("kept")).unwrap();
    let mut record = folder.container().unwrap().unwrap();
    record.state = berth_record::StateRecord::Creating;
    folder.write_container(&record).unwrap();
    shim.be_half_made();
    shim.hang_at_delete();
    daemon().block_on(async {
        let mut config = place.config();
        config.shim.adopt_timeout = Duration::from_millis(200);
        let supervisor = place.daemon(&world, config).await;
        let listing = supervisor.list(None, Default::default(), false);
        let listed = tokio::time::timeout(Duration::from_secs(3), listing).await;
        let listed = listed.expect("it does not wait").unwrap();
        let listed: Vec<_> = listed.iter().map(|c| (c.key.id.as_str(), c.state)).collect();
        assert_eq!(
            listed,
            [("kept", ContainerState::Creating), ("kept2", ContainerState::Running)]
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_not_answered_in_time_can_be_resumed() {
    let (place, world) = (Place::new("pause"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    world.shim("default/a").pause_quietly();
    let error = supervisor.pause(key("a"), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
    until("it is seen", async || {
        state(&supervisor, "a").await == ContainerState::Paused
    })
    .await;
    supervisor.resume(key("a"), None).await.unwrap();
    assert_eq!(state(&supervisor, "a").await, ContainerState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_stop_uses_the_connection_that_there_is() {
    let (place, world) = (Place::new("stop"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    let shim = world.shim("default/a");
    let stopping = tokio::spawn({
        let supervisor = supervisor.clone();
        let spec = StopSpec {
            timeout: Some(Duration::from_secs(5)),
            ..Default::default()
        };
        async move { supervisor.stop(key("a"), spec, None).await }
    });
    until("the stop signal has come", async || shim.signals() == [15]).await;
    shim.hang_up();
    let exit = stopping.await.unwrap().unwrap();
    assert_eq!(exit.code, 137);
    assert_eq!(shim.signals(), [15, 9]);
}

#[test]
fn a_start_that_an_earlier_daemon_sent_is_seen_through() {
    let (place, world) = (Place::new("start"), World::new());
    let shim = world.shim("default/kept");
    shim.hold_starts();
    let start = |supervisor: &Supervisor| {
        let supervisor = supervisor.clone();
        tokio::spawn(async move { supervisor.start(key("kept"), RequestId::parse("r").unwrap()).await })
    };
    let first = daemon();
    first.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.create(place.spec("", "kept"), None).await.unwrap();
        start(&supervisor);
        until("it is sent", async || shim.starts() == 1).await;
    });
    drop(first);
    daemon().block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.adopted().await;
        assert_eq!(state(&supervisor, "kept").await, ContainerState::Starting);
        until("it is asked about", async || shim.starts() == 2).await;
        let again = start(&supervisor);
        tokio::task::yield_now().await;
        shim.let_start();
        assert_eq!(again.await.unwrap().unwrap(), 77);
        assert_eq!(state(&supervisor, "kept").await, ContainerState::Running);
        let kinds: Vec<_> = history(&supervisor).await.iter().map(|e| e.what.kind).collect();
        assert_eq!(kinds, [EventKind::Created, EventKind::Started]);
    });
}

#[test]
fn a_defect_ends_a_task_and_not_its_container() {
    let (place, world) = (Place::new("defect"), World::new());
    daemon().block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
        world.defect.store(true, Ordering::Relaxed);
        let error = supervisor.pause(key("kept"), None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled, "{error}");
        // It is adopted again, as it is.
        assert_eq!(supervisor.get(key("kept"), false).await.unwrap().pid, 77);
        supervisor.adopted().await;
        world.shim("default/kept").end(3);
        assert_eq!(supervisor.wait(key("kept"), None).await.unwrap().code, 3);
        supervisor.delete(key("kept"), None, false, None).await.unwrap();
        assert!(fs::read_dir(place.path().join("state/c")).unwrap().next().is_none());
    });
}

#[tokio::test(start_paused = true)]
async fn parameters_that_no_frame_holds_are_the_callers_mistake() {
    let (place, world) = (Place::new("long"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    let spec = ExecSpec {
        exec_id: None,
        process: ExecProcess::Json(vec![b' '; 5 << 20]),
        stdio: Stdio::null(),
    };
    let error = supervisor.exec(key("a"), spec, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    let json = berth_supervisor::Update::Json(vec![b' '; 5 << 20]);
    let error = supervisor.update(key("a"), json, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert_eq!(state(&supervisor, "a").await, ContainerState::Running);
    assert!(supervisor.look(&key("a")).await.unwrap().execs.is_empty());
}

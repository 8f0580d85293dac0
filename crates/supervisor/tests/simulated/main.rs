//! The supervisor on simulated time, with fake shims: what takes a minute here takes none to test.

mod disks;
mod fake;
mod place;
mod recovery;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use crate::fake::World;
use crate::place::Place;
use berth_core::{ContainerKey, ErrorCode, EventKind, ExitReason, ExitStatus, RequestId};
use berth_supervisor::events::{Bus, EventStream, Journal};
use berth_supervisor::{ContainerState, Event, EventItem, EventQuery, Since, Supervisor};
use tokio::time::Instant;

fn key(id: &str) -> ContainerKey {
    ContainerKey::parse("", id).unwrap()
}

/// All of them, and then those to come unless only the past is wanted.
async fn events(supervisor: &Supervisor, history_only: bool) -> EventStream {
    let query = EventQuery {
        namespace: None,
        since: Since::Oldest,
        id: None,
        history_only,
        kinds: Vec::new(),
    };
    supervisor.events(query).await.unwrap()
}

async fn history(supervisor: &Supervisor) -> Vec<Event> {
    let mut stream = events(supervisor, true).await;
    let mut events = Vec::new();
    while let Some(item) = stream.next().await {
        if let EventItem::Event(event) = item {
            events.push(event);
        }
    }
    events
}

#[tokio::test(start_paused = true)]
async fn hung_starts_give_their_permits_back() {
    let (place, world) = (Place::new("hung"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    let began = Instant::now();
    let hung: Vec<_> = (0..50)
        .map(|i| {
            let (supervisor, spec) = (supervisor.clone(), place.spec("", &format!("hung{i}")));
            tokio::spawn(async move { supervisor.run(spec, None).await })
        })
        .collect();
    while supervisor.metrics().queue_length + supervisor.metrics().starts_at_work < 50 {
        tokio::task::yield_now().await;
    }
    supervisor.run(place.spec("", "good"), None).await.unwrap();
    // Five rounds of ten permits, 50 ms each.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(
        supervisor.get(key("good"), false).await.unwrap().state,
        ContainerState::Running
    );
    for start in hung {
        assert_eq!(start.await.unwrap().unwrap_err().code(), ErrorCode::Timeout);
    }
    assert!(began.elapsed() < Duration::from_secs(62), "{:?}", began.elapsed());
    let metrics = supervisor.metrics();
    assert_eq!(
        (metrics.starts_ok, metrics.starts_failed, metrics.starts_at_work),
        (1, 50, 0)
    );
    assert_eq!(place.folders(), ["default:good"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_start_is_dropped_with_its_caller_and_one_at_work_completes() {
    let (place, world) = (Place::new("cancel"), World::new());
    let mut config = place.config();
    config.start.concurrency = 1;
    let supervisor = place.daemon(&world, config).await;
    let start = |id: &str, request: Option<&str>| {
        let (supervisor, spec) = (supervisor.clone(), place.spec("", id));
        let request = RequestId::parse(request.unwrap_or_default()).unwrap();
        tokio::spawn(async move { supervisor.run(spec, request).await })
    };
    let hung = start("hung", None);
    while supervisor.metrics().starts_at_work == 0 {
        tokio::task::yield_now().await;
    }
    let queued = start("queued", Some("r"));
    while supervisor.metrics().queue_length == 0 {
        tokio::task::yield_now().await;
    }
    queued.abort();
    hung.abort();
    while supervisor.metrics().starts_cancelled == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        supervisor.get(key("queued"), false).await.unwrap_err().code(),
        ErrorCode::NotFound
    );
    // It had its permit, so it goes on without a caller, to its deadline.
    assert_eq!(
        supervisor.get(key("hung"), false).await.unwrap().state,
        ContainerState::Creating
    );
    // The same request had no effect, so it is a new one now; and the same again is the same.
    let first = start("queued", Some("r")).await.unwrap().unwrap();
    let again = start("queued", Some("r")).await.unwrap().unwrap();
    assert_eq!(first, again);
    assert_eq!(
        start("queued", None).await.unwrap().unwrap_err().code(),
        ErrorCode::AlreadyExists
    );
    assert_eq!(
        start("other", Some("r")).await.unwrap().unwrap_err().code(),
        ErrorCode::InvalidArgument
    );
    // Deleting what is being created ends that.
    supervisor.delete(key("hung"), None, true, None).await.unwrap();
    supervisor.delete(key("hung"), None, false, None).await.unwrap();
    assert_eq!(place.folders(), ["default:queued"]);
}

/// The daemon dies somewhere between the journaling of an exit and its acknowledgement; a runtime that is dropped stands for it.
fn crash_between_journal_and_ack(name: &str, marked: bool) {
    let (place, world) = (Place::new(name), World::new());
    let daemon = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let shim = world.shim("default/kept");
    shim.be_deaf(true);

    let runtime = daemon();
    runtime.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        let request = RequestId::parse("r").unwrap();
        supervisor.run(place.spec("", "kept"), request).await.unwrap();
        shim.end(3);
        assert_eq!(supervisor.wait(key("kept"), None).await.unwrap().code, 3);
    });
    drop(runtime);
    if !marked {
        fs::remove_file(place.path().join("state/c/default:kept/exit.seq")).unwrap();
    }
    assert_eq!(shim.untold(), 1);
    shim.be_deaf(false);

    let runtime = daemon();
    runtime.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        // It waits for the adoption.
        assert_eq!(supervisor.wait(key("kept"), None).await.unwrap().code, 3);
        supervisor.adopted().await;
        // A start that completed is found again by its request id.
        supervisor
            .run(place.spec("", "kept"), RequestId::parse("r").unwrap())
            .await
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while shim.untold() > 0 {
            assert!(Instant::now() < deadline, "never acknowledged");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let events = history(&supervisor).await;
        let kinds: Vec<_> = events.iter().map(|e| e.what.kind).collect();
        assert_eq!(kinds, [EventKind::Created, EventKind::Started, EventKind::Exited]);
    });
}

#[test]
fn an_exit_that_was_marked_but_not_acknowledged_has_one_number() {
    crash_between_journal_and_ack("marked", true);
}

#[test]
fn an_exit_that_was_journaled_but_not_marked_has_one_number() {
    crash_between_journal_and_ack("journaled", false);
}

#[test]
fn a_broken_record_costs_its_container_only() {
    let (place, world) = (Place::new("broken"), World::new());
    let daemon = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let runtime = daemon();
    runtime.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
        supervisor.run(place.spec("", "kept2"), None).await.unwrap();
    });
    drop(runtime);
    fs::write(place.path().join("state/c/default:kept/container.json"), "no record").unwrap();
    fs::create_dir(place.path().join("state/c/default:half")).unwrap();
    fs::create_dir(place.path().join(format!("state/c/default:old~{}", "0f".repeat(16)))).unwrap();

    daemon().block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        let broken = supervisor.get(key("kept"), false).await.unwrap();
        let exit = broken.exit.expect("lost");
        assert!(exit.message.contains("container.json"), "{exit:?}");
        assert_eq!(
            supervisor.get(key("kept2"), false).await.unwrap().state,
            ContainerState::Running
        );
        supervisor.adopted().await;
        let refused = supervisor.run(place.spec("", "kept"), None).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::AlreadyExists);
        supervisor.delete(key("kept"), None, true, None).await.unwrap();
        supervisor.delete(key("kept2"), None, true, None).await.unwrap();
        // A folder without a record, and one that was on its way out, go by themselves.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !place.folders().is_empty() {
            assert!(Instant::now() < deadline, "{:?}", place.folders());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// The state folder's journal, as long as its file system has room.
struct Fillable {
    journal: berth_record::Journal,
    full: Arc<AtomicBool>,
}

impl Journal for Fillable {
    fn epoch(&self) -> u64 {
        Journal::epoch(&self.journal)
    }

    fn first(&self) -> u64 {
        self.journal.first()
    }

    fn next(&self) -> u64 {
        self.journal.next()
    }

    fn append(&mut self, record: &[u8]) -> io::Result<u64> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.journal.append(record)?)
    }

    fn read(&mut self, from: u64, max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        Ok(self.journal.read(from, max)?)
    }
}

/// A container `a` that runs, and from then on no room for its events until the flag is taken down.
async fn with_a_full_journal(name: &str) -> (Place, Arc<World>, Supervisor, Arc<AtomicBool>) {
    let (place, world) = (Place::new(name), World::new());
    let full = Arc::new(AtomicBool::new(false));
    let journal = Fillable {
        journal: place.journal(&place.config()),
        full: full.clone(),
    };
    let supervisor = place.daemon_with(&world, place.config(), Bus::new(journal)).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    full.store(true, Ordering::Relaxed);
    (place, world, supervisor, full)
}

#[tokio::test(start_paused = true)]
async fn events_that_a_full_journal_did_not_take_are_bounded() {
    let (_place, world, supervisor, full) = with_a_full_journal("bounded").await;
    let mut changes = 0;
    let error = loop {
        let change = match changes % 2 {
            0 => supervisor.pause(key("a"), None).await,
            _ => supervisor.resume(key("a"), None).await,
        };
        match change {
            Ok(()) => changes += 1,
            Err(error) => break error,
        }
        assert!(changes < 2000, "no end to it");
    };
    assert_eq!((error.code(), changes), (ErrorCode::Resources, 1000), "{error}");
    // Whatever ends it is taken all the same, and what waited is told in its order.
    world.shim("default/a").end(3);
    assert_eq!(supervisor.wait(key("a"), None).await.unwrap().code, 3);
    full.store(false, Ordering::Relaxed);
    let (mut told, mut paused) = (events(&supervisor, false).await, 0);
    loop {
        match told.next().await {
            Some(EventItem::Event(event)) if event.what.kind == EventKind::Paused => paused += 1,
            Some(EventItem::Event(event)) if event.what.kind == EventKind::Exited => break,
            Some(_) => {}
            None => panic!("the events end"),
        }
    }
    assert_eq!(paused, 500);
    supervisor.pause(key("a"), None).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_a_full_journal_did_not_take_outlives_its_container() {
    let (place, world, supervisor, full) = with_a_full_journal("full").await;
    world.shim("default/a").end(3);
    assert_eq!(supervisor.wait(key("a"), None).await.unwrap().code, 3);
    supervisor.delete(key("a"), None, false, None).await.unwrap();
    // Its id is free; the rest is kept for the next daemon, should this one die before it can tell.
    assert!(!place.folders().contains(&"default:a".to_owned()));
    full.store(false, Ordering::Relaxed);
    let mut kinds = Vec::new();
    let mut told = events(&supervisor, false).await;
    while kinds.last() != Some(&EventKind::Deleted) {
        if let Some(EventItem::Event(event)) = told.next().await {
            kinds.push(event.what.kind);
        }
    }
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Started,
            EventKind::Exited,
            EventKind::Deleted
        ]
    );
    while !place.folders().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_deleted_without_its_shim_has_an_end() {
    let (place, world) = (Place::new("unseen"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    let waiter = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.wait(key("a"), None).await }
    });
    world.shim("default/a").be_mute(true);
    let deleted = supervisor.delete(key("a"), None, true, None).await.unwrap();
    assert_eq!(deleted.exit.unwrap().reason, ExitReason::Lost);
    assert_eq!(waiter.await.unwrap().unwrap().reason, ExitReason::Lost);
    let kinds: Vec<_> = history(&supervisor).await.iter().map(|e| e.what.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Started,
            EventKind::Exited,
            EventKind::Deleted
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_an_earlier_daemon_sent_is_this_one() {
    let (place, world) = (Place::new("under-way"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.create(place.spec("", "a"), None).await.unwrap();
    world.shim("default/a").was_started_before();
    assert_eq!(supervisor.start(key("a"), None).await.unwrap(), 77);
    assert_eq!(
        supervisor.get(key("a"), false).await.unwrap().state,
        ContainerState::Running
    );
}

/// SIGKILL of a daemon right after it has sent an exec: the next one answers its request and tells its end.
#[test]
fn an_exec_that_an_earlier_daemon_sent_is_this_one() {
    exec_of_an_earlier_daemon("exec-sent", false);
}

/// The same with a shim that does not answer the next daemon at first.
#[test]
fn an_exec_that_an_earlier_daemon_sent_is_found_when_its_shim_answers_again() {
    exec_of_an_earlier_daemon("exec-mute", true);
}

fn exec_of_an_earlier_daemon(name: &str, mute: bool) {
    let (place, world) = (Place::new(name), World::new());
    let daemon = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let first = daemon();
    first.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
    });
    drop(first);
    let shim = world.shim("default/kept");
    shim.makes("e", "r");
    shim.be_mute(mute);
    daemon().block_on(async {
        let mut config = place.config();
        config.shim.adopt_timeout = Duration::from_millis(500);
        let supervisor = place.daemon(&world, config).await;
        supervisor.adopted().await;
        shim.be_mute(false);
        let knows_it = async {
            while supervisor.get(key("kept"), false).await.unwrap().execs.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), knows_it)
            .await
            .expect("found");
        let exec = |request: &str| {
            let spec = berth_supervisor::ExecSpec {
                exec_id: None,
                process: berth_supervisor::ExecProcess::Json(b"{}".to_vec()),
                stdio: berth_core::Stdio::null(),
            };
            let (supervisor, request) = (supervisor.clone(), RequestId::parse(request).unwrap());
            tokio::spawn(async move { supervisor.exec(key("kept"), spec, request).await })
        };
        let again = exec("r");
        tokio::task::yield_now().await;
        shim.has_made(78, 9);
        let started = again.await.unwrap().unwrap();
        assert_eq!((started.pid, started.exec_id.as_str()), (78, "e"));
        let exit = supervisor.wait(key("kept"), Some("e".parse().unwrap()));
        let exit = tokio::time::timeout(Duration::from_secs(10), exit).await;
        assert_eq!(exit.expect("its end is told").unwrap().code, 9);
        let kinds: Vec<_> = history(&supervisor).await.iter().map(|e| e.what.kind).collect();
        assert_eq!(kinds[2..], [EventKind::ExecStarted, EventKind::ExecExited]);
    });
}

#[test]
fn a_shim_that_refuses_us_is_not_tried_without_a_pause_and_a_mute_one_does_not_hide_an_exit() {
    let (place, world) = (Place::new("mute"), World::new());
    let daemon = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let shims = [world.shim("default/kept"), world.shim("default/kept2")];
    let runtime = daemon();
    let incarnation = runtime.block_on(async {
        let supervisor = place.daemon(&world, place.config()).await;
        supervisor.run(place.spec("", "kept"), None).await.unwrap();
        supervisor.run(place.spec("", "kept2"), None).await.unwrap().incarnation
    });
    drop(runtime);
    let layout = berth_record::Layout::new(&place.config().state, &place.config().root);
    let folder = berth_record::Folder::open(&layout, &key("kept2")).unwrap();
    let status = ExitStatus::ended(7, 0, false, 1);
    folder
        .write_exit(&berth_record::ExitRecord::new(
            &incarnation.to_string(),
            "",
            77,
            &status,
        ))
        .unwrap();
    folder.write_exit_seq(3).unwrap();
    shims[0].be_closed(true);
    shims[1].be_mute(true);
    let before = shims[0].connections();

    daemon().block_on(async {
        let mut config = place.config();
        config.shim.adopt_timeout = Duration::from_millis(100);
        let supervisor = place.daemon(&world, config).await;
        supervisor.adopted().await;
        assert_eq!(
            supervisor.get(key("kept"), false).await.unwrap().state,
            ContainerState::Running
        );
        assert_eq!(supervisor.wait(key("kept2"), None).await.unwrap().code, 7);
        // That it is not tried in a loop has no event: some time goes by in which a loop would have tried a thousand times.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let tries = shims[0].connections() - before;
        assert!((1..=3).contains(&tries), "{tries} connections");
    });
}

#[tokio::test(start_paused = true)]
async fn the_record_says_that_a_container_is_paused() {
    let (place, world) = (Place::new("paused"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.run(place.spec("", "a"), None).await.unwrap();
    let layout = berth_record::Layout::new(&place.config().state, &place.config().root);
    let folder = berth_record::Folder::open(&layout, &key("a")).unwrap();
    let recorded = || folder.container().unwrap().unwrap().state;
    supervisor.pause(key("a"), None).await.unwrap();
    assert_eq!(recorded(), berth_record::StateRecord::Paused);
    supervisor.resume(key("a"), None).await.unwrap();
    assert_eq!(recorded(), berth_record::StateRecord::Running);
}

#[tokio::test(start_paused = true)]
async fn a_second_daemon_gets_a_clear_message() {
    let (place, world) = (Place::new("lock"), World::new());
    let _first = place.daemon(&world, place.config()).await;
    let error = Supervisor::open(place.config()).await.err().expect("refused");
    assert!(
        error.to_string().contains("another berthd has this state folder"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_hear_one_exit() {
    let (place, world) = (Place::new("waiters"), World::new());
    let supervisor = place.daemon(&world, place.config()).await;
    supervisor.create(place.spec("", "a"), None).await.unwrap();
    let waiters: Vec<_> = (0..1000)
        .map(|_| {
            let supervisor = supervisor.clone();
            tokio::spawn(async move { supervisor.wait(key("a"), None).await })
        })
        .collect();
    supervisor.start(key("a"), None).await.unwrap();
    assert_eq!(
        supervisor.start(key("a"), None).await.unwrap_err().code(),
        ErrorCode::WrongState
    );
    world.shim("default/a").end(9);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().code, 9);
    }
    supervisor.delete(key("a"), None, false, None).await.unwrap();
    assert!(place.folders().is_empty());
    assert_eq!(
        supervisor.wait(key("a"), None).await.unwrap_err().code(),
        ErrorCode::NotFound
    );
}

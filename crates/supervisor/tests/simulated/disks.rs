//! Disks that hang: only what needs them waits, and nothing that has a deadline waits for ever.
//!
//! A thread that hangs keeps tokio's paused clock from running by itself, so the tests move it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::fake::World;
use crate::place::Place;
use berth_core::{ContainerKey, ErrorCode, RequestId, Stdio};
use berth_supervisor::{BLOCKING_THREADS, Error, LogQuery, RunSpec, Started, Supervisor};
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn key(id: &str) -> ContainerKey {
    ContainerKey::parse("", id).unwrap()
}

/// One whose output is kept.
fn logged(place: &Place, id: &str) -> RunSpec {
    RunSpec {
        stdio: Stdio::default(),
        ..place.spec("", id)
    }
}

fn start(supervisor: &Supervisor, spec: RunSpec) -> JoinHandle<Result<Started, Error>> {
    let supervisor = supervisor.clone();
    tokio::spawn(async move { supervisor.run(spec, None).await })
}

/// Who sees whether anything goes on at all.
struct Seen(Supervisor, Arc<World>);

/// Moves the clock until this is done, by at most `limit`, and only when every thread that is at work hangs.
async fn within<T>(Seen(supervisor, world): &Seen, limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => {}
        }
        if supervisor.busy_threads() == world.disks.hung() {
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() <= limit, "not done within {limit:?}");
    }
}

/// As the daemon's own runtime, on a clock that is moved.
fn simulate(test: impl AsyncFnOnce(Place, Arc<World>, Supervisor), name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .unwrap();
    let world = World::new();
    let disks = world.disks.clone();
    runtime.block_on(async {
        let place = Place::new(name);
        let supervisor = place.daemon(&world, place.config()).await;
        test(place, world, supervisor).await;
    });
    disks.recover();
}

#[test]
fn a_hung_log_disk_holds_up_nobody_else() {
    simulate(
        async |place, world, supervisor| {
            let scene = Seen(supervisor.clone(), world.clone());
            supervisor.run(logged(&place, "a"), None).await.unwrap();
            world.disks.hang(place.path().join("root"));
            let mut hung: Vec<_> = (0..2 * BLOCKING_THREADS)
                .map(|_| {
                    let query = LogQuery {
                        key: key("a"),
                        follow: false,
                        tail: None,
                        since: 0,
                        until: 0,
                        cursor: String::new(),
                        streams: Vec::new(),
                    };
                    let supervisor = supervisor.clone();
                    tokio::spawn(async move { supervisor.logs(query).await.map(drop) })
                })
                .collect();
            within(
                &scene,
                Duration::from_secs(1),
                tokio::time::sleep(Duration::from_millis(500)),
            )
            .await;
            within(
                &scene,
                Duration::from_secs(1),
                supervisor.run(place.spec("", "b"), None),
            )
            .await
            .unwrap();
            let seen = within(&scene, Duration::from_secs(1), supervisor.get(key("b"), true)).await;
            assert_eq!(seen.unwrap().pid, 77);
            let runtimes = within(&scene, Duration::from_secs(5), supervisor.runtimes()).await;
            assert!(!runtimes.is_empty());
            assert!(!hung.pop().unwrap().is_finished());
        },
        "hung-logs",
    );
}

#[test]
fn hung_bundles_hold_up_nobody_else_and_have_a_deadline() {
    simulate(
        async |place, world, supervisor| {
            let scene = Seen(supervisor.clone(), world.clone());
            let dead = place.path().join("nfs");
            world.disks.hang(&dead);
            let hung: Vec<_> = (0..2 * BLOCKING_THREADS)
                .map(|i| {
                    let spec = RunSpec {
                        bundle: dead.clone(),
                        start_timeout: Some(Duration::from_secs(9)),
                        ..place.spec("", &format!("hung{i}"))
                    };
                    start(&supervisor, spec)
                })
                .collect();
            within(
                &scene,
                Duration::from_secs(2),
                supervisor.run(place.spec("", "good"), None),
            )
            .await
            .unwrap();
            for start in hung {
                let error = within(&scene, Duration::from_secs(20), start)
                    .await
                    .unwrap()
                    .unwrap_err();
                assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
            }
        },
        "hung-bundles",
    );
}

#[test]
fn deadlines_hold_on_a_hung_log_disk_and_the_next_log_of_a_name_is_its_own() {
    simulate(
        async |place, world, supervisor| {
            let scene = Seen(supervisor.clone(), world.clone());
            let logs = place.path().join("root/logs");
            supervisor.run(logged(&place, "old"), None).await.unwrap();
            fs::write(logs.join("default:old/log"), "old").unwrap();
            world.disks.hang(&logs);

            // A start that can't make its log is undone, though its log can't be removed either.
            let spec = RunSpec {
                start_timeout: Some(Duration::from_secs(1)),
                ..logged(&place, "new")
            };
            let error = within(&scene, Duration::from_secs(8), start(&supervisor, spec))
                .await
                .unwrap();
            assert_eq!(error.unwrap_err().code(), ErrorCode::Timeout);
            let gone = supervisor.get(key("new"), false).await.unwrap_err();
            assert_eq!(gone.code(), ErrorCode::NotFound);

            // A delete answers, and says what is left.
            let deleted = within(
                &scene,
                Duration::from_secs(8),
                supervisor.delete(key("old"), None, true, None),
            );
            let left = deleted.await.unwrap().left;
            assert!(left.len() == 1 && left[0].contains("default:old"), "{left:?}");

            // The id is free; a container that keeps no log does not wait for it.
            within(
                &scene,
                Duration::from_secs(1),
                supervisor.run(place.spec("", "old"), None),
            )
            .await
            .unwrap();
            within(
                &scene,
                Duration::from_secs(1),
                supervisor.delete(key("old"), None, true, None),
            )
            .await
            .unwrap();

            // One that keeps a log waits for the disk, and then has its own.
            let next = start(&supervisor, logged(&place, "old"));
            within(
                &scene,
                Duration::from_secs(3),
                tokio::time::sleep(Duration::from_secs(2)),
            )
            .await;
            assert!(!next.is_finished());
            world.disks.recover();
            within(&scene, Duration::from_secs(5), next).await.unwrap().unwrap();
            assert!(!logs.join("default:old/log").exists());
            fs::write(logs.join("default:old/log"), "its own").unwrap();
            let clean = async {
                while place.folders() != ["default:old"] || fs::read_dir(&logs).unwrap().count() > 1 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            within(&scene, Duration::from_secs(120), clean).await;
            assert_eq!(fs::read(logs.join("default:old/log")).unwrap(), b"its own");
        },
        "hung-log-folders",
    );
}

#[test]
fn a_repeated_request_does_not_go_with_the_call_that_it_joined() {
    simulate(
        async |place, world, supervisor| {
            let scene = Seen(supervisor.clone(), world.clone());
            world.disks.hang(place.path().join("bundle"));
            let call = || {
                let (supervisor, spec) = (supervisor.clone(), place.spec("", "a"));
                let request = RequestId::parse("r").unwrap();
                tokio::spawn(async move { supervisor.run(spec, request).await })
            };
            let first = call();
            tokio::task::yield_now().await;
            let again = call();
            tokio::task::yield_now().await;
            first.abort();
            tokio::task::yield_now().await;
            world.disks.recover();
            let started = within(&scene, Duration::from_secs(5), again).await.unwrap();
            assert_eq!(started.unwrap().pid, 77);
        },
        "joined",
    );
}

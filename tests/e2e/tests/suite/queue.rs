//! The start queue: ten at work, any number waiting, in order, fair; permits come back; deadlines undo.
use berth_e2e::v1::{self, ContainerState, ErrorCode, EventKind};
use berth_e2e::{Daemon, LIMIT, Options, Runtime, assert_fails, eventually, on_both, proc, until, within};
use std::time::{Duration, Instant};
use tonic::Status;

on_both!(
    fifty_hung_hooks_hold_no_permit,
    fifty_hung_runtimes_hold_no_permit,
    ten_thousand_requests_on_one_connection,
    in_order,
    fair_between_namespaces,
    deadline_undoes,
    grpc_deadline_drops_what_is_queued,
    cancel_drops_what_is_queued,
    cancelled_at_work_completes_and_is_found_again,
    no_more_than_the_concurrency_at_work,
);

type Started = tokio::task::JoinHandle<Result<v1::RunResponse, Status>>;

/// Sends Run and does not wait for it.
fn send(d: &Daemon, spec: v1::ContainerSpec) -> Started {
    let mut api = d.api();
    let request = v1::RunRequest {
        container: Some(spec),
        ..Default::default()
    };
    tokio::spawn(async move { Ok(api.run(request).await?.into_inner()) })
}

async fn count(d: &Daemon, wanted: &[ContainerState]) -> usize {
    d.list().await.iter().filter(|c| wanted.contains(&c.state())).count()
}

async fn states(d: &Daemon, what: &str, wanted: &[ContainerState], n: usize) {
    eventually(what, || async { (count(d, wanted).await == n).then_some(()) }).await;
}

/// The best of a few: this compares two states of one daemon and is no measurement.
async fn best_start(d: &Daemon, name: &str) -> Duration {
    let mut best = Duration::MAX;
    for i in 0..7 {
        let b = d.sh(&format!("{name}{i}"), "exit 0");
        let start = Instant::now();
        d.run(&b).await;
        best = best.min(start.elapsed());
        d.wait(&b.id).await;
    }
    best
}

async fn the_fifty_first(d: &Daemon, hang: impl Fn(usize) -> v1::ContainerSpec) {
    let normal = best_start(d, "normal").await;
    let hung: Vec<_> = (0..50).map(|i| send(d, hang(i))).collect();
    states(d, "all fifty are at work", &[ContainerState::Creating], 50).await;
    let after = best_start(d, "after").await;
    println!("a start takes {normal:?}, behind 50 hung ones {after:?}");
    assert!(after < normal * 2, "{after:?} against {normal:?}");
    for task in &hung {
        task.abort();
    }
    for i in 0..50 {
        d.delete(&format!("hung{i}")).await;
    }
}

/// Hooks that never come back use nothing, so they hold no permit.
pub async fn fifty_hung_hooks_hold_no_permit(rt: Runtime) {
    let d = Daemon::start(rt).await;
    the_fifty_first(&d, |i| {
        d.sh(&format!("hung{i}"), "exit 0")
            .hook("createRuntime", "exec sleep 1000")
            .spec()
    })
    .await;
}

/// Nor do runtimes that hang.
pub async fn fifty_hung_runtimes_hold_no_permit(rt: Runtime) {
    let hang = "case \"$*\" in *' create '*) exec sleep 1000;; esac\nexec $REAL \"$@\"";
    let d = Options::new(rt).script("hang", hang).start().await;
    the_fifty_first(&d, |i| v1::ContainerSpec {
        runtime: "hang".into(),
        ..d.sh(&format!("hung{i}"), "exit 0").spec()
    })
    .await;
}

/// A runtime that works hard, and so keeps its permit, until the file `go` is there.
const SPIN: &str = "case \"$*\" in *' create '*) while [ ! -e $DIR/go ]; do :; done;; esac\nexec $REAL \"$@\"";

async fn spinning(rt: Runtime, concurrency: usize) -> Daemon {
    Options::new(rt)
        .script("spin", SPIN)
        .config(&format!("[start]\nconcurrency = {concurrency}"))
        .start()
        .await
}

fn spin(d: &Daemon, id: &str) -> v1::ContainerSpec {
    v1::ContainerSpec {
        runtime: "spin".into(),
        ..d.sh(id, "exit 0").spec()
    }
}

fn go(d: &Daemon) {
    std::fs::write(d.dir.join("go"), "").expect("go");
}

/// Takes the only permit and holds it until `go`.
async fn hold(d: &Daemon) -> Started {
    let task = send(d, spin(d, "holder"));
    states(d, "the holder is at work", &[ContainerState::Creating], 1).await;
    task
}

/// All are accepted at once, each is seen, and when the client goes away they are gone.
pub async fn ten_thousand_requests_on_one_connection(rt: Runtime) {
    let d = spinning(rt, 1).await;
    let holder = hold(&d).await;
    // None of them gets its permit, so they may share a bundle.
    let spec = d.sh("shared", "exit 0").spec();
    let tasks: Vec<_> = (0..10_000)
        .map(|i| {
            send(
                &d,
                v1::ContainerSpec {
                    id: format!("q{i}"),
                    ..spec.clone()
                },
            )
        })
        .collect();
    // A list of 10,000 is some work, so it is asked for now and then only.
    let waiting = async {
        while count(&d, &[ContainerState::Queued]).await < 10_000 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within("10,000 wait", LIMIT, waiting).await;
    assert!(tasks.iter().all(|t| !t.is_finished()), "none was refused");
    for task in &tasks {
        task.abort();
    }
    states(&d, "the dropped ones are gone", &[ContainerState::Queued], 0).await;
    go(&d);
    within("the holder", LIMIT, holder).await.expect("join").expect("run");
    d.run_to_end(&d.sh("next", "exit 0")).await;
    assert_eq!(d.list().await.len(), 2);
}

async fn started_order(d: &Daemon) -> Vec<String> {
    let started = |e: &v1::Event| e.kind() == EventKind::Started && e.id != "holder";
    d.history().await.into_iter().filter(started).map(|e| e.id).collect()
}

/// First come, first served.
pub async fn in_order(rt: Runtime) {
    let d = spinning(rt, 1).await;
    let mut tasks = vec![hold(&d).await];
    for i in 0..15 {
        tasks.push(send(&d, d.sh(&format!("o{i:02}"), "exit 0").spec()));
        states(&d, "it waits", &[ContainerState::Queued], i + 1).await;
    }
    go(&d);
    for task in tasks {
        within("run", LIMIT, task).await.expect("join").expect("run");
    }
    let mut sorted = started_order(&d).await;
    sorted.sort();
    assert_eq!(started_order(&d).await, sorted);
}

/// One namespace's crowd does not keep another waiting.
pub async fn fair_between_namespaces(rt: Runtime) {
    let d = spinning(rt, 1).await;
    let mut tasks = vec![hold(&d).await];
    for i in 0..20 {
        tasks.push(send(&d, d.sh(&format!("crowd{i:02}"), "exit 0").spec()));
    }
    states(&d, "the crowd waits", &[ContainerState::Queued], 20).await;
    for i in 0..3 {
        let spec = d.sh(&format!("few{i}"), "exit 0").spec();
        tasks.push(send(
            &d,
            v1::ContainerSpec {
                namespace: "few".into(),
                ..spec
            },
        ));
        states(&d, "the few wait", &[ContainerState::Queued], 21 + i).await;
    }
    go(&d);
    for task in tasks {
        within("run", LIMIT, task).await.expect("join").expect("run");
    }
    let order = started_order(&d).await;
    let last = order.iter().rposition(|id| id.starts_with("few")).expect("the few");
    assert!(last < 8, "they take turns: {order:?}");
}

/// A start that takes too long is undone, wholly, and its id is free.
pub async fn deadline_undoes(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let line = format!("echo $$ > {}/late.pid; exec sleep 1000", d.dir.display());
    let hung = d.sh("late", "exit 0").hook("createRuntime", &line);
    let spec = v1::ContainerSpec {
        start_timeout_ms: 700,
        ..hung.spec()
    };
    assert_fails(d.try_run(spec).await, ErrorCode::Timeout, &["late"]);
    let hook: u32 = std::fs::read_to_string(d.dir.join("late.pid"))
        .expect("the hook ran")
        .trim()
        .parse()
        .expect("pid");
    until("the hook is gone", || (!proc::alive(hook)).then_some(())).await;
    until("its folder is gone", || (!d.folder("late").exists()).then_some(())).await;
    assert!(d.list().await.is_empty());
    assert_eq!(d.run_to_end(&d.sh("late", "exit 3")).await.code, 3);
    let failed = d
        .history()
        .await
        .into_iter()
        .filter(|e| e.kind() == EventKind::StartFailed)
        .count();
    assert_eq!(failed, 1);
}

/// The client's own deadline drops a start that still waits.
pub async fn grpc_deadline_drops_what_is_queued(rt: Runtime) {
    let d = spinning(rt, 1).await;
    let holder = hold(&d).await;
    let request = v1::RunRequest {
        container: Some(d.sh("late", "exit 0").spec()),
        ..Default::default()
    };
    let request = berth_e2e::calls::with_timeout(request, Duration::from_millis(300));
    let refused = within("the deadline", LIMIT, d.api().run(request))
        .await
        .expect_err("it waits");
    assert!(
        matches!(refused.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled),
        "{refused:?}"
    );
    states(&d, "it is dropped", &[ContainerState::Queued], 0).await;
    go(&d);
    within("the holder", LIMIT, holder).await.expect("join").expect("run");
    assert!(
        d.history()
            .await
            .iter()
            .all(|e| e.id != "late" || e.kind() != EventKind::Started)
    );
}

pub async fn cancel_drops_what_is_queued(rt: Runtime) {
    let d = spinning(rt, 1).await;
    let holder = hold(&d).await;
    let b = d.sh("dropped", "exit 0");
    let task = send(&d, b.spec());
    states(&d, "it waits", &[ContainerState::Queued], 1).await;
    task.abort();
    eventually("it is dropped", || async {
        d.try_get("dropped").await.is_err().then_some(())
    })
    .await;
    assert!(!d.folder("dropped").exists());
    go(&d);
    within("the holder", LIMIT, holder).await.expect("join").expect("run");
    d.run_to_end(&b).await;
}

/// Once it has its permit a start goes on without its client, and the request id finds it.
pub async fn cancelled_at_work_completes_and_is_found_again(rt: Runtime) {
    let d = spinning(rt, 2).await;
    let spec = v1::ContainerSpec {
        runtime: "spin".into(),
        ..d.sleeper("work").spec()
    };
    let request = v1::RunRequest {
        container: Some(spec),
        request_id: "req".into(),
    };
    let (mut api, r) = (d.api(), request.clone());
    let task = tokio::spawn(async move { api.run(r).await });
    states(&d, "it is at work", &[ContainerState::Creating], 1).await;
    task.abort();
    let mut api = d.api();
    let again = tokio::spawn(async move { api.run(request).await });
    go(&d);
    let run = within("the same request again", LIMIT, again)
        .await
        .expect("join")
        .expect("run")
        .into_inner();
    let c = d.get("work").await;
    assert_eq!((c.pid, c.incarnation), (run.pid, run.incarnation));
    assert_eq!(d.list().await.len(), 1);
}

pub async fn no_more_than_the_concurrency_at_work(rt: Runtime) {
    let d = spinning(rt, 3).await;
    let tasks: Vec<_> = (0..10).map(|i| send(&d, spin(&d, &format!("w{i}")))).collect();
    states(&d, "seven wait", &[ContainerState::Queued], 7).await;
    assert_eq!(count(&d, &[ContainerState::Creating]).await, 3);
    go(&d);
    for task in tasks {
        within("run", LIMIT, task).await.expect("join").expect("run");
    }
}

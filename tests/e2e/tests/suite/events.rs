//! Events: one number for ever, history then live, across restarts, no gap.
use berth_e2e::v1::events_response::Item;
use berth_e2e::v1::{self, ErrorCode, EventKind, EventsRequest};
use berth_e2e::{Daemon, LIMIT, Options, Runtime, assert_fails, on_all, until, within};
use tonic::Streaming;

on_all!(
    one_life_in_order,
    history_then_live,
    goes_on_behind_a_cursor,
    across_restart_and_kill,
    too_old_is_out_of_range,
    filters,
    no_gap_under_load,
);

async fn stream(d: &Daemon, request: EventsRequest) -> Streaming<v1::EventsResponse> {
    within("events", LIMIT, d.api().events(request))
        .await
        .expect("events")
        .into_inner()
}

async fn next(stream: &mut Streaming<v1::EventsResponse>) -> Item {
    let answer = within("an event", LIMIT, stream.message())
        .await
        .expect("events go on")
        .expect("not the end");
    answer.item.expect("an item")
}

fn kinds(events: &[v1::Event], id: &str) -> Vec<EventKind> {
    events.iter().filter(|e| e.id == id).map(v1::Event::kind).collect()
}

/// Every step of a life is an event, and it holds what it should.
pub async fn one_life_in_order(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("life", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 4");
    let run = d.try_run(b.spec()).await.expect("run");
    let id = || "life".to_owned();
    d.api()
        .pause(v1::PauseRequest {
            id: id(),
            ..Default::default()
        })
        .await
        .expect("pause");
    d.api()
        .resume(v1::ResumeRequest {
            id: id(),
            ..Default::default()
        })
        .await
        .expect("resume");
    let resources = v1::Resources {
        pids_limit: Some(99),
        ..Default::default()
    };
    d.api()
        .update(v1::UpdateRequest {
            id: id(),
            resources: Some(resources),
            ..Default::default()
        })
        .await
        .expect("update");
    std::fs::write(b.out("go"), "").expect("go");
    d.wait("life").await;
    d.delete("life").await;
    let events = d.check_exits().await;
    use EventKind::*;
    assert_eq!(
        kinds(&events, "life"),
        [Created, Started, Paused, Resumed, Updated, Exited, Deleted]
    );
    for e in &events {
        assert_eq!(
            (e.namespace.as_str(), e.incarnation.as_str()),
            ("default", run.incarnation.as_str())
        );
        assert!(e.at > 0 && e.cursor.ends_with(&format!(":{}", e.number)), "{e:?}");
    }
    assert_eq!(events[1].pid, run.pid);
    assert!(
        !events[1].stages.is_empty() && events[1].stages.iter().any(|s| s.duration_us > 0),
        "{:?}",
        events[1]
    );
    assert_eq!(events[5].exit.as_ref().expect("exit").code, 4);
}

/// "0" is all there was, then the mark, then what happens; empty is only what happens.
pub async fn history_then_live(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("old", "exit 0")).await;
    let mut all = stream(
        &d,
        EventsRequest {
            since: "0".into(),
            ..Default::default()
        },
    )
    .await;
    let mut live = stream(&d, EventsRequest::default()).await;
    let mut past = Vec::new();
    let mark = loop {
        match next(&mut all).await {
            Item::Event(e) => past.push(e),
            Item::CaughtUpCursor(c) => break c,
            Item::LaggedCursor(c) => panic!("lagged at {c}"),
        }
    };
    assert_eq!(
        kinds(&past, "old"),
        [EventKind::Created, EventKind::Started, EventKind::Exited]
    );
    assert_eq!(mark, past.last().expect("history").cursor);
    assert!(matches!(next(&mut live).await, Item::CaughtUpCursor(c) if c == mark));
    d.run_to_end(&d.sh("new", "exit 0")).await;
    for from in [&mut all, &mut live] {
        for kind in [EventKind::Created, EventKind::Started, EventKind::Exited] {
            let Item::Event(e) = next(from).await else {
                panic!("an event")
            };
            assert_eq!((e.id.as_str(), e.kind()), ("new", kind));
        }
    }
}

/// Any event's cursor goes on with exactly the next one.
pub async fn goes_on_behind_a_cursor(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for i in 0..3 {
        d.run_to_end(&d.sh(&format!("c{i}"), "exit 0")).await;
    }
    let all = d.history().await;
    assert_eq!(all.len(), 9);
    for (i, event) in all.iter().enumerate() {
        assert_eq!(
            d.history_since(event.cursor.clone()).await.expect("events"),
            all[i + 1..]
        );
    }
}

/// The history and its numbers outlive the daemon, however it ends; a reader goes on where it was.
pub async fn across_restart_and_kill(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("one", "exit 1")).await;
    let before = d.history().await;
    d.terminate().await;
    d.restart().await;
    assert_eq!(d.history().await, before);
    let b = d.sh("two", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 2");
    d.run(&b).await;
    let cursor = d.history().await.last().expect("events").cursor.clone();
    d.kill();
    std::fs::write(b.out("go"), "").expect("go");
    d.restart().await;
    assert_eq!(d.wait("two").await.code, 2);
    let after = d.history_since(cursor).await.expect("the cursor holds");
    assert_eq!(kinds(&after, "two"), [EventKind::Exited]);
    let all = d.check_exits().await;
    assert_eq!(all[..before.len()], before);
    assert!(
        all.windows(2).all(|w| w[1].number == w[0].number + 1),
        "no number is left out"
    );
}

/// Older than what is kept, or of another life of the state folder: OUT_OF_RANGE with the oldest there is.
pub async fn too_old_is_out_of_range(rt: Runtime) {
    let d = Options::new(rt).config("[events]\nkeep = 100").start().await;
    for i in 0..50 {
        d.run_to_end(&d.sh(&format!("e{i}"), "exit 0")).await;
        d.delete(&format!("e{i}")).await;
    }
    let kept = d.history().await;
    assert!(kept.len() < 200 && kept.len() >= 100, "{}", kept.len());
    let (epoch, _) = kept[0].cursor.split_once(':').expect("EPOCH:NUMBER");
    // What `since` takes to read all that is kept.
    let oldest = &format!("{epoch}:{}", kept[0].number - 1);
    let old = format!("{epoch}:1");
    assert_fails(d.history_since(old).await, ErrorCode::CursorTooOld, &[oldest.as_str()]);
    let foreign = "123456789:5".to_owned();
    assert_fails(
        d.history_since(foreign).await,
        ErrorCode::CursorTooOld,
        &[oldest.as_str()],
    );
    for bad in ["x", "1:2:3", "-1:2", "1:", ":", "99999999999999999999999:1"] {
        assert_fails(
            d.history_since(bad.into()).await,
            ErrorCode::InvalidArgument,
            &["since"],
        );
    }
    assert_eq!(
        d.history_since(oldest.clone()).await.expect("the oldest is there"),
        kept
    );
}

pub async fn filters(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for id in ["a", "b"] {
        d.run_to_end(&d.sh(id, "exit 0")).await;
    }
    let other = v1::ContainerSpec {
        namespace: "other".into(),
        ..d.sh("c", "exit 0").spec()
    };
    d.try_run(other).await.expect("run");
    let read = |request: EventsRequest| {
        let d = &d;
        async move {
            let mut from = stream(
                d,
                EventsRequest {
                    since: "0".into(),
                    history_only: true,
                    ..request
                },
            )
            .await;
            let mut ids = Vec::new();
            while let Some(answer) = from.message().await.expect("events") {
                if let Some(Item::Event(e)) = answer.item {
                    ids.push((e.id.clone(), e.kind()));
                }
            }
            ids
        }
    };
    let only_a = read(EventsRequest {
        id: "a".into(),
        ..Default::default()
    })
    .await;
    assert!(
        only_a.len() == 3 && only_a.iter().all(|(id, _)| id == "a"),
        "{only_a:?}"
    );
    let kinds = vec![EventKind::Exited.into()];
    let exits = read(EventsRequest {
        kinds,
        ..Default::default()
    })
    .await;
    assert_eq!(
        exits,
        [("a".to_owned(), EventKind::Exited), ("b".to_owned(), EventKind::Exited)]
    );
    let other = read(EventsRequest {
        namespace: "other".into(),
        kinds: vec![EventKind::Created.into()],
        ..Default::default()
    })
    .await;
    assert_eq!(other, [("c".to_owned(), EventKind::Created)]);
}

/// A live reader sees every number while many containers come and go.
pub async fn no_gap_under_load(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let mut live = stream(
        &d,
        EventsRequest {
            namespace: "*".into(),
            ..Default::default()
        },
    )
    .await;
    let mut tasks = Vec::new();
    for i in 0..30 {
        let (mut api, spec) = (d.api(), d.sh(&format!("n{i}"), "exit 0").spec());
        tasks.push(tokio::spawn(async move {
            let id = spec.id.clone();
            api.run(v1::RunRequest {
                container: Some(spec),
                ..Default::default()
            })
            .await
            .expect("run");
            api.wait(v1::WaitRequest {
                id,
                ..Default::default()
            })
            .await
            .expect("wait");
        }));
    }
    for task in tasks {
        within("run", LIMIT * 2, task).await.expect("join");
    }
    let history = d.history().await;
    assert_eq!(history.len(), 90);
    let mut seen = Vec::new();
    while seen.len() < history.len() {
        if let Item::Event(e) = next(&mut live).await {
            seen.push(e);
        }
    }
    assert_eq!(seen, history);
    until("nothing more", || Some(())).await;
}

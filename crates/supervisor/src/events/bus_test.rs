//! The bus: no gap and no double at the seam, marks for the slow, refusals with a cursor to go on from.

use berth_core::{ContainerId, ContainerKey, EventKind, ExitStatus, Namespace};
use proptest::prelude::*;

use super::super::journal::memory::Memory;
use super::*;

fn event(namespace: &str, id: &str, kind: EventKind) -> NewEvent {
    NewEvent {
        at: 1,
        kind,
        key: ContainerKey::parse(namespace, id).expect("valid"),
        incarnation: Incarnation::from_bytes([1; 16]),
        exec_id: None,
        pid: 0,
        exit: None,
        stages: Vec::new(),
        message: String::new(),
        oom_kills: 0,
    }
}

fn all(since: Since) -> EventQuery {
    EventQuery {
        namespace: None,
        since,
        id: None,
        history_only: false,
        kinds: Vec::new(),
    }
}

fn publish(bus: &Bus, count: usize) {
    for _ in 0..count {
        bus.publish(event("", "a", EventKind::Created))
            .expect("the journal has room");
    }
}

/// Everything up to and without the caught-up mark: numbers, 0 for a lag mark.
async fn history(stream: &mut EventStream) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match stream.next().await {
            Some(EventItem::Event(event)) => numbers.push(event.cursor.number),
            Some(EventItem::Lagged(_)) => numbers.push(0),
            Some(EventItem::CaughtUp(_)) | None => return numbers,
        }
    }
}

async fn number(stream: &mut EventStream) -> u64 {
    match stream.next().await {
        Some(EventItem::Event(event)) => event.cursor.number,
        other => panic!("an event was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn history_then_live_without_a_seam() {
    let bus = Bus::new(Memory::new(10_000));
    publish(&bus, 3000);
    let mut stream = bus.subscribe(all(Since::Oldest)).expect("open");
    assert_eq!(number(&mut stream).await, 1);
    publish(&bus, 2);
    assert_eq!(history(&mut stream).await, (2..=3002).collect::<Vec<_>>());
    publish(&bus, 1);
    assert_eq!(number(&mut stream).await, 3003);
}

#[tokio::test]
async fn live_readers_are_told_that_they_are_in() {
    let bus = Bus::new(Memory::new(100));
    publish(&bus, 5);
    let mut stream = bus.subscribe(all(Since::Now)).expect("open");
    publish(&bus, 1);
    assert_eq!(number(&mut stream).await, 6);
    assert!(matches!(stream.next().await, Some(EventItem::CaughtUp(c)) if c.number == 6));
    let waiting = tokio::spawn(async move { number(&mut stream).await });
    publish(&bus, 1);
    assert_eq!(waiting.await.expect("no panic"), 7);
}

#[tokio::test]
async fn a_slow_reader_is_told_where_to_go_on() {
    let bus = Bus::new(Memory::new(2000));
    publish(&bus, 10);
    let mut stream = bus.subscribe(all(Since::Oldest)).expect("open");
    assert_eq!(number(&mut stream).await, 1);
    publish(&bus, 5000);
    assert_eq!(bus.lag(), 5009);
    // What was fetched before comes first; then the mark, whose cursor is one that a new subscription accepts.
    assert_eq!(number(&mut stream).await, 2);
    let mark = loop {
        match stream.next().await {
            Some(EventItem::Event(_)) => {}
            Some(EventItem::Lagged(cursor)) => break cursor,
            other => panic!("a lag mark was expected, not {other:?}"),
        }
    };
    assert_eq!(number(&mut stream).await, mark.number + 1);
    let mut again = bus
        .subscribe(all(Since::After(mark)))
        .expect("the mark's cursor is valid");
    assert_eq!(number(&mut again).await, mark.number + 1);
    drop((stream, again));
    assert_eq!(bus.lag(), 0);
}

#[tokio::test]
async fn cursors_that_can_not_be_served() {
    let bus = Bus::new(Memory::new(10));
    publish(&bus, 30);
    let head = bus.head();
    let oldest = Cursor { number: 20, ..head };
    for bad in [
        Cursor { number: 19, ..head },
        Cursor { number: 31, ..head },
        Cursor { epoch: 1, number: 30 },
    ] {
        let error = bus.subscribe(all(Since::After(bad))).err().expect("refused");
        assert_eq!(error.code(), ErrorCode::CursorTooOld);
        assert!(error.message().contains(&oldest.to_string()), "{error}");
    }
    let mut stream = bus.subscribe(all(Since::After(oldest))).expect("the oldest");
    assert_eq!(history(&mut stream).await, (21..=30).collect::<Vec<_>>());
    let mut stream = bus.subscribe(all(Since::After(head))).expect("the newest");
    assert_eq!(history(&mut stream).await, [0u64; 0]);
}

#[tokio::test]
async fn filters() {
    let bus = Bus::new(Memory::new(100));
    for (ns, id, kind) in [
        ("x", "a", EventKind::Created),
        ("y", "a", EventKind::Created),
        ("x", "b", EventKind::Created),
        ("x", "a", EventKind::Exited),
    ] {
        bus.publish(event(ns, id, kind)).expect("room");
    }
    let query = EventQuery {
        history_only: true,
        ..all(Since::Oldest)
    };
    let x = Some(Namespace::new("x").expect("valid"));
    let a = Some(ContainerId::new("a").expect("valid"));
    for (query, expected) in [
        (
            EventQuery {
                namespace: x.clone(),
                ..query.clone()
            },
            vec![1, 3, 4],
        ),
        (
            EventQuery {
                namespace: x,
                id: a.clone(),
                ..query.clone()
            },
            vec![1, 4],
        ),
        (
            EventQuery {
                kinds: vec![EventKind::Exited],
                ..query.clone()
            },
            vec![4],
        ),
        (EventQuery { id: a, ..query.clone() }, vec![1, 2, 4]),
    ] {
        let mut stream = bus.subscribe(query).expect("open");
        assert_eq!(history(&mut stream).await, expected);
        assert!(stream.next().await.is_none(), "history_only ends");
    }
}

#[tokio::test]
async fn a_full_disk_uses_no_number_and_tells_nobody() {
    let mut journal = Memory::new(10);
    journal.full = true;
    let bus = Bus::new(journal);
    let error = bus.publish(event("", "a", EventKind::Exited)).expect_err("full");
    assert_eq!(error.code(), ErrorCode::Resources);
    let mut stream = bus.subscribe(all(Since::Oldest)).expect("open");
    assert_eq!(history(&mut stream).await, [0u64; 0]);
}

#[tokio::test]
async fn records_that_nobody_understands_are_stepped_over() {
    let mut journal = Memory::new(100);
    journal.append(b"\xff").expect("room");
    journal
        .append(&codec::encode(&event("", "a", EventKind::Created)))
        .expect("room");
    journal.append(b"\xff").expect("room");
    let bus = Bus::new(journal);
    let mut stream = bus.subscribe(all(Since::Oldest)).expect("open");
    assert_eq!(history(&mut stream).await, [2]);
    publish(&bus, 1);
    assert_eq!(number(&mut stream).await, 4);
}

#[test]
fn exits_are_found_again() {
    let bus = Bus::new(Memory::new(10_000));
    publish(&bus, 2000);
    let exited = NewEvent {
        exit: Some(ExitStatus::ended(3, 0, false, 1)),
        ..event("", "a", EventKind::Exited)
    };
    let cursor = bus.publish(exited.clone()).expect("room").cursor;
    publish(&bus, 2000);
    let exits = bus.recorded_exits();
    assert_eq!(exits.len(), 1);
    assert_eq!(exits.get(&(exited.incarnation, None)), Some(&cursor));
}

proptest! {
    /// Whatever is published between reads and wherever the history ends: every number once, in order.
    #[test]
    fn any_order_of_reads_and_writes(steps in prop::collection::vec((0usize..200, 0usize..200), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let bus = Bus::new(Memory::new(1_000_000));
            let mut stream = bus.subscribe(all(Since::Oldest)).expect("open");
            let (mut written, mut read) = (0, 0);
            for (write, take) in steps {
                publish(&bus, write);
                written += write as u64;
                for _ in 0..take {
                    if read == written {
                        break;
                    }
                    match stream.next().await {
                        Some(EventItem::Event(event)) => {
                            read += 1;
                            assert_eq!(event.cursor.number, read);
                        }
                        Some(EventItem::CaughtUp(cursor)) => assert_eq!(cursor.number, read),
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
    }
}

/// Counts what is logged as an error.
struct Errors(Arc<AtomicU64>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_full_journal_is_logged_once() {
    let mut journal = Memory::new(10);
    journal.full = true;
    let bus = Bus::new(journal);
    let errors = Arc::new(AtomicU64::new(0));
    tracing::subscriber::with_default(Errors(errors.clone()), || {
        for id in ["a", "b", "a"] {
            let refused = bus.publish(event("", id, EventKind::Created)).expect_err("full");
            assert_eq!(refused.code(), ErrorCode::Resources);
        }
    });
    assert_eq!(errors.load(Ordering::Relaxed), 1);
}

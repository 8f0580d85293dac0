//! Events that the daemon has not yet recorded, in order, each with its number for ever.
//!
//! Invariant: an event leaves only by an Ack of its number or a later one; a stream that breaks loses nothing.
//! Bounded by what there is to tell: one exit a process, and OOM kills folded into the last untold one.

use std::collections::VecDeque;

use berth_wire::shim::{Event, ForeignWait, OomKill, ProcessExited, event::What};

/// Who gets the events: a stream of a connection, and what it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber {
    pub conn: u32,
    pub stream: u32,
    sent: u64,
}

#[derive(Debug, Default)]
pub struct Outbox {
    kept: VecDeque<Event>,
    last: u64,
    subscriber: Option<Subscriber>,
    /// Not kept for a later subscriber.
    passing: Option<ForeignWait>,
}

impl Outbox {
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn exited(&mut self, exited: ProcessExited) {
        self.push(What::Exited(exited));
    }

    pub fn oom(&mut self, count: u64) {
        let sent = self.subscriber.map_or(0, |s| s.sent);
        match self.kept.back_mut() {
            Some(Event {
                number,
                what: Some(What::Oom(oom)),
            }) if *number > sent => oom.count = count,
            _ => self.push(What::Oom(OomKill { count })),
        }
    }

    pub fn foreign_wait(&mut self, stage: &str) {
        self.passing = Some(ForeignWait { stage: stage.into() });
    }

    fn push(&mut self, what: What) {
        self.last += 1;
        self.kept.push_back(Event {
            number: self.last,
            what: Some(what),
        });
    }

    pub fn ack(&mut self, number: u64) {
        while self.kept.front().is_some_and(|event| event.number <= number) {
            self.kept.pop_front();
        }
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// A new stream takes over; answers the one that it ends.
    pub fn subscribe(&mut self, conn: u32, stream: u32, after: u64) -> Option<Subscriber> {
        self.passing = None;
        self.subscriber.replace(Subscriber {
            conn,
            stream,
            sent: after,
        })
    }

    pub fn subscriber(&self) -> Option<Subscriber> {
        self.subscriber
    }

    pub fn drop_conn(&mut self, conn: u32) {
        self.subscriber = self.subscriber.filter(|s| s.conn != conn);
    }

    /// The next event that the subscriber was not sent; the caller sends it.
    pub fn next(&mut self) -> Option<Event> {
        let subscriber = self.subscriber.as_mut()?;
        if let Some(wait) = self.passing.take() {
            return Some(Event {
                number: 0,
                what: Some(What::ForeignWait(wait)),
            });
        }
        let event = self.kept.iter().find(|event| event.number > subscriber.sent)?;
        subscriber.sent = event.number;
        Some(event.clone())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn numbers(outbox: &mut Outbox) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next()).map(|event| event.number).collect()
    }

    #[test]
    fn kept_until_acknowledged() {
        let mut outbox = Outbox::default();
        outbox.exited(ProcessExited::default());
        assert!(outbox.next().is_none(), "nobody listens");
        outbox.subscribe(1, 1, 0);
        outbox.exited(ProcessExited::default());
        assert_eq!(numbers(&mut outbox), [1, 2]);
        assert_eq!(outbox.subscribe(2, 1, 0).map(|s| s.conn), Some(1));
        assert_eq!(numbers(&mut outbox), [1, 2]);
        outbox.ack(1);
        outbox.subscribe(3, 1, 0);
        assert_eq!(numbers(&mut outbox), [2]);
        outbox.drop_conn(3);
        assert!(outbox.subscriber().is_none());
    }

    #[test]
    fn oom_kills_fold_until_they_are_told() {
        let mut outbox = Outbox::default();
        outbox.oom(1);
        outbox.oom(2);
        outbox.subscribe(1, 1, 0);
        assert_eq!(numbers(&mut outbox), [1]);
        outbox.oom(3);
        assert_eq!((numbers(&mut outbox), outbox.last()), (vec![2], 2));
    }

    #[test]
    fn a_foreign_wait_is_told_once_and_never_kept() {
        let mut outbox = Outbox::default();
        outbox.foreign_wait("create");
        outbox.subscribe(1, 1, 0);
        assert!(outbox.next().is_none());
        outbox.foreign_wait("create");
        assert_eq!(outbox.next().map(|e| e.number), Some(0));
        assert!(outbox.next().is_none());
    }
}

//! Idempotency: the same request id with the same method in the same namespace, within an hour, is the same request.
//!
//! The table is bounded; when it is full the oldest finished answer is forgotten first. A request that is still at work is
//! never forgotten. Time is given, not read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use crate::error::{Error, excerpt};

/// 1 to 128 bytes of the caller's choice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(String);

impl RequestId {
    pub const MAX: usize = 128;

    /// Empty = the caller wants no such protection.
    pub fn parse(value: &str) -> Result<Option<Self>, Error> {
        let length = value.len();
        if length > Self::MAX {
            return Err(Error::TooLong {
                what: "request id",
                value: excerpt(value),
                length,
                max: Self::MAX,
            });
        }
        Ok((!value.is_empty()).then(|| Self(value.to_owned())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the table knows about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a, P, A> {
    /// Not known: it is at work now, under the `P` that was given; report with `finish` or `forget`.
    New,
    /// The first call of it is still at work: wait with it.
    Pending(&'a P),
    /// It was answered.
    Done(&'a A),
}

enum Entry<P, A> {
    Pending(P),
    Done { answer: A, order: (Duration, u64) },
}

/// `K` names a request, `P` is how to wait for one at work, `A` an answer.
pub struct RequestTable<K, P, A> {
    entries: HashMap<K, Entry<P, A>>,
    /// Finished ones by the time of their end.
    finished: BTreeMap<(Duration, u64), K>,
    serial: u64,
    keep: Duration,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, P, A> RequestTable<K, P, A> {
    pub const KEEP: Duration = Duration::from_secs(3600);

    /// `capacity` bounds the finished answers.
    pub fn new(keep: Duration, capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            finished: BTreeMap::new(),
            serial: 0,
            keep,
            capacity,
        }
    }

    /// Looks a request up and, if it is new, remembers it as at work. `now` counts from any fixed moment and never runs back.
    pub fn begin(&mut self, now: Duration, key: &K, pending: impl FnOnce() -> P) -> Seen<'_, P, A> {
        self.expire(now);
        if !self.entries.contains_key(key) {
            self.entries.insert(key.clone(), Entry::Pending(pending()));
            return Seen::New;
        }
        match &self.entries[key] {
            Entry::Pending(pending) => Seen::Pending(pending),
            Entry::Done { answer, .. } => Seen::Done(answer),
        }
    }

    /// The request was answered: repeat this answer from now on.
    pub fn finish(&mut self, now: Duration, key: &K, answer: A) {
        self.serial += 1;
        let order = (now, self.serial);
        if let Some(Entry::Done { order, .. }) = self.entries.insert(key.clone(), Entry::Done { answer, order }) {
            self.finished.remove(&order);
        }
        self.finished.insert(order, key.clone());
        self.expire(now);
    }

    /// The request had no effect (it was cancelled before it began): a repeated one starts afresh.
    pub fn forget(&mut self, key: &K) {
        if let Some(Entry::Done { order, .. }) = self.entries.remove(key) {
            self.finished.remove(&order);
        }
    }

    /// Requests known, at work or answered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expire(&mut self, now: Duration) {
        while let Some((&(at, serial), _)) = self.finished.first_key_value() {
            if self.finished.len() <= self.capacity && now.saturating_sub(at) < self.keep {
                break;
            }
            if let Some(key) = self.finished.remove(&(at, serial)) {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = RequestTable::<u8, (), u8>::KEEP;

    #[test]
    fn one_request_one_answer() {
        let mut table = RequestTable::new(HOUR, 10);
        assert_eq!(table.begin(Duration::ZERO, &1, || "p"), Seen::New);
        assert_eq!(table.begin(Duration::ZERO, &1, || "q"), Seen::Pending(&"p"));
        table.finish(Duration::ZERO, &1, 'a');
        assert_eq!(
            table.begin(HOUR - Duration::from_nanos(1), &1, || "q"),
            Seen::Done(&'a')
        );
        assert_eq!(table.begin(HOUR, &1, || "q"), Seen::New);
        table.forget(&1);
        assert_eq!(table.begin(HOUR, &1, || "q"), Seen::New);
    }

    #[test]
    fn ids_have_a_limit() {
        assert_eq!(RequestId::parse("").unwrap(), None);
        assert!(RequestId::parse(&"ä".repeat(64)).unwrap().is_some());
        assert!(RequestId::parse(&"x".repeat(129)).is_err());
        assert!(RequestId::parse(&"ä".repeat(65)).is_err());
    }

    proptest! {
        /// The oldest answers go first, requests at work never go, and the bound holds.
        #[test]
        fn bounded(ops in prop::collection::vec((0u8..20, 0u8..3, 0u64..900), 0..200)) {
            let mut table = RequestTable::new(HOUR, 5);
            let mut now = Duration::ZERO;
            let mut pending = std::collections::HashSet::new();
            let mut done: Vec<(Duration, u8)> = Vec::new();
            for (key, op, pass) in ops {
                now += Duration::from_secs(pass);
                let known = |done: &[(Duration, u8)]| done.iter().any(|(_, k)| *k == key);
                match op {
                    0 => {
                        done.retain(|(at, _)| now - *at < HOUR);
                        let seen = table.begin(now, &key, || ());
                        match seen {
                            Seen::New => { prop_assert!(!pending.contains(&key) && !known(&done)); pending.insert(key); }
                            Seen::Pending(()) => prop_assert!(pending.contains(&key)),
                            Seen::Done(_) => prop_assert!(known(&done)),
                        }
                    }
                    1 if pending.remove(&key) => {
                        table.finish(now, &key, key);
                        done.push((now, key));
                        done.retain(|(at, _)| now - *at < HOUR);
                        if done.len() > 5 { done.remove(0); }
                    }
                    2 if pending.remove(&key) => table.forget(&key),
                    _ => {}
                }
                prop_assert!(table.len() <= pending.len() + 5);
            }
        }
    }
}

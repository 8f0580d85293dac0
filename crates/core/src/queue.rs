//! The start queue: who may start next. A pure value; `berth-supervisor`'s gate applies it.
//!
//! Invariants: at most `permits` starts are at work (fewer may be after the limit was lowered); within a namespace starts
//! are admitted in the order they came; namespaces that wait take turns, so that one with thousands of starts delays another's
//! single one by at most one permit a waiting namespace. A permit that was given back early, because its start waits for
//! something foreign, need not be taken again: what is left of such a start is cheap.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::id::Namespace;

/// A place in the queue, and later the permit. Grows with every `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// As many starts wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub limit: usize,
}

pub struct StartQueue {
    permits: usize,
    limit: usize,
    last: u64,
    at_work: HashSet<Ticket>,
    waiting: HashMap<Namespace, BTreeSet<Ticket>>,
    place: HashMap<Ticket, Namespace>,
    /// Exactly the namespaces of `waiting`, whose turn is next in front.
    turns: VecDeque<Namespace>,
}

impl StartQueue {
    /// `permits` at work at once, at least one; `limit` waiting.
    pub fn new(permits: usize, limit: usize) -> Self {
        Self {
            permits: permits.max(1),
            limit,
            last: 0,
            at_work: HashSet::new(),
            waiting: HashMap::new(),
            place: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Joins the end of its namespace's line.
    pub fn push(&mut self, namespace: &Namespace) -> Result<Ticket, Full> {
        if self.place.len() >= self.limit {
            return Err(Full { limit: self.limit });
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.place.insert(ticket, namespace.clone());
        let line = self.waiting.entry(namespace.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(namespace.clone());
        }
        line.insert(ticket);
        Ok(ticket)
    }

    /// Admits the next start if there is a permit. Call it until it says `None` after every change.
    pub fn admit(&mut self) -> Option<Ticket> {
        if self.at_work.len() >= self.permits {
            return None;
        }
        let namespace = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&namespace)?;
        let ticket = line.pop_first()?;
        if line.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        self.place.remove(&ticket);
        self.at_work.insert(ticket);
        Some(ticket)
    }

    /// Leaves the line. False if it does not wait (any more): a start that has its permit completes.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(namespace) = self.place.remove(&ticket) else {
            return false;
        };
        if let Some(line) = self.waiting.get_mut(&namespace) {
            line.remove(&ticket);
            if line.is_empty() {
                self.waiting.remove(&namespace);
                self.turns.retain(|turn| *turn != namespace);
            }
        }
        true
    }

    /// Gives the permit back: the start has ended, or waits for something foreign. Repeating it changes nothing.
    pub fn give_back(&mut self, ticket: Ticket) -> bool {
        self.at_work.remove(&ticket)
    }

    /// Changes the limit; starts at work stay at work.
    pub fn set_permits(&mut self, permits: usize) {
        self.permits = permits.max(1);
    }

    pub fn waiting(&self) -> usize {
        self.place.len()
    }

    pub fn at_work(&self) -> usize {
        self.at_work.len()
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn ns(n: u8) -> Namespace {
        Namespace::new(&format!("n{n}")).unwrap()
    }

    #[test]
    fn order_within_a_namespace() {
        let mut queue = StartQueue::new(2, 100);
        let tickets: Vec<_> = (0..5).map(|_| queue.push(&ns(0)).unwrap()).collect();
        assert_eq!(
            (queue.admit(), queue.admit(), queue.admit()),
            (Some(tickets[0]), Some(tickets[1]), None)
        );
        assert!(!queue.cancel(tickets[0]));
        assert!(queue.cancel(tickets[2]) && !queue.cancel(tickets[2]));
        assert!(queue.give_back(tickets[0]) && !queue.give_back(tickets[0]));
        assert_eq!((queue.admit(), queue.admit()), (Some(tickets[3]), None));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = StartQueue::new(1, 100);
        let many: Vec<_> = (0..50).map(|_| queue.push(&ns(0)).unwrap()).collect();
        let one = queue.push(&ns(1)).unwrap();
        assert_eq!(queue.admit(), Some(many[0]));
        queue.give_back(many[0]);
        assert_eq!(queue.admit(), Some(one));
        queue.give_back(one);
        assert_eq!(queue.admit(), Some(many[1]));
    }

    #[test]
    fn a_full_queue_says_so() {
        let mut queue = StartQueue::new(1, 2);
        queue.push(&ns(0)).unwrap();
        let second = queue.push(&ns(0)).unwrap();
        assert_eq!(queue.push(&ns(1)), Err(Full { limit: 2 }));
        queue.cancel(second);
        queue.push(&ns(1)).unwrap();
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push(u8),
        Admit,
        Cancel(usize),
        GiveBack(usize),
        Permits(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u8..4).prop_map(Op::Push),
            4 => Just(Op::Admit),
            1 => (0usize..40).prop_map(Op::Cancel),
            3 => (0usize..40).prop_map(Op::GiveBack),
            1 => (1usize..6).prop_map(Op::Permits),
        ]
    }

    proptest! {
        /// Against a model that is a plain list: who is admitted, and that nobody is lost, doubled or overtaken.
        #[test]
        fn agrees_with_a_list(ops in prop::collection::vec(op(), 0..300)) {
            let (mut permits, limit) = (3, 20);
            let mut queue = StartQueue::new(permits, limit);
            let mut all: Vec<(Ticket, u8)> = Vec::new();
            let mut line: Vec<(Ticket, u8)> = Vec::new();
            let mut work: Vec<Ticket> = Vec::new();
            let mut turns: Vec<u8> = Vec::new();
            for op in ops {
                match op {
                    Op::Push(n) => match queue.push(&ns(n)) {
                        Ok(ticket) => {
                            prop_assert!(line.len() < limit);
                            if !turns.contains(&n) { turns.push(n); }
                            all.push((ticket, n));
                            line.push((ticket, n));
                        }
                        Err(_) => prop_assert_eq!(line.len(), limit),
                    },
                    Op::Admit => {
                        let expected = if work.len() < permits && !line.is_empty() {
                            let n = turns.remove(0);
                            let at = line.iter().position(|(_, m)| *m == n).unwrap();
                            let (ticket, _) = line.remove(at);
                            if line.iter().any(|(_, m)| *m == n) { turns.push(n); }
                            work.push(ticket);
                            Some(ticket)
                        } else { None };
                        prop_assert_eq!(queue.admit(), expected);
                    }
                    Op::Cancel(i) => if let Some(&(ticket, n)) = all.get(i) {
                        let waits = line.iter().any(|(t, _)| *t == ticket);
                        prop_assert_eq!(queue.cancel(ticket), waits);
                        line.retain(|(t, _)| *t != ticket);
                        if !line.iter().any(|(_, m)| *m == n) { turns.retain(|m| *m != n); }
                    },
                    Op::GiveBack(i) => if let Some(&(ticket, _)) = all.get(i) {
                        prop_assert_eq!(queue.give_back(ticket), work.contains(&ticket));
                        work.retain(|t| *t != ticket);
                    },
                    Op::Permits(n) => { permits = n; queue.set_permits(n); }
                }
                prop_assert_eq!(queue.waiting(), line.len());
                prop_assert_eq!(queue.at_work(), work.len());
                prop_assert_eq!(queue.turns.len(), queue.waiting.len());
            }
        }
    }
}

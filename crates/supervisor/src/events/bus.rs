//! The event bus: a number, the journal, then everybody who listens, in this order.
//!
//! Invariants: an event that anyone was told is in the journal. Numbers have no gap and are never used twice. The bus never
//! waits for a reader: readers come and fetch by number, first from the journal, then from a short ring of the newest events,
//! so that there is no seam between history and live. A reader that the journal's limits have overtaken is told where to go on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use berth_core::{Cursor, ErrorCode, ExecId, Incarnation};
use tokio::sync::watch;

use super::codec;
use super::journal::Journal;
use crate::Error;
use crate::calls::Call;
use crate::types::{Event, EventItem, EventQuery, NewEvent, Since};

/// Newest events kept decoded, so that live readers don't touch the journal.
const RING: usize = 1024;

/// Events a reader takes in one go, so that a long history does not hold the lock for long.
const BATCH: usize = 64;

/// Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: u64,
    state: Mutex<State>,
    /// The last event could not be written.
    failing: AtomicBool,
    /// Number of the newest event.
    head: watch::Sender<u64>,
    /// How far each live reader has read.
    readers: Mutex<Vec<Weak<AtomicU64>>>,
}

struct State {
    journal: Box<dyn Journal>,
    ring: VecDeque<Arc<Event>>,
}

impl Bus {
    pub fn new(journal: impl Journal + 'static) -> Self {
        let head = journal.next().saturating_sub(1);
        Bus {
            inner: Arc::new(Inner {
                epoch: journal.epoch(),
                state: Mutex::new(State {
                    journal: Box::new(journal),
                    ring: VecDeque::new(),
                }),
                failing: false.into(),
                head: watch::Sender::new(head),
                readers: Mutex::new(Vec::new()),
            }),
        }
    }

    /// Gives the event its number, records it and tells everybody. After an error nobody was told and no number was used; an
    /// event that must not be lost (an exit) is published again later. However many events wait, the log tells of it once.
    pub fn publish(&self, what: NewEvent) -> Result<Event, Error> {
        let record = codec::encode(&what);
        let mut state = self.inner.state();
        let number = state.journal.append(&record).map_err(|e| {
            let code = match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::Resources,
                _ => ErrorCode::Internal,
            };
            if !self.inner.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(error = %e, "the event journal can't be written; events wait until it can");
            }
            Error::new(code, "events", &what.key, format!("write to the event journal: {e}"))
        })?;
        if self.inner.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the event journal can be written again");
        }
        let event = Arc::new(Event {
            cursor: self.inner.cursor(number),
            what,
        });
        if state.ring.len() == RING {
            state.ring.pop_front();
        }
        state.ring.push_back(event.clone());
        // Under the lock: the head never runs back.
        self.inner.head.send_replace(number);
        drop(state);
        Ok(Event::clone(&event))
    }

    /// Cursor of the newest event.
    pub fn head(&self) -> Cursor {
        self.inner.cursor(*self.inner.head.borrow())
    }

    pub fn subscribe(&self, query: EventQuery) -> Result<EventStream, Error> {
        let state = self.inner.state();
        let (first, head) = (state.journal.first(), state.journal.next().saturating_sub(1));
        drop(state);
        let next = match query.since {
            Since::Now => head + 1,
            Since::Oldest => first,
            Since::After(cursor) => {
                let refuse = |why: &str| {
                    let (oldest, before) = (self.inner.cursor(first), self.inner.cursor(first.saturating_sub(1)));
                    let message = format!("{why}; the oldest event is {oldest}, and since {before} it is sent too");
                    Err(Error::new(ErrorCode::CursorTooOld, "events", cursor, message))
                };
                if cursor.epoch != self.inner.epoch {
                    return refuse("the cursor is of another epoch: the numbering began anew");
                }
                if cursor.number + 1 < first {
                    return refuse("the history does not go back so far");
                }
                if cursor.number > head {
                    return refuse("no event has this number yet");
                }
                cursor.number + 1
            }
        };
        let position = Arc::new(AtomicU64::new(next - 1));
        {
            let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|r| r.strong_count() > 0);
            readers.push(Arc::downgrade(&position));
        }
        Ok(EventStream {
            head: self.inner.head.subscribe(),
            bus: self.clone(),
            query,
            next,
            position,
            batch: VecDeque::new(),
            told_caught_up: false,
            call: None,
        })
    }

    /// Events between the newest and the slowest reader.
    pub fn lag(&self) -> u64 {
        let head = *self.inner.head.borrow();
        let readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let slowest = readers
            .iter()
            .filter_map(Weak::upgrade)
            .map(|p| p.load(Ordering::Relaxed))
            .min();
        head.saturating_sub(slowest.unwrap_or(head))
    }

    /// The exits that the journal holds, by what ended: `None` for the init process. One pass over the journal, for a start
    /// after a crash: an exit in here has its number already.
    pub fn recorded_exits(&self) -> HashMap<(Incarnation, Option<ExecId>), Cursor> {
        let mut exits = HashMap::new();
        let mut next = 1;
        loop {
            let records = self.inner.read(&mut self.inner.state(), next);
            let Some(last) = records.last() else { return exits };
            next = last.cursor.number + 1;
            for event in records {
                if event.what.exit.is_some() {
                    exits.insert((event.what.incarnation, event.what.exec_id.clone()), event.cursor);
                }
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves the journal as its last append did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self, number: u64) -> Cursor {
        Cursor {
            epoch: self.epoch,
            number,
        }
    }

    /// The next events from `from` on, at most a batch; empty at the end.
    fn read(&self, state: &mut State, from: u64) -> Vec<Arc<Event>> {
        let ring_first = state.ring.front().map(|e| e.cursor.number);
        if let Some(first) = ring_first
            && from >= first
        {
            return state
                .ring
                .iter()
                .skip((from - first) as usize)
                .take(BATCH)
                .cloned()
                .collect();
        }
        let mut from = from;
        loop {
            let records = match state.journal.read(from, BATCH) {
                Ok(records) => records,
                Err(error) => {
                    tracing::error!(%error, from, "the event journal can't be read");
                    return Vec::new();
                }
            };
            let Some((last, _)) = records.last() else {
                return Vec::new();
            };
            let after = last + 1;
            let events: Vec<_> = records
                .into_iter()
                .filter_map(|(number, record)| match codec::decode(&record) {
                    Ok(what) => Some(Arc::new(Event {
                        cursor: self.cursor(number),
                        what,
                    })),
                    Err(error) => {
                        tracing::warn!(number, error, "an event in the journal is left out");
                        None
                    }
                })
                .collect();
            if !events.is_empty() {
                return events;
            }
            from = after;
        }
    }
}

/// One reader. Dropping it ends the subscription.
pub struct EventStream {
    bus: Bus,
    query: EventQuery,
    head: watch::Receiver<u64>,
    /// Number that is read next.
    next: u64,
    position: Arc<AtomicU64>,
    batch: VecDeque<Arc<Event>>,
    told_caught_up: bool,
    call: Option<Call>,
}

impl EventStream {
    /// Is in the list of live calls as this one, as long as it lives.
    pub(super) fn named(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }

    /// `None` = the history was sent and nothing else was asked for. May be dropped at any await and called again.
    pub async fn next(&mut self) -> Option<EventItem> {
        loop {
            while let Some(event) = self.batch.pop_front() {
                self.move_to(event.cursor.number + 1);
                if self.matches(&event) {
                    return Some(EventItem::Event(Event::clone(&event)));
                }
            }
            self.head.borrow_and_update();
            if let Some(lagged) = self.fill() {
                return Some(lagged);
            }
            if !self.batch.is_empty() {
                // A filter may pass over a long history: let others run.
                tokio::task::consume_budget().await;
                continue;
            }
            if !self.told_caught_up {
                self.told_caught_up = true;
                return Some(EventItem::CaughtUp(self.bus.inner.cursor(self.next - 1)));
            }
            if self.query.history_only {
                return None;
            }
            if let Some(call) = &self.call {
                call.stage("following");
            }
            // The sender lives in the bus that this stream holds.
            self.head.changed().await.ok()?;
        }
    }

    /// Fetches a batch, or answers the mark of a reader that the journal's limits overtook.
    fn fill(&mut self) -> Option<EventItem> {
        let mut state = self.bus.inner.state();
        let first = state.journal.first();
        if self.next < first {
            drop(state);
            self.move_to(first);
            return Some(EventItem::Lagged(self.bus.inner.cursor(first - 1)));
        }
        if self.next < state.journal.next() {
            self.batch.extend(self.bus.inner.read(&mut state, self.next));
            if self.batch.is_empty() {
                // Nothing behind here can be read: step over it rather than spin.
                let end = state.journal.next();
                drop(state);
                self.move_to(end);
            }
        }
        None
    }

    fn move_to(&mut self, next: u64) {
        self.next = next;
        self.position.store(next - 1, Ordering::Relaxed);
    }

    fn matches(&self, event: &Event) -> bool {
        let query = &self.query;
        query
            .namespace
            .as_ref()
            .is_none_or(|ns| *ns == event.what.key.namespace)
            && query.id.as_ref().is_none_or(|id| *id == event.what.key.id)
            && (query.kinds.is_empty() || query.kinds.contains(&event.what.kind))
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod test;

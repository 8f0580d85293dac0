//! The gate that every start passes: applies `berth_core::queue` to tasks.
//!
//! A `Place` leaves the line when it is dropped; a `Permit` is given back when it is dropped, or earlier by `give_back`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::Namespace;
use berth_core::queue::{Full, StartQueue, Ticket};
use tokio::sync::{Notify, oneshot};

#[derive(Clone)]
pub(crate) struct Gate {
    inner: Arc<Mutex<Inner>>,
    /// A place or a permit became free.
    freed: Arc<Notify>,
}

struct Inner {
    queue: StartQueue,
    admitted: HashMap<Ticket, oneshot::Sender<Permit>>,
}

/// A place in the line.
pub(crate) struct Place {
    gate: Gate,
    ticket: Ticket,
    admitted: oneshot::Receiver<Permit>,
}

/// The right to use the machine. Clones are the same one right.
#[derive(Clone)]
pub(crate) struct Permit(Arc<Held>);

struct Held {
    gate: Gate,
    ticket: Ticket,
}

impl Gate {
    pub(crate) fn new(permits: usize, limit: usize) -> Self {
        let inner = Inner {
            queue: StartQueue::new(permits, limit),
            admitted: HashMap::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            freed: Arc::default(),
        }
    }

    pub(crate) fn enter(&self, namespace: &Namespace) -> Result<Place, Full> {
        let (sender, admitted) = oneshot::channel();
        let mut inner = self.lock();
        let ticket = inner.queue.push(namespace)?;
        inner.admitted.insert(ticket, sender);
        drop(inner);
        self.admit();
        Ok(Place {
            gate: self.clone(),
            ticket,
            admitted,
        })
    }

    pub(crate) fn set_permits(&self, permits: usize) {
        self.lock().queue.set_permits(permits);
        self.admit();
    }

    /// Returns when nobody waits and nobody is at work.
    pub(crate) async fn idle(&self) {
        loop {
            // Before the look, so that no change is missed between it and the wait.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.load() == (0, 0) {
                return;
            }
            freed.await;
        }
    }

    /// Waiting, at work.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.queue.waiting(), inner.queue.at_work())
    }

    fn admit(&self) {
        loop {
            let mut inner = self.lock();
            let Some(ticket) = inner.queue.admit() else { return };
            let sender = inner.admitted.remove(&ticket);
            drop(inner);
            let permit = Permit(Arc::new(Held {
                gate: self.clone(),
                ticket,
            }));
            // Without the lock: a permit that nobody takes gives itself back.
            if let Some(sender) = sender {
                let _ = sender.send(permit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Queue and map change together under this lock, and nothing in between panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the permit. May be dropped and called again.
    pub(crate) async fn admitted(&mut self) -> Permit {
        match (&mut self.admitted).await {
            Ok(permit) => permit,
            // The sender lives in the gate, which this place holds, until it is used or `leave` was called.
            Err(_) => std::future::pending().await,
        }
    }

    /// Leaves the line. False: it was admitted already, `admitted` has the permit.
    pub(crate) fn leave(&self) -> bool {
        let mut inner = self.gate.lock();
        inner.admitted.remove(&self.ticket);
        let left = inner.queue.cancel(self.ticket);
        drop(inner);
        self.gate.freed.notify_waiters();
        left
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Permit {
    /// The start waits for something foreign, or has ended.
    pub(crate) fn give_back(&self) {
        self.0.give_back();
    }
}

impl Held {
    fn give_back(&self) {
        if self.gate.lock().queue.give_back(self.ticket) {
            self.gate.admit();
            self.gate.freed.notify_waiters();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn permits_come_back_and_places_are_left() {
        let (gate, ns) = (Gate::new(1, 10), Namespace::default());
        let mut first = gate.enter(&ns).unwrap();
        let permit = first.admitted().await;
        assert!(!first.leave());
        let second = gate.enter(&ns).unwrap();
        let mut third = gate.enter(&ns).unwrap();
        assert_eq!(gate.load(), (2, 1));
        drop(second);
        permit.give_back();
        let permit2 = third.admitted().await;
        drop(permit);
        assert_eq!(gate.load(), (0, 1));
        let idle = tokio::spawn({
            let gate = gate.clone();
            async move { gate.idle().await }
        });
        drop((permit2.clone(), permit2));
        idle.await.unwrap();
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_permit_that_nobody_takes_goes_on() {
        let (gate, ns) = (Gate::new(1, 10), Namespace::default());
        drop(gate.enter(&ns).unwrap());
        assert_eq!(gate.load(), (0, 0));
        gate.enter(&ns).unwrap().admitted().await;
    }
}

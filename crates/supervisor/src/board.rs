//! The latest value, for any number of readers.
//!
//! Like a `watch` of tokio, but who waits is woken in the order of waiting, which a `watch` leaves to chance: calls that waited for
//! the same container go on in the order in which they came, and a simulation of them replays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The one who writes; readers are told when it is dropped.
pub(crate) struct Writer<T>(Arc<Board<T>>);

#[derive(Clone)]
pub(crate) struct Reader<T> {
    board: Arc<Board<T>>,
    seen: u64,
}

struct Board<T> {
    page: Mutex<Page<T>>,
    news: Notify,
}

struct Page<T> {
    value: T,
    version: u64,
    closed: bool,
}

impl<T> Board<T> {
    fn lock(&self) -> MutexGuard<'_, Page<T>> {
        // A write is one assignment.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Writer<T> {
    pub(crate) fn new(value: T) -> Self {
        let page = Page {
            value,
            version: 0,
            closed: false,
        };
        Self(Arc::new(Board {
            page: Mutex::new(page),
            news: Notify::new(),
        }))
    }

    pub(crate) fn reader(&self) -> Reader<T> {
        Reader {
            board: self.0.clone(),
            seen: self.0.lock().version,
        }
    }

    pub(crate) fn put(&self, value: T) {
        let mut page = self.0.lock();
        let old = std::mem::replace(&mut page.value, value);
        page.version += 1;
        drop(page);
        drop(old);
        self.0.news.notify_waiters();
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.news.notify_waiters();
    }
}

impl<T: Clone> Reader<T> {
    pub(crate) fn now(&self) -> T {
        self.board.lock().value.clone()
    }

    /// The first value of which this is true, from the one that there is on; `None` = no other will come.
    pub(crate) async fn wait_for(&self, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        loop {
            let news = self.board.news.notified();
            {
                let page = self.board.lock();
                if wanted(&page.value) {
                    return Some(page.value.clone());
                }
                if page.closed {
                    return None;
                }
            }
            news.await;
        }
    }

    /// What there is counts as seen.
    pub(crate) fn mark_seen(&mut self) {
        self.seen = self.board.lock().version;
    }

    /// Waits for one that was not seen. False: none will come.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            let news = self.board.news.notified();
            {
                let page = self.board.lock();
                if page.version != self.seen {
                    self.seen = page.version;
                    return true;
                }
                if page.closed {
                    return false;
                }
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn readers_go_on_in_the_order_of_waiting() {
        let writer = Writer::new(0);
        let (told, mut heard) = tokio::sync::mpsc::channel(64);
        for number in 0..50 {
            let (reader, told) = (writer.reader(), told.clone());
            tokio::spawn(async move {
                let value = reader.wait_for(|value| *value == 2).await;
                told.send((number, value)).await.unwrap();
            });
        }
        for value in [1, 2] {
            tokio::task::yield_now().await;
            writer.put(value);
        }
        for number in 0..50 {
            assert_eq!(heard.recv().await, Some((number, Some(2))));
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_by_all() {
        let writer = Writer::new('a');
        let mut reader = writer.reader();
        writer.put('b');
        assert!(reader.changed().await);
        writer.put('c');
        reader.mark_seen();
        assert_eq!(reader.now(), 'c');
        drop(writer);
        assert!(!reader.changed().await);
        assert_eq!(reader.wait_for(|value| *value == 'd').await, None);
        assert_eq!(reader.wait_for(|value| *value == 'c').await, Some('c'));
    }
}

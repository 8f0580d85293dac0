//! Work on one container's name, one after the other; other names are not held up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use berth_core::ContainerKey;
use tokio::sync::OwnedMutexGuard;

/// Cheap to clone. A name that nobody works on costs nothing.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    names: Arc<Mutex<HashMap<ContainerKey, Weak<tokio::sync::Mutex<()>>>>>,
}

/// The right to work on one name.
pub(crate) struct Turn {
    turns: Turns,
    key: ContainerKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits as long as others work on the name.
    pub(crate) async fn take(&self, key: &ContainerKey) -> Turn {
        let lock = {
            let mut names = self.names();
            match names.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    names.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        // Before the wait, so that one who gives up tidies too.
        let mut turn = Turn {
            turns: self.clone(),
            key: key.clone(),
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }

    fn names(&self) -> MutexGuard<'_, HashMap<ContainerKey, Weak<tokio::sync::Mutex<()>>>> {
        // Every change is one insert or remove.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut names = self.turns.names();
        if names.get(&self.key).is_some_and(|lock| lock.strong_count() == 0) {
            names.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_each_name_and_nothing_is_kept() {
        let turns = Turns::default();
        let key = |id| ContainerKey::parse("ns", id).unwrap();
        let first = turns.take(&key("a")).await;
        drop(turns.take(&key("b")).await);
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take(&key("a")).await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
        assert!(turns.names().is_empty());
    }
}

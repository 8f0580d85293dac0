//! The folders of the logs: made with a container and removed with it, on a disk that may hang.
//!
//! Invariant: things done to one name are done one after the other, and a removal takes only what its container left. Its folder is
//! renamed first, from `NS:ID` to `NS:ID~INCARNATION`; where the disk was too slow for that before the id was free again, whoever
//! makes the next log of this name does it first.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use berth_core::ContainerKey;
use berth_record::Layout;
use tokio::sync::OwnedMutexGuard;

use crate::deps::Disks;
use crate::lane::Lane;
use crate::store;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Folders {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    lane: Lane,
    disks: Arc<dyn Disks>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Who works on a name, or waits to.
    turns: HashMap<ContainerKey, Weak<tokio::sync::Mutex<()>>>,
    /// Incarnation of the deleted container whose log may still have the name.
    leaving: HashMap<ContainerKey, String>,
}

/// The right to work on one name.
struct Turn {
    folders: Folders,
    key: ContainerKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Folders {
    pub(crate) fn new(layout: Layout, lane: Lane, disks: Arc<dyn Disks>) -> Self {
        Self {
            inner: Arc::new(Inner {
                layout,
                lane,
                disks,
                names: Mutex::default(),
            }),
        }
    }

    /// Makes the folder of a container's log. May take as long as the disk does, and as an earlier removal of this name.
    pub(crate) async fn make(&self, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
        let turn = self.turn(key).await;
        let (folders, of, incarnation) = (self.clone(), key.clone(), incarnation.to_owned());
        let work = move || {
            let inner = &folders.inner;
            inner.disks.reach(&inner.layout.log_dir(&of))?;
            // Looked up on the thread: much may have happened while the disk hung.
            let leaving = folders.names().leaving.get(&of).cloned();
            match leaving {
                Some(leaving) if leaving == incarnation => {
                    return Err(io::Error::other("the container was given up meanwhile"));
                }
                Some(leaving) => {
                    store::bury_log(&inner.layout, &of, &leaving)?;
                    folders.names().leaving.remove(&of);
                }
                None => {}
            }
            store::make_log(&inner.layout, &of)?;
            drop(turn);
            Ok(())
        };
        self.inner.lane.run(work).await.flatten()
    }

    /// The log of this container is to go. Before its id is free.
    pub(crate) fn leave(&self, key: &ContainerKey, incarnation: &str) {
        self.names().leaving.insert(key.clone(), incarnation.to_owned());
    }

    /// Removes the log of a container that leaves. May take as long as the disk does; can be repeated.
    pub(crate) async fn remove(&self, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
        let turn = self.turn(key).await;
        let (folders, of, incarnation) = (self.clone(), key.clone(), incarnation.to_owned());
        let work = move || {
            let inner = &folders.inner;
            inner.disks.reach(&inner.layout.log_dir(&of))?;
            let ours = folders.names().leaving.get(&of) == Some(&incarnation);
            if ours {
                store::bury_log(&inner.layout, &of, &incarnation)?;
                folders.names().leaving.remove(&of);
            }
            drop(turn);
            store::remove_log(&inner.layout, &of, &incarnation)
        };
        self.inner.lane.run(work).await.flatten()
    }

    async fn turn(&self, key: &ContainerKey) -> Turn {
        let lock = {
            let mut names = self.names();
            match names.turns.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    names.turns.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        let mut turn = Turn {
            folders: self.clone(),
            key: key.clone(),
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // Every change is one insert or remove.
        self.inner.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut names = self.folders.names();
        if names.turns.get(&self.key).is_some_and(|lock| lock.strong_count() == 0) {
            names.turns.remove(&self.key);
        }
    }
}

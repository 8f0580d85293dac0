//! The folders of the logs: made with a container and removed with it, on a disk that may hang.
//!
//! Invariant: things done to one name are done one after the other, and a removal takes only what its container left. Its folder is
//! renamed first, from `NS:ID` to `NS:ID~INCARNATION`; where the disk was too slow for that before the id was free again, whoever
//! makes the next log of this name does it first.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_core::ContainerKey;
use berth_record::Layout;

use crate::deps::Disks;
use crate::lane::Lane;
use crate::store;
use crate::turns::Turns;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Folders {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    lane: Lane,
    disks: Arc<dyn Disks>,
    turns: Turns,
    /// Incarnation of the deleted container whose log may still have the name.
    leaving: Mutex<HashMap<ContainerKey, String>>,
}

impl Folders {
    pub(crate) fn new(layout: Layout, lane: Lane, disks: Arc<dyn Disks>) -> Self {
        Self {
            inner: Arc::new(Inner {
                layout,
                lane,
                disks,
                turns: Turns::default(),
                leaving: Mutex::default(),
            }),
        }
    }

    /// Makes the folder of a container's log. May take as long as the disk does, and as an earlier removal of this name.
    pub(crate) async fn make(&self, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
        let turn = self.inner.turns.take(key).await;
        let (folders, of, incarnation) = (self.clone(), key.clone(), incarnation.to_owned());
        let work = move || {
            let inner = &folders.inner;
            inner.disks.reach(&inner.layout.log_dir(&of))?;
            // Looked up on the thread: much may have happened while the disk hung.
            let leaving = folders.leaving().get(&of).cloned();
            match leaving {
                Some(leaving) if leaving == incarnation => {
                    return Err(io::Error::other("the container was given up meanwhile"));
                }
                Some(leaving) => {
                    store::bury_log(&inner.layout, &of, &leaving)?;
                    folders.leaving().remove(&of);
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
        self.leaving().insert(key.clone(), incarnation.to_owned());
    }

    /// Removes the log of a container that leaves. May take as long as the disk does; can be repeated.
    pub(crate) async fn remove(&self, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
        let turn = self.inner.turns.take(key).await;
        let (folders, of, incarnation) = (self.clone(), key.clone(), incarnation.to_owned());
        let work = move || {
            let inner = &folders.inner;
            inner.disks.reach(&inner.layout.log_dir(&of))?;
            let ours = folders.leaving().get(&of) == Some(&incarnation);
            if ours {
                store::bury_log(&inner.layout, &of, &incarnation)?;
                folders.leaving().remove(&of);
            }
            drop(turn);
            store::remove_log(&inner.layout, &of, &incarnation)
        };
        self.inner.lane.run(work).await.flatten()
    }

    fn leaving(&self) -> MutexGuard<'_, HashMap<ContainerKey, String>> {
        // Every change is one insert or remove.
        self.inner.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

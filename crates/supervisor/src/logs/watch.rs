//! Tells readers that follow a log when something happens in its folder. One inotify instance for the whole daemon (the kernel
//! grants few), one watch a folder, any number of readers on it; asleep while nothing happens.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::inotify::{Inotify, Notice, Watch};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Cheap to clone. Opens its instance with the first reader.
#[derive(Clone, Default)]
pub struct Watcher {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    inotify: Option<Arc<AsyncFd<Inotify>>>,
    readers: HashMap<Watch, Vec<(u64, Arc<Notify>)>>,
    serial: u64,
}

impl Watcher {
    /// From now on nothing that happens in this folder is missed. Must be called inside the runtime, and on a thread that may block:
    /// looking a path up on a disk that hangs takes as long as that.
    pub fn watch(&self, folder: &Path) -> io::Result<Watched> {
        let inotify = self.inotify()?;
        loop {
            // Without the lock, which is taken on threads that may not block.
            let watched = self.register(inotify.get_ref().add_folder(folder)?);
            // The last reader of this folder may have given the watch up before we were one: then this is a new one.
            if inotify.get_ref().add_folder(folder)? == watched.watch {
                return Ok(watched);
            }
        }
    }

    fn inotify(&self) -> io::Result<Arc<AsyncFd<Inotify>>> {
        let mut shared = self.lock();
        if let Some(inotify) = &shared.inotify {
            return Ok(inotify.clone());
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe; `Inotify` owns its descriptor for life"
        )]
        let inotify = Arc::new(AsyncFd::new(Inotify::new()?)?);
        shared.inotify = Some(inotify.clone());
        tokio::spawn(pass_on(self.clone(), inotify.clone()));
        Ok(inotify)
    }

    fn register(&self, watch: Watch) -> Watched {
        let mut shared = self.lock();
        shared.serial += 1;
        let serial = shared.serial;
        let notify = Arc::new(Notify::new());
        shared.readers.entry(watch).or_default().push((serial, notify.clone()));
        Watched {
            watcher: self.clone(),
            watch,
            serial,
            notify,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notice: Notice) {
        let mut shared = self.lock();
        match notice {
            Notice::Changed(watch) => shared
                .readers
                .get(&watch)
                .into_iter()
                .flatten()
                .for_each(|(_, n)| n.notify_one()),
            Notice::Removed(watch) => {
                // The readers see for themselves that the folder is gone.
                shared
                    .readers
                    .remove(&watch)
                    .iter()
                    .flatten()
                    .for_each(|(_, n)| n.notify_one());
            }
            Notice::Overflow => shared.readers.values().flatten().for_each(|(_, n)| n.notify_one()),
        }
    }
}

/// Lives as long as the watcher's runtime.
async fn pass_on(watcher: Watcher, inotify: Arc<AsyncFd<Inotify>>) {
    while let Ok(mut ready) = inotify.readable().await {
        if let Err(error) = inotify.get_ref().read(|notice| watcher.tell(notice)) {
            tracing::error!(%error, "inotify can't be read; whoever follows a log reads it again");
            watcher.tell(Notice::Overflow);
        }
        ready.clear_ready();
    }
}

/// One reader's interest in a folder.
pub struct Watched {
    watcher: Watcher,
    watch: Watch,
    serial: u64,
    notify: Arc<Notify>,
}

impl Watched {
    /// Returns when something has happened since the last call.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shared = self.watcher.lock();
        let Some(readers) = shared.readers.get_mut(&self.watch) else {
            return;
        };
        readers.retain(|(serial, _)| *serial != self.serial);
        if readers.is_empty() {
            shared.readers.remove(&self.watch);
            if let Some(inotify) = &shared.inotify {
                // It may be gone with its folder.
                let _ = inotify.get_ref().remove(self.watch);
            }
        }
    }
}

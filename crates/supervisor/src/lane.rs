//! Lanes: what may hang gets a bounded share of the blocking threads, so that a disk that hangs holds up only who needs that disk.
//!
//! Invariant: the lanes together are fewer threads than `BLOCKING_THREADS`; what is left is for work that has no lane (the exec of
//! a shim) and never waits behind any of them.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Duration;

/// What the runtime needs for all lanes and the work without one; idle threads end by themselves.
pub const BLOCKING_THREADS: usize = 40;

const LOGS: usize = 12;
const BUNDLES: usize = 8;
const KERNEL: usize = 8;
const RUNTIMES: usize = 4;
const _: () = assert!(LOGS + BUNDLES + KERNEL + RUNTIMES + 8 <= BLOCKING_THREADS);

pub(crate) struct Lanes {
    /// The disk of the logs.
    pub(crate) logs: Lane,
    /// Bundles, wherever their owners keep them.
    pub(crate) bundles: Lane,
    /// Files of the kernel's: cgroups and /proc.
    pub(crate) kernel: Lane,
    /// Runtimes that are asked for their version.
    pub(crate) runtimes: Lane,
}

impl Lanes {
    /// Threads that are at work, or about to be.
    pub(crate) fn busy(&self) -> usize {
        let lanes = [
            (LOGS, &self.logs),
            (BUNDLES, &self.bundles),
            (KERNEL, &self.kernel),
            (RUNTIMES, &self.runtimes),
        ];
        lanes
            .iter()
            .map(|(all, lane)| all.saturating_sub(lane.0.available_permits()))
            .sum()
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            logs: Lane::new(LOGS),
            bundles: Lane::new(BUNDLES),
            kernel: Lane::new(KERNEL),
            runtimes: Lane::new(RUNTIMES),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Lane(Arc<Semaphore>);

/// A thread of a lane that nobody else has.
pub(crate) struct Free {
    _permit: OwnedSemaphorePermit,
}

impl Lane {
    fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }

    /// Waits until one of its threads is free; `None` = none was within this time.
    pub(crate) async fn free(&self, patience: Duration) -> Option<Free> {
        let permit = tokio::time::timeout(patience, self.0.clone().acquire_owned()).await;
        permit.ok()?.ok().map(|permit| Free { _permit: permit })
    }

    /// Waits for a thread, as long as that takes, and does the work on it. Dropping the future lets work that has begun go on, and
    /// it keeps its thread.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let permit = self.0.clone().acquire_owned().await.map_err(io::Error::other)?;
        Free { _permit: permit }.run(work).await
    }
}

impl Free {
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let work = move || {
            let _held = self;
            work()
        };
        blocking(work).await
    }
}

#[cfg(feature = "failpoints")]
thread_local! {
    static INLINE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Blocking work that this thread asks for is done by itself from now on, in a build with fail points: which of two threads is ready
/// first is up to the kernel, and a simulation could not be replayed.
pub fn block_inline() {
    #[cfg(feature = "failpoints")]
    INLINE.set(true);
}

/// Does the work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    #[cfg(feature = "failpoints")]
    if INLINE.get() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

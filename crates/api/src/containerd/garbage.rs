//! When garbage is collected: some time after something was let go, at once when somebody waits for it, and when a lease, an image or an
//! ingest expires. Nothing wakes up otherwise.
//!
//! Invariant: a blob's bytes go only after every namespace's record of it, and on the thread of the records, so that nobody can add one
//! in between.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_content::{Digest, Store};
use berth_core::Namespace;
use berth_meta::{Meta, Sweep};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::{Shared, store};
use crate::stream::Ending;

/// What is let go in this time is collected in one run.
const REST: Duration = Duration::from_secs(1);

/// Ingests that nobody writes to stay this long, unless a lease holds them.
const INGEST_LIFE: i64 = 24 * 3600 * 1_000_000_000;

/// Wishes that wait.
const WISHES: usize = 64;

/// With somebody who waits, or without.
type Wish = Option<oneshot::Sender<Result<(), Status>>>;

pub struct Collector(mpsc::Sender<Wish>);

impl Shared {
    /// Tells that something was let go. With `sync` its garbage is gone when this answers.
    pub async fn collected(&self, sync: bool, let_go: bool) -> Result<(), Status> {
        if !sync {
            if let_go {
                // Full: a run is coming anyway.
                let _ = self.garbage.0.try_send(None);
            }
            return Ok(());
        }
        let (done, wait) = oneshot::channel();
        let ending = || Status::unavailable("the daemon is ending");
        self.garbage.0.send(Some(done)).await.map_err(|_| ending())?;
        wait.await.map_err(|_| ending())?
    }
}

impl Shared {
    pub async fn remove_unknown(&self, digests: Vec<Digest>) -> Result<(), Status> {
        remove_unknown(&self.meta, &self.content, digests).await
    }
}

impl Collector {
    pub fn start(meta: Meta, content: Store, ending: Ending) -> Self {
        let (wishes, waiting) = mpsc::channel(WISHES);
        tokio::spawn(async move {
            let work = Work { meta, content };
            tokio::select! {
                () = work.run(waiting) => {}
                () = ending.begun() => {}
            }
        });
        Collector(wishes)
    }
}

struct Work {
    meta: Meta,
    content: Store,
}

impl Work {
    async fn run(self, mut wishes: mpsc::Receiver<Wish>) {
        if let Err(error) = self.sweep_strays().await {
            tracing::warn!(%error, "blobs that nobody knows can't be removed");
        }
        let mut next = self.collect_and_tell(Vec::new()).await;
        loop {
            let expiry = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut waiting = tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => Vec::from_iter(wish),
                    None => return,
                },
                () = expiry => Vec::new(),
            };
            let rest = Instant::now() + REST;
            while waiting.is_empty() {
                match timeout(rest.saturating_duration_since(Instant::now()), wishes.recv()).await {
                    Ok(Some(wish)) => waiting.extend(wish),
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
            while let Ok(wish) = wishes.try_recv() {
                waiting.extend(wish);
            }
            next = self.collect_and_tell(waiting).await;
        }
    }

    async fn collect_and_tell(&self, waiting: Vec<oneshot::Sender<Result<(), Status>>>) -> Option<Instant> {
        let done = self.collect().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "garbage can't be collected");
        }
        for wait in waiting {
            // It may have gone.
            let _ = wait.send(done.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        let at = done.ok().flatten()?;
        let wait = u64::try_from(at.saturating_sub(store::now())).unwrap_or(0);
        Some(Instant::now() + Duration::from_nanos(wait) + REST)
    }

    /// When something expires by itself.
    async fn collect(&self) -> Result<Option<i64>, Status> {
        let now = store::now();
        let collected = self.meta.call(move |tables| tables.collect(Sweep { now })).await;
        let collected = collected.map_err(store::status)?;
        let lost = collected
            .blobs
            .iter()
            .filter_map(|(_, digest)| Digest::parse(digest).ok());
        remove_unknown(&self.meta, &self.content, lost.collect()).await?;
        if !collected.blobs.is_empty() {
            tracing::debug!(blobs = collected.blobs.len(), "garbage is collected");
        }
        let held: BTreeSet<(Namespace, String)> = collected.held_ingests;
        let content = self.content.clone();
        let oldest = blocking(move || {
            content.expire(|ingest| {
                ingest.updated_at.saturating_add(INGEST_LIFE) <= now
                    && !held.contains(&(ingest.namespace.clone(), ingest.name.clone()))
            })?;
            let left = content.ingests()?.into_iter().map(|ingest| ingest.updated_at);
            // Held ones are looked at with the others, not over and over.
            Ok(left
                .map(|at| at.saturating_add(INGEST_LIFE))
                .filter(|at| *at > now)
                .min())
        });
        Ok([collected.next, oldest.await?].into_iter().flatten().min())
    }

    /// What an end between two steps of a commit or a removal has left.
    async fn sweep_strays(&self) -> Result<(), Status> {
        let content = self.content.clone();
        let blobs = blocking(move || content.blobs()).await?;
        remove_unknown(&self.meta, &self.content, blobs).await
    }
}

/// Removes the bytes of blobs that no namespace knows.
async fn remove_unknown(meta: &Meta, content: &Store, digests: Vec<Digest>) -> Result<(), Status> {
    // In pieces: others use the thread too.
    for digests in digests.chunks(64) {
        let (content, digests) = (content.clone(), digests.to_vec());
        let removed = meta.call(move |tables| {
            for digest in digests {
                if !tables.has_blob(digest.as_str())?
                    && let Err(error) = content.remove(&digest)
                {
                    tracing::warn!(%error, "a blob can't be removed");
                }
            }
            Ok(())
        });
        removed.await.map_err(store::status)?;
    }
    Ok(())
}

/// On a thread that may wait for the disk.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, berth_content::Error> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))?
        .map_err(content_status)
}

pub fn content_status(error: berth_content::Error) -> Status {
    use berth_content::Error;
    let text = error.to_string();
    match error {
        Error::BadDigest(_) => Status::invalid_argument(text),
        Error::NoBlob(_) | Error::NoIngest(_) => Status::not_found(text),
        Error::Locked { .. } => Status::unavailable(text),
        Error::Size { .. } | Error::Mismatch { .. } => Status::failed_precondition(text),
        Error::Io { .. } => Status::internal(text),
    }
}

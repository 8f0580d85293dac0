//! Waiting for facts, each with a limit. The limits are generous: they end a test that hangs, they measure nothing.
use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine with two cores before a test calls it hung.
pub const LIMIT: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(5);

/// Polls until `probe` gives something; panics with `what` after [`LIMIT`].
pub async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    eventually(what, || std::future::ready(probe())).await
}

/// As [`until()`], for a probe that itself waits.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Ok(Some(found)) = tokio::time::timeout(LIMIT, probe()).await {
            return found;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// The future's value; panics with `what` after `limit`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future)
        .await
        .unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Blocking twin of [`until()`], for `Drop`.
pub fn blocking<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let found = probe();
        if found.is_some() || Instant::now() > end {
            return found;
        }
        std::thread::sleep(STEP);
    }
}

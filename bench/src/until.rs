//! Waiting for facts of other processes that announce nothing: a socket that opens, a process that ends.

use crate::error::{BenchError, Result};
use std::time::{Duration, Instant};

/// Asks every millisecond until the answer is `Some`; gives up, naming what it waited for, after the time.
pub async fn until<T>(what: &str, limit: Duration, mut fact: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = fact().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(BenchError::new(format!("{what}: not within {} s", limit.as_secs())));
        }
        // The one place that asks again and again: what is waited for is another program's, and it offers nothing to wait on.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

//! Numbers: latencies, memory of processes.

use crate::error::{BenchError, Context, Result};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What happened when `count` things were done, so many at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Burst {
    pub wall_s: f64,
    /// Milliseconds of each, sorted.
    pub each_ms: Vec<f64>,
}

impl Burst {
    pub fn rate(&self) -> f64 {
        self.each_ms.len() as f64 / self.wall_s
    }

    /// The value below which this share of them lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.each_ms.len().saturating_sub(1);
        let index = (self.each_ms.len() as f64 * share).ceil() as usize;
        self.each_ms
            .get(index.saturating_sub(1).min(last))
            .copied()
            .unwrap_or_default()
    }

    /// The value at each percent from 0 to 100.
    pub fn percentiles(&self) -> Vec<f64> {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        (0..=100)
            .map(|percent| rounded(self.quantile(f64::from(percent) / 100.0)))
            .collect()
    }

    /// One after the other, as if they were one.
    pub fn together(bursts: &[Burst]) -> Burst {
        let mut each_ms: Vec<f64> = bursts.iter().flat_map(|burst| burst.each_ms.iter().copied()).collect();
        each_ms.sort_by(f64::total_cmp);
        Burst {
            wall_s: bursts.iter().map(|burst| burst.wall_s).sum(),
            each_ms,
        }
    }

    pub fn max(&self) -> f64 {
        self.each_ms.last().copied().unwrap_or_default()
    }
}

/// Does `work(0..count)`, at most `in_flight` at a time, and measures each. The first failure ends it.
pub async fn burst<F>(count: usize, in_flight: usize, work: impl Fn(usize) -> F) -> Result<Burst>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut each_ms = Vec::with_capacity(count);
    let mut next = 0;
    while next < count || !tasks.is_empty() {
        while next < count && tasks.len() < in_flight {
            let work = work(next);
            next += 1;
            tasks.spawn(async move {
                let begin = Instant::now();
                work.await.map(|()| begin.elapsed())
            });
        }
        if let Some(done) = tasks.join_next().await {
            each_ms.push(millis(done??));
        }
    }
    let wall_s = begin.elapsed().as_secs_f64();
    each_ms.sort_by(f64::total_cmp);
    Ok(Burst { wall_s, each_ms })
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// KiB of a line such as `Pss:` or `Rss:` of the process's memory, added up.
pub fn memory_kib(pid: u32, line: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).context(&path)?;
    let value = text
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|value| value.split_whitespace().next());
    value
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| BenchError::new(format!("{path} has no {line}")))
}

/// The PSS of all of them together; one that ended meanwhile counts nothing.
pub fn pss_kib(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| memory_kib(*pid, "Pss:").ok()).sum()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let burst = Burst {
            wall_s: 2.0,
            each_ms: (1..=100).map(f64::from).collect(),
        };
        assert_eq!(
            (burst.rate(), burst.quantile(0.5), burst.quantile(0.99), burst.max()),
            (50.0, 50.0, 99.0, 100.0)
        );
    }

    #[tokio::test]
    async fn a_burst_keeps_its_bound_and_does_all() {
        let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let burst = burst(50, 7, |_| {
            let running = running.clone();
            async move {
                assert!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 7);
                tokio::task::yield_now().await;
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            }
        });
        assert_eq!(burst.await.unwrap().each_ms.len(), 50);
    }
}

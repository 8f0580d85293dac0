//! Counters of what the supervisor does; few and fixed. The daemon renders them, nothing here knows how.

use std::time::Duration;

/// Upper bounds of the buckets of every histogram, in microseconds; one more bucket holds the rest.
pub const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// How often something took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Not cumulative; the last one is above every bound.
    pub counts: [u64; BUCKETS_US.len() + 1],
    pub sum: Duration,
}

impl Histogram {
    pub fn observe(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US
            .iter()
            .position(|bound| us <= *bound)
            .unwrap_or(BUCKETS_US.len());
        self.counts[bucket] += 1;
        self.sum += duration;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A picture of the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    pub starts_ok: u64,
    pub starts_failed: u64,
    /// Dropped while queued.
    pub starts_cancelled: u64,
    /// By the stage's name, in the order of a start; the last is "total".
    pub stages: Vec<(&'static str, Histogram)>,
    pub queue_length: u64,
    pub starts_at_work: u64,
    /// By reason, as `ExitReason` shows itself.
    pub exits: Vec<(&'static str, u64)>,
    pub containers: u64,
    pub oldest_call: Duration,
    /// Events between the newest one and the slowest live subscriber.
    pub event_lag: u64,
    pub events_total: u64,
}

//! Restart policies: whether a container that has ended is started again, and after how long.
//!
//! The pause doubles from 100 ms to a minute and begins anew once a life has lasted 10 s. Whoever stops a container means it: it stays
//! ended until the next boot (`Always`) or for good (`UnlessStopped`).

use std::time::Duration;

/// The first pause, and the longest.
pub const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Who lived so long has started well.
pub const LIVED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    #[default]
    No,
    /// After a code other than 0; at most so many times in a row, 0 = any number.
    OnFailure {
        max: u32,
    },
    Always,
    UnlessStopped,
}

/// How the restarts of a container have gone so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Since it was made.
    pub count: u32,
    /// In a row.
    pub failures: u32,
    /// The last one.
    pub pause: Duration,
    /// Somebody asked for its end.
    pub stopped: bool,
}

/// An end, as far as a policy looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub failed: bool,
    pub lived: Duration,
    /// The machine was booted since.
    pub rebooted: bool,
}

impl Restarts {
    /// How long to wait before the next start; `None` = it stays ended.
    pub fn after(&mut self, policy: RestartPolicy, ended: Ended) -> Option<Duration> {
        let wanted = match policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { max } => ended.failed && (!self.stopped) && (max == 0 || self.failures < max),
            RestartPolicy::Always => !self.stopped || ended.rebooted,
            RestartPolicy::UnlessStopped => !self.stopped,
        };
        if !wanted {
            return None;
        }
        let well = ended.rebooted || ended.lived >= LIVED || self.pause.is_zero();
        self.pause = if well { PAUSE.0 } else { (self.pause * 2).min(PAUSE.1) };
        self.failures = if ended.failed {
            self.failures.saturating_add(1)
        } else {
            0
        };
        self.stopped = false;
        Some(self.pause)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const FAILED: Ended = Ended {
        failed: true,
        lived: Duration::from_millis(5),
        rebooted: false,
    };
    const WELL: Ended = Ended {
        failed: false,
        ..FAILED
    };

    #[test]
    fn pauses_double_to_a_minute_and_begin_anew_after_a_long_life() {
        let mut r = Restarts::default();
        let pauses: Vec<_> = (0..12)
            .filter_map(|_| r.after(RestartPolicy::Always, WELL))
            .map(|p| p.as_millis())
            .collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]
        );
        let long = Ended { lived: LIVED, ..WELL };
        assert_eq!(r.after(RestartPolicy::Always, long), Some(PAUSE.0));
    }

    #[test]
    fn on_failure_counts_failures_in_a_row() {
        let policy = RestartPolicy::OnFailure { max: 2 };
        let mut r = Restarts::default();
        assert_eq!(r.after(policy, WELL), None);
        assert!(r.after(policy, FAILED).is_some() && r.after(policy, FAILED).is_some());
        assert_eq!(r.after(policy, FAILED), None);
        let mut r = Restarts::default();
        assert!((0..50).all(|_| r.after(RestartPolicy::OnFailure { max: 0 }, FAILED).is_some()));
    }

    #[test]
    fn who_was_stopped_stays_so() {
        let stopped = Restarts {
            stopped: true,
            ..Restarts::default()
        };
        let policies = [
            RestartPolicy::No,
            RestartPolicy::OnFailure { max: 0 },
            RestartPolicy::Always,
            RestartPolicy::UnlessStopped,
        ];
        for policy in policies {
            assert_eq!(stopped.clone().after(policy, FAILED), None, "{policy:?}");
            let rebooted = Ended {
                rebooted: true,
                ..FAILED
            };
            let after = stopped.clone().after(policy, rebooted);
            assert_eq!(after.is_some(), policy == RestartPolicy::Always, "{policy:?}");
        }
    }
}

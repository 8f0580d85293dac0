//! Clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Nanoseconds since 1970, UTC.
#[must_use]
pub fn realtime() -> i64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// Nanoseconds that never go back, without suspend.
#[must_use]
pub fn monotonic() -> i64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since the boot, with suspend.
#[must_use]
pub fn boottime() -> i64 {
    nanos(clock_gettime(ClockId::Boottime))
}

/// Clock ticks a second, the unit of /proc/PID/stat.
#[must_use]
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

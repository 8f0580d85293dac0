//! Clocks and the calendar.

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

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
#[must_use]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

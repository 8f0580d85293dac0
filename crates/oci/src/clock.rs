//! Times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_sys::time::civil;

/// RFC 3339, UTC, with nanoseconds; the epoch for what lies before it.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(i64::MAX / 2));
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn days_are_counted_as_in_the_calendar() {
        let told = |seconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(told(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(told(951_782_399), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(told(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(told(1_735_689_599), "2024-12-31T23:59:59.000000005Z");
        assert_eq!(told(4_107_542_400), "2100-03-01T00:00:00.000000005Z");
    }
}

//! Times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// RFC 3339, UTC, with nanoseconds; the epoch for what lies before it.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years begin in March here, so that the leap day is their last; eras have 400 years, 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}.{:09}Z",
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

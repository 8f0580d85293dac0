//! Times of log entries: RFC 3339 in UTC with nanoseconds.

use berth_sys::time::civil;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// `2026-11-24T07:02:00.586776794Z`, always 30 bytes for the years 0 to 9999.
pub fn format_time(time: i64) -> [u8; 30] {
    let (seconds, nanos) = (time.div_euclid(SECOND), time.rem_euclid(SECOND));
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, digits: usize, mut value: i64| {
        for place in (at..at + digits).rev() {
            text[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3600);
    put(14, 2, of_day / 60 % 60);
    put(17, 2, of_day % 60);
    put(20, 9, nanos);
    text
}

/// RFC 3339 with or without a fraction, `Z` or an offset (which Docker and Kubernetes may write), to nanoseconds since the
/// epoch. None if it is not one, or does not fit.
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.iter().try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
        })
    };
    let is = |at: usize, byte: u8| text.get(at).is_some_and(|found| found.eq_ignore_ascii_case(&byte));
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let separated = is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':');
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !separated || !in_range {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b'.') {
        let digits = text[at + 1..].iter().take_while(|digit| digit.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        nanos = number(at + 1..at + 1 + digits)? * 10_i64.pow(9 - digits as u32);
        at += 1 + digits;
    }
    let offset = match text.get(at)? {
        b'Z' | b'z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b':') => {
            let minutes = number(at + 1..at + 3)? * 60 + number(at + 4..at + 6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_before(year, month, day) * DAY + hour * 3600 + (minute - offset) * 60 + second;
    seconds.checked_mul(SECOND)?.checked_add(nanos)
}

/// The inverse of [`civil`].
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(&format_time(0), b"1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            &format_time(1_709_210_096_123_456_789),
            b"2024-02-29T12:34:56.123456789Z"
        );
        assert_eq!(
            parse_time(b"2024-02-29T12:34:56.123456789Z"),
            Some(1_709_210_096_123_456_789)
        );
        assert_eq!(
            parse_time(b"2024-02-29T14:34:56.5+02:00"),
            Some(1_709_210_096_500_000_000)
        );
        assert_eq!(parse_time(b"1969-12-31T23:59:59Z"), Some(-1_000_000_000));
        for bad in [
            "",
            "2024",
            "2024-02-29T12:34:56",
            "2024-02-29 12:34:56Z",
            "2024-13-29T12:34:56Z",
            "2024-02-29T12:34:56.Z",
        ] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_time(b"9999-12-31T23:59:59Z"), None, "i64 nanoseconds end in 2262");
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses(time in any::<i64>()) {
            prop_assert_eq!(parse_time(&format_time(time)), Some(time));
        }

        #[test]
        fn garbage_is_refused_quietly(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            parse_time(&text);
        }
    }
}

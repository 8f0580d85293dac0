//! Sizes, ages and times between people and numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Nobody asks for what was in 1970, and "5" means something else.
const YEAR: Duration = Duration::from_secs(31_536_000);

/// "512m", "1.5GiB", "4096": binary units, as Docker reads them.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("unknown unit {unit:?}: use b, k, m, g or t")),
    };
    let too_large = || "too large".to_owned();
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(1 << shift)
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or_else(too_large);
    }
    let fraction: f64 = number
        .parse()
        .map_err(|_| "expected a size such as 512m or 1.5g".to_owned())?;
    let size = fraction * (1_u64 << shift) as f64;
    if size >= i64::MAX as f64 {
        Err(too_large())
    } else {
        Ok(size as u64)
    }
}

/// A size, or -1 for no limit.
pub fn parse_limit(text: &str) -> Result<i64, String> {
    if matches!(text, "-1" | "max" | "unlimited") {
        return Ok(-1);
    }
    parse_size(text).and_then(|size| i64::try_from(size).map_err(|_| "too large".to_owned()))
}

/// "10s", "1m30s", "500ms", or plain seconds. At most an hour, in milliseconds.
pub fn parse_timeout(text: &str) -> Result<u32, String> {
    let duration = parse_duration(text)?;
    match u32::try_from(duration.as_millis()) {
        Ok(milliseconds @ 0..=3_600_000) => Ok(milliseconds),
        _ => Err("at most one hour".into()),
    }
}

pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}: expected a duration such as 10s or 1m30s"))
}

/// A point in time: "10m" (ago), an RFC 3339 time, or seconds since 1970. Nanoseconds since then.
pub fn parse_time(text: &str, now: SystemTime) -> Result<i64, String> {
    let nanos = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_nanos()).ok())
            .ok_or_else(|| "out of range".to_owned())
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
        if !since.is_zero() && since < YEAR {
            return Err(format!(
                "that is in 1970, a number alone counts seconds from there; with a unit it is so long ago: {text}s, {text}m"
            ));
        }
        return UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| "out of range".to_owned())
            .and_then(nanos);
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return nanos(time);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        "expected a duration such as 10m, a time such as 2026-01-31T12:00:00Z, or seconds since 1970".to_owned()
    })?;
    now.checked_sub(ago)
        .ok_or_else(|| "out of range".to_owned())
        .and_then(nanos)
}

pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// "3 minutes". One unit is enough for a table.
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// How long ago a time of the API's was; "-" for not yet.
pub fn age_of(nanos: i64, now: SystemTime) -> String {
    match time(nanos) {
        Some(time) => age(now.duration_since(time).unwrap_or_default()),
        None => "-".into(),
    }
}

/// A time of the API's; 0 is none.
pub fn time(nanos: i64) -> Option<SystemTime> {
    let nanos = u64::try_from(nanos).ok().filter(|&nanos| nanos != 0)?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}

pub fn rfc3339(nanos: i64) -> Option<String> {
    time(nanos).map(|time| humantime::format_rfc3339_nanos(time).to_string())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512m", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1KB", 1024),
            (" 2 t ", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "m",
            "1q",
            "-1",
            "1.2.3m",
            "99999999999999999999",
            "9999999999t",
            "1e3",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_limit("-1"), Ok(-1));
        assert_eq!(parse_limit("1k"), Ok(1024));
        assert!(parse_limit("-2").is_err());
    }

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0", 0),
            ("1.5", 1500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_timeout(text), Ok(milliseconds), "{text}");
        }
        for text in ["", "-1", "x", "2h", "NaN", "1e300"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse_time("10m", now), Ok(999_400_000_000_000));
        assert_eq!(parse_time("0", now), Ok(0));
        assert_eq!(parse_time("1700000000.5", now), Ok(1_700_000_000_500_000_000));
        assert!(parse_time("5", now).expect_err("1970").contains("5s"));
        assert_eq!(parse_time("1970-01-02T00:00:00Z", now), Ok(86_400_000_000_000));
        assert!(parse_time("yesterday", now).is_err());
        assert!(parse_time("100y", now).is_err());
    }

    #[test]
    fn numbers_are_shown() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 << 20, "10.0 MiB"),
            (500 << 30, "500 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
            (99_999_999, "3 years"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(age_of(0, UNIX_EPOCH), "-");
        assert_eq!(
            rfc3339(1_500_000_000).as_deref(),
            Some("1970-01-01T00:00:01.500000000Z")
        );
    }
}

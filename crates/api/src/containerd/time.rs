//! Times as containerd's messages have them.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Of nanoseconds since the Unix epoch.
pub fn stamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

//! The texts of cgroup files. Pure; what makes no sense is left out.

/// `hierarchy:controllers:path` lines of /proc/PID/cgroup, as controllers and path.
pub fn membership(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        // Written behind the path of a group that was removed under a zombie.
        Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
    })
}

/// The value of `key value` lines, such as those of memory.stat.
#[must_use]
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A single number; `max` is `None`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A limit; 0 = none. v1 says a number near 2^63 for none.
#[must_use]
pub fn limit(text: &str) -> u64 {
    number(text).filter(|limit| *limit < 1 << 62).unwrap_or(0)
}

/// Process ids, one a line; 0 (a process of another pid namespace) is left out.
pub fn pids(text: &str) -> impl Iterator<Item = u32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid != 0)
}

/// What was read and what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadWrite {
    pub read: u64,
    pub write: u64,
}

/// v1: `8:0 Read 4096` lines, all devices together; bytes or operations.
#[must_use]
pub fn blkio(text: &str) -> ReadWrite {
    let mut sum = ReadWrite::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(what), Some(value)) = (fields.next(), fields.next().and_then(|text| text.parse::<u64>().ok())) else {
            continue;
        };
        match what {
            "Read" => sum.read = sum.read.saturating_add(value),
            "Write" => sum.write = sum.write.saturating_add(value),
            _ => {}
        }
    }
    sum
}

/// v2: `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0` lines: bytes, then operations, all devices together.
#[must_use]
pub fn io_stat(text: &str) -> (ReadWrite, ReadWrite) {
    let (mut bytes, mut operations) = (ReadWrite::default(), ReadWrite::default());
    for (key, value) in text.split_ascii_whitespace().filter_map(|field| field.split_once('=')) {
        let sum = match key {
            "rbytes" => &mut bytes.read,
            "wbytes" => &mut bytes.write,
            "rios" => &mut operations.read,
            "wios" => &mut operations.write,
            _ => continue,
        };
        *sum = sum.saturating_add(value.parse().unwrap_or(0));
    }
    (bytes, operations)
}

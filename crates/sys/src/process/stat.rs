//! What /proc tells of a process.

use std::io;
use std::sync::OnceLock;

/// The fields of /proc/PID/stat that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, Z, T, …
    pub state: char,
    pub parent: u32,
    /// User and system time, in clock ticks.
    pub cpu_ticks: u64,
    /// Field 22: clock ticks after the boot. With the boot id it makes a pid unique.
    pub start_time: u64,
}

/// The text of a stat file. The name in parentheses may hold anything, even `)` and newlines: the last `)` counts.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first one here is field 3 of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: u32::try_from(number(4)?).ok()?,
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        start_time: number(22)?,
    })
}

fn garbled() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// NotFound (or ESRCH) if there is no such process.
pub fn stat(pid: u32) -> io::Result<Stat> {
    parse_stat(&crate::file::read_page(format!("/proc/{pid}/stat"))?).ok_or_else(garbled)
}

/// Field 22 of /proc/PID/stat.
pub fn start_time(pid: u32) -> io::Result<u64> {
    Ok(stat(pid)?.start_time)
}

/// Children of all its threads. Empty where the kernel lacks the file (CONFIG_PROC_CHILDREN) or the process is gone.
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for thread in threads.flatten() {
        // A thread may end between the two calls: it has no children then.
        let Ok(text) = crate::file::read_text(thread.path().join("children")) else {
            continue;
        };
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}

/// The process and everything below it, parents first. A moment's picture, bounded.
pub fn descendants(pid: u32) -> io::Result<Vec<u32>> {
    const LIMIT: usize = 4096;
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        for child in children(parent)? {
            if found.len() < LIMIT && !found.contains(&child) {
                found.push(child);
            }
        }
    }
    Ok(found)
}

/// The kernel's random id of this boot, without the newline. It can't change while this process lives, so it is read once.
pub fn boot_id() -> io::Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let text = crate::file::read_text("/proc/sys/kernel/random/boot_id")?;
    Ok(KNOWN.get_or_init(|| text.trim_end().to_owned()).clone())
}

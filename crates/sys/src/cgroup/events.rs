//! Waiting for what cgroup.events of a v2 group says: `populated` and `frozen`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::parse;

/// Waits until `key` has this value. A group that is gone is neither populated nor frozen.
///
/// # Errors
/// TimedOut; as a read of cgroup.events.
pub fn wait(folder: &Path, key: &str, value: u64, within: Duration) -> io::Result<()> {
    let gone = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) if value == 0 => Ok(()),
        _ => Err(error),
    };
    let deadline = Instant::now() + within;
    let file = match File::open(folder.join("cgroup.events")) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    loop {
        let mut buffer = [0; 512];
        let count = match file.read_at(&mut buffer, 0) {
            Ok(count) => count,
            Err(error) => return gone(error),
        };
        let text = std::str::from_utf8(&buffer[..count]).unwrap_or_default();
        if parse::keyed(text, key) == Some(value) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel marks the file once it has changed since it was read.
        let mut fds = [PollFd::new(&file, PollFlags::PRI)];
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

//! Descriptors that the caller gives on: those of systemd's socket activation and `--preserve-fds`, from number 3 on.
//!
//! Invariant: they are counted before anything else is opened, or a descriptor of ours could go in the place of a missing one.

use std::path::Path;
use std::sync::OnceLock;

use crate::log::Failure;

static OPEN: OnceLock<u32> = OnceLock::new();

/// To be called first: how many there are from number 3 on without a gap.
pub fn look() {
    let open = |number: &u32| Path::new(&format!("/proc/self/fd/{number}")).exists();
    // More than anybody gives on.
    let first_closed = (3..1024).find(|number| !open(number)).unwrap_or(1024);
    let _ = OPEN.set(first_closed - 3);
}

/// How many came by socket activation, and how many there are together with `asked`.
pub fn count(asked: u32) -> Result<(u32, u32), Failure> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    // The variables are for the process that they name; what re-executes itself keeps its number.
    let ours = number("LISTEN_PID") == Some(std::process::id());
    let listen = if ours { number("LISTEN_FDS").unwrap_or(0) } else { 0 };
    let all = listen.saturating_add(asked);
    let there = OPEN.get().copied().unwrap_or(0);
    if all > there {
        let missing = 3 + there;
        return Err(Failure::new(
            "--preserve-fds",
            format!("{asked}: descriptor {missing} is not open"),
        ));
    }
    Ok((listen, all))
}

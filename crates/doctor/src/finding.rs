//! What can be wrong, in words. A finding is plain data, so that two looks can be compared: what is there only once was work going on.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing that is wrong. The JSON form has its name in `finding`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A record that can't be read: its container can't be adopted.
    BrokenRecord { container: String, problem: String },
    /// Something in the containers' folder that is not Berth's.
    Foreign { path: PathBuf },
    /// A folder or a log whose removal was cut short.
    Leftover { path: PathBuf },
    /// A creation that no shim served.
    HalfMade { container: String },
    /// The shim is gone, the container's first process runs on.
    Orphan { container: String, pid: u32 },
    /// The shim is gone and so is the first process; nobody saw how it ended.
    Unseen { container: String },
    /// A shim of a container that there is no folder of.
    StrayShim {
        pid: u32,
        start_time: u64,
        container: String,
    },
    /// A shim beside the one that the record names.
    SecondShim { pid: u32, container: String },
    /// The container has ended, and its cgroup still holds processes.
    Survivors {
        container: String,
        cgroup: String,
        pids: Vec<u32>,
    },
    /// A mount inside the state folder that belongs to no container.
    StrayMount { point: PathBuf },
    /// A bundle that the daemon made for a container that is not there.
    StrayBundle { path: PathBuf },
    /// Output of a container that is not there. Never removed: it may be all that is left of it.
    StrayLog { path: PathBuf },
    /// A folder that others may enter or write who should not.
    Mode { path: PathBuf, mode: u32, allowed: u32 },
    /// Less than a twentieth of a disk is free, and less than 1 GiB; in bytes.
    AlmostFull { path: PathBuf, free: u64, total: u64 },
    /// A daemon holds the state folder, and nobody answers at its socket.
    Deaf { address: PathBuf, problem: String },
}

impl Finding {
    /// What a person does about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::BrokenRecord { .. } => {
                "stop berthd and run `berthd doctor --fix`: a folder that no shim serves is set aside in the state folder's `aside`"
            }
            Self::Foreign { .. } => "Berth leaves it alone; remove it if you know it",
            Self::Leftover { .. } | Self::StrayMount { .. } | Self::StrayBundle { .. } => {
                "stop berthd (containers run on) and run `berthd doctor --fix`"
            }
            Self::HalfMade { .. } | Self::Orphan { .. } | Self::Unseen { .. } => {
                "berthd settles it when it starts: start it, and look at its log if it stays"
            }
            Self::StrayShim { .. } | Self::Mode { .. } => "run `berthd doctor --fix`",
            Self::SecondShim { .. } => "look what it does (`ls -l /proc/PID/fd`) before you end it, and report it",
            Self::Survivors { .. } => "`berth rm --force` the container; see `berth inspect` for what holds it",
            Self::StrayLog { .. } => "remove it when nobody needs it any more",
            Self::AlmostFull { .. } => "make room: a full disk stops logs, a full state folder stops starts",
            Self::Deaf { .. } => "see berthd's log; restarting it leaves the containers alone",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenRecord { container, problem } => write!(f, "container {container}: {problem}"),
            Self::Foreign { path } => write!(f, "{}: not made by Berth", path.display()),
            Self::Leftover { path } => write!(f, "{}: left over from a removal that was cut short", path.display()),
            Self::HalfMade { container } => write!(f, "container {container}: begun, and no shim serves it"),
            Self::Orphan { container, pid } => {
                write!(
                    f,
                    "container {container}: its shim is gone, its process {pid} runs on unwatched"
                )
            }
            Self::Unseen { container } => {
                write!(
                    f,
                    "container {container}: its shim is gone, and nobody saw how its process ended"
                )
            }
            Self::StrayShim { pid, container, .. } => {
                write!(
                    f,
                    "process {pid}: a shim of container {container}, which is not there any more"
                )
            }
            Self::SecondShim { pid, container } => {
                write!(
                    f,
                    "process {pid}: a shim of container {container}, whose record names another"
                )
            }
            Self::Survivors {
                container,
                cgroup,
                pids,
            } => write!(
                f,
                "container {container}: ended, and {} of its processes are still in cgroup {cgroup} ({})",
                pids.len(),
                Pids(pids)
            ),
            Self::StrayMount { point } => write!(f, "{}: mounted, and no container uses it", point.display()),
            Self::StrayBundle { path } => write!(f, "{}: a bundle of a container that is not there", path.display()),
            Self::StrayLog { path } => write!(f, "{}: output of a container that is not there", path.display()),
            Self::Mode { path, mode, allowed } => {
                write!(f, "{}: mode {mode:04o}, at most {allowed:04o} is safe", path.display())
            }
            Self::AlmostFull { path, free, total } => write!(
                f,
                "{}: {} of {} MiB free",
                path.display(),
                free / (1 << 20),
                total / (1 << 20)
            ),
            Self::Deaf { address, problem } => {
                write!(
                    f,
                    "a daemon runs and does not answer at {}: {problem}",
                    address.display()
                )
            }
        }
    }
}

/// The first few, for a line that a person reads.
struct Pids<'a>(&'a [u32]);

impl fmt::Display for Pids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (place, pid) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{pid}", if place == 0 { "" } else { ", " })?;
        }
        if self.0.len() > SHOWN {
            f.write_str(", …")
        } else {
            Ok(())
        }
    }
}

//! What a cgroup limits, as its files say it now.

use std::path::Path;

use super::stats::text;
use super::{Group, Version, parse};

/// `None` = no limit, or the kernel lacks it. Bytes, microseconds, numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory: Option<u64>,
    /// Memory and swap together.
    pub memory_swap: Option<u64>,
    pub memory_reservation: Option<u64>,
    /// v1 only: v2 has a weight, from which shares can't be told.
    pub cpu_shares: Option<u64>,
    /// Microseconds in each period.
    pub cpu_quota: Option<(u64, u64)>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    pub pids: Option<u64>,
}

/// What a group has if nobody said anything.
const SHARES: u64 = 1024;

impl Group {
    #[must_use]
    pub fn limits(&self) -> Limits {
        match self.version {
            Version::V2 => self.limits_v2(),
            Version::V1 | Version::Hybrid => self.limits_v1(),
        }
    }

    fn limits_v1(&self) -> Limits {
        let (cpu, memory, cpuset) = (self.folder("cpu"), self.folder("memory"), self.folder("cpuset"));
        let quota = parse::number(&text(cpu, "cpu.cfs_quota_us"));
        let period = parse::number(&text(cpu, "cpu.cfs_period_us"));
        Limits {
            memory: limit(memory, "memory.limit_in_bytes"),
            memory_swap: limit(memory, "memory.memsw.limit_in_bytes"),
            memory_reservation: limit(memory, "memory.soft_limit_in_bytes"),
            cpu_shares: parse::number(&text(cpu, "cpu.shares")).filter(|shares| *shares != SHARES),
            cpu_quota: quota.zip(period),
            cpus: own(cpuset, "cpuset.cpus"),
            mems: own(cpuset, "cpuset.mems"),
            pids: limit(self.folder("pids"), "pids.max"),
        }
    }

    fn limits_v2(&self) -> Limits {
        let folder = self.unified();
        let memory = limit(folder, "memory.max");
        // A limit of 0, none at all, is one.
        let swap = parse::number(&text(folder, "memory.swap.max"));
        let cpu = text(folder, "cpu.max");
        let mut cpu = cpu.split_ascii_whitespace().map(|number| number.parse().ok());
        Limits {
            memory,
            memory_swap: memory.zip(swap).map(|(memory, swap)| memory.saturating_add(swap)),
            memory_reservation: limit(folder, "memory.low"),
            cpu_shares: None,
            cpu_quota: cpu.next().flatten().zip(cpu.next().flatten()),
            cpus: own(folder, "cpuset.cpus"),
            mems: own(folder, "cpuset.mems"),
            pids: limit(folder, "pids.max"),
        }
    }
}

fn limit(folder: Option<&Path>, name: &str) -> Option<u64> {
    Some(parse::limit(&text(folder, name))).filter(|limit| *limit != 0)
}

/// Not if it has all that its parent has: under v2 that is an empty file, under v1 the same text.
fn own(folder: Option<&Path>, name: &str) -> Option<String> {
    let of = |folder: Option<&Path>| text(folder, name).trim().to_owned();
    let above = of(folder.and_then(Path::parent));
    Some(of(folder)).filter(|own| !own.is_empty() && *own != above)
}

//! Counters of a cgroup, read at once. What a kernel or a hierarchy lacks is 0.

use std::path::Path;

use super::{Group, Version, parse};

/// What a cgroup has used and may use; limits: 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub cpu_throttled_ns: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub memory_bytes: u64,
    /// Less the inactive file cache.
    pub memory_working_set_bytes: u64,
    pub memory_limit_bytes: u64,
    pub memory_peak_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    pub pids_limit: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub io_reads: u64,
    pub io_writes: u64,
    pub oom_kills: u64,
}

/// A file's text; empty if it can't be read.
pub(super) fn text(folder: Option<&Path>, name: &str) -> String {
    folder
        .and_then(|folder| std::fs::read_to_string(folder.join(name)).ok())
        .unwrap_or_default()
}

fn value(folder: Option<&Path>, name: &str) -> u64 {
    parse::number(&text(folder, name)).unwrap_or(0)
}

impl Group {
    /// Reads all counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = match self.version {
            Version::V2 => self.stats_v2(),
            Version::V1 | Version::Hybrid => self.stats_v1(),
        };
        stats.oom_kills = self.oom_kills();
        stats
    }

    /// Processes of this group and those below it that the OOM killer has ended. 0 if nothing counts them.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(folder) = self.folder("memory") else { return 0 };
        match self.version {
            Version::V2 => parse::keyed(&text(Some(folder), "memory.events"), "oom_kill").unwrap_or(0),
            // v1 counts a group's own only.
            Version::V1 | Version::Hybrid => super::control::tree(folder)
                .iter()
                .filter_map(|folder| parse::keyed(&text(Some(folder), "memory.oom_control"), "oom_kill"))
                .sum(),
        }
    }

    fn stats_v1(&self) -> Stats {
        let (cpu, acct) = (self.folder("cpu"), self.folder("cpuacct"));
        let (memory, pids, blkio) = (self.folder("memory"), self.folder("pids"), self.folder("blkio"));
        let throttling = text(cpu, "cpu.stat");
        let memory_bytes = value(memory, "memory.usage_in_bytes");
        let memory_stat = text(memory, "memory.stat");
        let inactive = parse::keyed(&memory_stat, "total_inactive_file").unwrap_or(0);
        // Which of them exist depends on the I/O scheduler; a file without numbers is as good as none.
        let io = |names: [&str; 3]| {
            names
                .into_iter()
                .map(|name| parse::blkio(&text(blkio, name)))
                .find(|sum| *sum != parse::ReadWrite::default())
        };
        let bytes = io([
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
        ])
        .unwrap_or_default();
        let operations = io([
            "blkio.throttle.io_serviced_recursive",
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
        ])
        .unwrap_or_default();
        Stats {
            cpu_ns: value(acct, "cpuacct.usage"),
            cpu_user_ns: value(acct, "cpuacct.usage_user"),
            cpu_system_ns: value(acct, "cpuacct.usage_sys"),
            cpu_throttled_ns: parse::keyed(&throttling, "throttled_time").unwrap_or(0),
            cpu_periods: parse::keyed(&throttling, "nr_periods").unwrap_or(0),
            cpu_throttled_periods: parse::keyed(&throttling, "nr_throttled").unwrap_or(0),
            memory_bytes,
            memory_working_set_bytes: memory_bytes.saturating_sub(inactive),
            memory_limit_bytes: parse::limit(&text(memory, "memory.limit_in_bytes")),
            memory_peak_bytes: value(memory, "memory.max_usage_in_bytes"),
            swap_bytes: parse::keyed(&memory_stat, "total_swap").unwrap_or(0),
            pids: value(pids, "pids.current"),
            pids_limit: parse::limit(&text(pids, "pids.max")),
            io_read_bytes: bytes.read,
            io_write_bytes: bytes.write,
            io_reads: operations.read,
            io_writes: operations.write,
            oom_kills: 0,
        }
    }

    fn stats_v2(&self) -> Stats {
        let folder = self.unified.as_deref();
        let cpu = text(folder, "cpu.stat");
        let micros = |key| parse::keyed(&cpu, key).unwrap_or(0).saturating_mul(1000);
        let count = |key| parse::keyed(&cpu, key).unwrap_or(0);
        let memory_bytes = value(folder, "memory.current");
        let inactive = parse::keyed(&text(folder, "memory.stat"), "inactive_file").unwrap_or(0);
        let (bytes, operations) = parse::io_stat(&text(folder, "io.stat"));
        Stats {
            cpu_ns: micros("usage_usec"),
            cpu_user_ns: micros("user_usec"),
            cpu_system_ns: micros("system_usec"),
            cpu_throttled_ns: micros("throttled_usec"),
            cpu_periods: count("nr_periods"),
            cpu_throttled_periods: count("nr_throttled"),
            memory_bytes,
            memory_working_set_bytes: memory_bytes.saturating_sub(inactive),
            memory_limit_bytes: parse::limit(&text(folder, "memory.max")),
            memory_peak_bytes: value(folder, "memory.peak"),
            swap_bytes: value(folder, "memory.swap.current"),
            pids: value(folder, "pids.current"),
            pids_limit: parse::limit(&text(folder, "pids.max")),
            io_read_bytes: bytes.read,
            io_write_bytes: bytes.write,
            io_reads: operations.read,
            io_writes: operations.write,
            oom_kills: 0,
        }
    }
}

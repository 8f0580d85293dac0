//! What tasks use, as containerd's cgroup messages have it. Which of the two it is depends on the host's cgroups.

use std::borrow::Cow;

use berth_core::Namespace;
use berth_supervisor::{StatsQuery, Supervisor, Usage};
use berth_wire::containerd::cgroups::{v1, v2};
use berth_wire::containerd::{pack, types};
use tonic::Status;

use super::super::filter::Filter;
use super::super::time;
use super::answer::{Refusal, refuse};

pub async fn read(
    supervisor: &Supervisor,
    namespace: Namespace,
    filters: &[String],
) -> Result<Vec<types::Metric>, Status> {
    let filter = Filter::parse(filters).map_err(|e| Status::invalid_argument(format!("{e}: invalid argument")))?;
    let query = StatsQuery {
        namespace,
        ids: Vec::new(),
        interval: None,
    };
    let mut stream = supervisor.stats(query).await.map_err(|e| refuse(Refusal::Plain, &e))?;
    let Some(sample) = stream
        .next()
        .await
        .transpose()
        .map_err(|e| refuse(Refusal::Plain, &e))?
    else {
        return Ok(Vec::new());
    };
    let at = time::stamp(sample.at);
    let wanted = sample.containers.into_iter().filter(|container| {
        let key = &container.key;
        filter.matches(|path| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            match path.as_slice() {
                ["id"] => Some(Cow::Owned(key.id.to_string())),
                ["namespace"] => Some(Cow::Owned(key.namespace.to_string())),
                _ => None,
            }
        })
    });
    let metric = |container: berth_supervisor::ContainerStats| types::Metric {
        timestamp: Some(at),
        id: container.key.id.to_string(),
        data: Some(if sample.unified {
            pack(&unified(&container.usage))
        } else {
            pack(&legacy(&container.usage))
        }),
    };
    Ok(wanted.map(metric).collect())
}

/// cgroups v1. Every message that clients walk through is there.
fn legacy(usage: &Usage) -> v1::Metrics {
    let entry = |op: &str, value| v1::BlkIoEntry {
        op: op.into(),
        value,
        ..Default::default()
    };
    let inactive = usage.memory_bytes.saturating_sub(usage.memory_working_set_bytes);
    v1::Metrics {
        pids: Some(v1::PidsStat {
            current: usage.pids,
            limit: usage.pids_limit,
        }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage {
                total: usage.cpu_ns,
                kernel: usage.cpu_system_ns,
                user: usage.cpu_user_ns,
                per_cpu: Vec::new(),
            }),
            throttling: Some(v1::Throttle {
                periods: usage.cpu_periods,
                throttled_periods: usage.cpu_throttled_periods,
                throttled_time: usage.cpu_throttled_ns,
            }),
        }),
        memory: Some(v1::MemoryStat {
            inactive_file: inactive,
            total_inactive_file: inactive,
            hierarchical_memory_limit: limit(usage.memory_limit_bytes),
            usage: Some(v1::MemoryEntry {
                limit: limit(usage.memory_limit_bytes),
                usage: usage.memory_bytes,
                max: usage.memory_peak_bytes,
                failcnt: 0,
            }),
            swap: Some(v1::MemoryEntry {
                usage: usage.memory_bytes.saturating_add(usage.swap_bytes),
                ..Default::default()
            }),
            kernel: Some(v1::MemoryEntry::default()),
            kernel_tcp: Some(v1::MemoryEntry::default()),
            ..Default::default()
        }),
        blkio: Some(v1::BlkIoStat {
            io_service_bytes_recursive: vec![entry("Read", usage.io_read_bytes), entry("Write", usage.io_write_bytes)],
            io_serviced_recursive: vec![entry("Read", usage.io_reads), entry("Write", usage.io_writes)],
            ..Default::default()
        }),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill: usage.oom_kills,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The kernel's own word for "no limit" under v1 is the largest page-aligned number; clients only compare it with the host's memory.
fn limit(bytes: u64) -> u64 {
    match bytes {
        0 => 0x7fff_ffff_ffff_f000,
        bytes => bytes,
    }
}

fn unified(usage: &Usage) -> v2::Metrics {
    let unlimited = |bytes: u64| if bytes == 0 { u64::MAX } else { bytes };
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: usage.pids,
            limit: unlimited(usage.pids_limit),
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: usage.cpu_ns / 1000,
            user_usec: usage.cpu_user_ns / 1000,
            system_usec: usage.cpu_system_ns / 1000,
            nr_periods: usage.cpu_periods,
            nr_throttled: usage.cpu_throttled_periods,
            throttled_usec: usage.cpu_throttled_ns / 1000,
            ..Default::default()
        }),
        memory: Some(v2::MemoryStat {
            inactive_file: usage.memory_bytes.saturating_sub(usage.memory_working_set_bytes),
            usage: usage.memory_bytes,
            usage_limit: unlimited(usage.memory_limit_bytes),
            max_usage: usage.memory_peak_bytes,
            swap_usage: usage.swap_bytes,
            ..Default::default()
        }),
        io: Some(v2::IoStat {
            usage: vec![v2::IoEntry {
                rbytes: usage.io_read_bytes,
                wbytes: usage.io_write_bytes,
                rios: usage.io_reads,
                wios: usage.io_writes,
                ..Default::default()
            }],
            ..Default::default()
        }),
        memory_events: Some(v2::MemoryEvents {
            oom_kill: usage.oom_kills,
            ..Default::default()
        }),
        ..Default::default()
    }
}

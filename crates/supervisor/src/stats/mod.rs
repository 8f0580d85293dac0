//! What containers use, read straight from their cgroups and network namespaces, all containers in one pass.
//!
//! Nothing is kept between two readings, and nothing is read unless somebody asked: a stream's timer is its reader's own.

use std::sync::Arc;

use berth_core::{ContainerId, ErrorCode};
use berth_sys::cgroup::{Group, Hierarchies, Stats, Version};
use berth_sys::net_dev;
use tokio::time::{Interval, MissedTickBehavior};

use crate::calls::Call;
use crate::lane::Lane;
use crate::types::{
    ContainerState, ContainerStats, ContainerView, NetworkUsage, Resources, StatsQuery, StatsSample, Usage,
};
use crate::{Error, Supervisor};

/// The processes in each of these cgroups. What can't be read has none: it may be gone at any moment.
pub(crate) fn processes<'a>(cgroups: impl Iterator<Item = &'a str>) -> Vec<Vec<u32>> {
    let hierarchies = Hierarchies::detect();
    let inside = |cgroup: &str| hierarchies.as_ref().ok()?.group_named(cgroup).ok()?.pids().ok();
    cgroups.map(|cgroup| inside(cgroup).unwrap_or_default()).collect()
}

/// Bytes that it uses.
pub(crate) fn memory(view: &ContainerView) -> Option<u64> {
    Some(group(view, &Hierarchies::detect().ok()?)?.stats().memory_bytes)
}

/// What a container's cgroup limits.
pub(crate) fn limits(view: &ContainerView) -> Option<Resources> {
    let limits = group(view, &Hierarchies::detect().ok()?)?.limits();
    let signed = |limit: Option<u64>| limit.and_then(|limit| i64::try_from(limit).ok());
    let (quota, period) = limits.cpu_quota.unzip();
    Some(Resources {
        memory_limit: signed(limits.memory),
        memory_swap: signed(limits.memory_swap),
        memory_reservation: signed(limits.memory_reservation),
        cpu_shares: limits.cpu_shares,
        cpu_quota: signed(quota),
        cpu_period: period,
        cpuset_cpus: limits.cpus,
        cpuset_mems: limits.mems,
        pids_limit: signed(limits.pids),
        blkio_weight: None,
    })
}

impl Supervisor {
    /// One reading, or one every interval. Containers that are named must be alive at the first reading.
    pub async fn stats(&self, query: StatsQuery) -> Result<StatsStream, Error> {
        let pace = query.interval.map(|interval| {
            let mut pace = tokio::time::interval(interval);
            // A slow reader gets fewer readings, not a burst of stale ones.
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let hierarchies = blocking(&self.env().lanes.kernel, Hierarchies::detect)
            .await?
            .map_err(|e| {
                Error::new(
                    ErrorCode::Internal,
                    "stats",
                    "",
                    format!("find the cgroup file systems: {e}"),
                )
            })?;
        let mut stream = StatsStream {
            supervisor: self.clone(),
            query,
            hierarchies: Arc::new(hierarchies),
            pace,
            first: None,
            ended: false,
            _call: self.env().calls.enter("stats", None),
        };
        // Here and not in `next`, so that an unknown id fails the call and not its stream.
        stream.first = Some(stream.read(true).await?);
        if let Some(pace) = &mut stream.pace {
            // The first tick is at once, and that reading is done.
            pace.tick().await;
        }
        Ok(stream)
    }
}

/// Dropping it ends the readings.
pub struct StatsStream {
    supervisor: Supervisor,
    query: StatsQuery,
    hierarchies: Arc<Hierarchies>,
    pace: Option<Interval>,
    first: Option<StatsSample>,
    ended: bool,
    _call: Call,
}

impl StatsStream {
    /// `None` after the one reading that was asked for, or when none of the named containers is left.
    pub async fn next(&mut self) -> Option<Result<StatsSample, Error>> {
        if self.ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            self.ended = self.pace.is_none();
            return Some(Ok(first));
        }
        self.pace.as_mut()?.tick().await;
        let sample = self.read(false).await;
        self.ended = match &sample {
            Ok(sample) => !self.query.ids.is_empty() && sample.containers.is_empty(),
            Err(_) => true,
        };
        Some(sample)
    }

    /// `strict`: what is named must be there and alive.
    async fn read(&self, strict: bool) -> Result<StatsSample, Error> {
        let views = self
            .supervisor
            .list(Some(self.query.namespace.clone()), Default::default(), false)
            .await?;
        if strict {
            for id in &self.query.ids {
                self.check(id, views.iter().find(|view| view.key.id == *id))?;
            }
        }
        let named = |view: &ContainerView| self.query.ids.is_empty() || self.query.ids.contains(&view.key.id);
        let views: Vec<_> = views.into_iter().filter(|view| alive(view) && named(view)).collect();
        let hierarchies = self.hierarchies.clone();
        blocking(&self.supervisor.env().lanes.kernel, move || StatsSample {
            at: berth_sys::time::realtime(),
            containers: views.iter().map(|view| usage(view, &hierarchies)).collect(),
            unified: hierarchies.version() == Version::V2,
        })
        .await
    }

    fn check(&self, id: &ContainerId, view: Option<&ContainerView>) -> Result<(), Error> {
        let refuse = |code, why: &str| Err(Error::new(code, "stats", format!("{}/{id}", self.query.namespace), why));
        match view {
            None => refuse(ErrorCode::NotFound, "no such container"),
            Some(view) if !alive(view) => refuse(ErrorCode::WrongState, "the container has no running process"),
            Some(_) => Ok(()),
        }
    }
}

pub(crate) fn alive(view: &ContainerView) -> bool {
    match view.state {
        ContainerState::Created | ContainerState::Starting | ContainerState::Running | ContainerState::Paused => {
            view.pid != 0
        }
        ContainerState::Queued
        | ContainerState::Creating
        | ContainerState::Stopped
        | ContainerState::Restarting
        | ContainerState::Deleting => false,
    }
}

/// Under v1 each controller may have put the process elsewhere. If the process is gone, or its number is another's by now,
/// the name alone has to do.
fn group(view: &ContainerView, hierarchies: &Hierarchies) -> Option<Group> {
    let of_process = hierarchies
        .group_of(view.pid)
        .ok()
        .filter(|group| group.name() == view.cgroup);
    of_process.or_else(|| hierarchies.group_named(&view.cgroup).ok())
}

fn usage(view: &ContainerView, hierarchies: &Hierarchies) -> ContainerStats {
    let stats = group(view, hierarchies).map(|group| group.stats()).unwrap_or_default();
    let usage = Usage {
        oom_kills: stats.oom_kills.max(view.oom_kills),
        networks: networks(view.pid),
        ..counted(stats)
    };
    ContainerStats {
        key: view.key.clone(),
        usage,
    }
}

fn counted(stats: Stats) -> Usage {
    Usage {
        cpu_ns: stats.cpu_ns,
        cpu_user_ns: stats.cpu_user_ns,
        cpu_system_ns: stats.cpu_system_ns,
        cpu_throttled_ns: stats.cpu_throttled_ns,
        cpu_periods: stats.cpu_periods,
        cpu_throttled_periods: stats.cpu_throttled_periods,
        memory_bytes: stats.memory_bytes,
        memory_working_set_bytes: stats.memory_working_set_bytes,
        memory_limit_bytes: stats.memory_limit_bytes,
        memory_peak_bytes: stats.memory_peak_bytes,
        swap_bytes: stats.swap_bytes,
        pids: stats.pids,
        pids_limit: stats.pids_limit,
        io_read_bytes: stats.io_read_bytes,
        io_write_bytes: stats.io_write_bytes,
        io_reads: stats.io_reads,
        io_writes: stats.io_writes,
        oom_kills: stats.oom_kills,
        networks: Vec::new(),
    }
}

/// Empty if the process is gone or shares our own network namespace. The loopback is left out.
fn networks(pid: u32) -> Vec<NetworkUsage> {
    let ours = net_dev::namespace(std::process::id());
    match (net_dev::namespace(pid), ours) {
        (Ok(theirs), Ok(ours)) if theirs != ours => {}
        _ => return Vec::new(),
    }
    let interfaces = net_dev::read(pid)
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| interface.name != "lo");
    interfaces.map(network).collect()
}

fn network(interface: net_dev::Interface) -> NetworkUsage {
    NetworkUsage {
        interface: interface.name,
        rx_bytes: interface.rx_bytes,
        rx_packets: interface.rx_packets,
        rx_errors: interface.rx_errors,
        rx_dropped: interface.rx_dropped,
        tx_bytes: interface.tx_bytes,
        tx_packets: interface.tx_packets,
        tx_errors: interface.tx_errors,
        tx_dropped: interface.tx_dropped,
    }
}

/// Files of the kernel may make their reader wait (a cgroup lock that a dying container holds): not on a worker thread.
async fn blocking<T: Send + 'static>(lane: &Lane, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    lane.run(work).await.map_err(|e| {
        Error::new(
            ErrorCode::Internal,
            "stats",
            "",
            format!("the reading was cut short: {e}"),
        )
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn our_own_network_is_not_told() {
        assert_eq!(networks(std::process::id()), []);
        assert_eq!(networks(u32::MAX), []);
    }
}

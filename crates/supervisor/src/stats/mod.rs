//! What containers use, read straight from their cgroups and network namespaces, all containers in one pass.
//!
//! Nothing is kept between two readings, and nothing is read unless somebody asked: a stream's timer is its reader's own.

mod cgroup;
mod network;

use std::sync::Arc;

use berth_core::{ContainerId, ErrorCode};
use tokio::time::{Interval, MissedTickBehavior};

use crate::types::{ContainerState, ContainerStats, ContainerView, StatsQuery, StatsSample, Usage};
use crate::{Error, Supervisor};
use cgroup::Hierarchies;

/// The processes in each of these cgroups.
pub(crate) fn processes<'a>(cgroups: impl Iterator<Item = &'a str>) -> Vec<Vec<u32>> {
    let hierarchies = Hierarchies::find().unwrap_or_default();
    let inside = |cgroup: &str| {
        if cgroup.is_empty() {
            Vec::new()
        } else {
            hierarchies.processes(cgroup)
        }
    };
    cgroups.map(inside).collect()
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
        let hierarchies = blocking(Hierarchies::find).await?.map_err(|e| {
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
        blocking(move || StatsSample {
            at: now(),
            containers: views.iter().map(|view| usage(view, &hierarchies)).collect(),
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

fn alive(view: &ContainerView) -> bool {
    match view.state {
        ContainerState::Created | ContainerState::Starting | ContainerState::Running | ContainerState::Paused => {
            view.pid != 0
        }
        ContainerState::Queued | ContainerState::Creating | ContainerState::Stopped | ContainerState::Deleting => false,
    }
}

fn usage(view: &ContainerView, hierarchies: &Hierarchies) -> ContainerStats {
    let mut usage = Usage::default();
    if !view.cgroup.is_empty() {
        hierarchies.read(&view.cgroup, &mut usage);
    }
    usage.oom_kills = usage.oom_kills.max(view.oom_kills);
    usage.networks = network::read(view.pid);
    ContainerStats {
        key: view.key.clone(),
        usage,
    }
}

/// Files of the kernel may make their reader wait (a cgroup lock that a dying container holds): not on a worker thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        Error::new(
            ErrorCode::Internal,
            "stats",
            "",
            format!("the reading was cut short: {e}"),
        )
    })
}

fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

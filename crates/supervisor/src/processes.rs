//! The processes inside containers and their limits, from their cgroups.

use std::collections::HashMap;

use berth_core::{ContainerKey, ExecId};

use crate::Supervisor;
use crate::types::{ContainerView, ProcessInfo, Resources};

impl Supervisor {
    /// Fills `processes` in. A container that has ended, or whose cgroup can't be read, gets what Berth itself started.
    pub(crate) async fn fill_processes(&self, views: &mut [ContainerView]) {
        let asked: Vec<_> = views.iter().map(|v| (v.cgroup.clone(), own(v))).collect();
        let read = self.env().lanes.kernel.run(move || {
            // Of a container that has ended the cgroup may be another's already.
            let cgroups = asked
                .iter()
                .map(|(cgroup, own)| if own.is_empty() { "" } else { cgroup.as_str() });
            let pids = crate::stats::processes(cgroups);
            asked
                .iter()
                .zip(pids)
                .map(|((_, own), pids)| describe(pids, own))
                .collect::<Vec<_>>()
        });
        for (view, processes) in views.iter_mut().zip(read.await.unwrap_or_default()) {
            view.processes = processes;
        }
    }

    pub(crate) async fn limits(&self, key: &ContainerKey) -> Option<Resources> {
        let mut view = self.look(key).await.ok()?;
        self.fill_limits(&mut view).await;
        view.limits
    }

    /// Bytes.
    pub(crate) async fn memory_in_use(&self, key: &ContainerKey) -> Option<u64> {
        let view = self.look(key).await.ok().filter(crate::stats::alive)?;
        let read = self.env().lanes.kernel.run(move || crate::stats::memory(&view));
        read.await.ok().flatten()
    }

    pub(crate) async fn fill_limits(&self, view: &mut ContainerView) {
        // Of a container that has ended the cgroup may be another's already.
        if crate::stats::alive(view) {
            let asked = view.clone();
            let read = self.env().lanes.kernel.run(move || crate::stats::limits(&asked));
            view.limits = read.await.ok().flatten();
        }
    }
}

/// The processes that Berth started and that run, by pid.
fn own(view: &ContainerView) -> HashMap<u32, Option<ExecId>> {
    let execs = view
        .execs
        .iter()
        .filter(|e| e.pid != 0)
        .map(|e| (e.pid, Some(e.exec_id.clone())));
    let init = (view.pid != 0).then_some((view.pid, None));
    execs.chain(init).collect()
}

fn describe(mut pids: Vec<u32>, own: &HashMap<u32, Option<ExecId>>) -> Vec<ProcessInfo> {
    pids.extend(
        own.keys()
            .filter(|pid| !pids.contains(pid))
            .copied()
            .collect::<Vec<_>>(),
    );
    pids.sort_unstable();
    let command = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    // One that ended meanwhile is left out.
    let info = |pid: u32| {
        Some(ProcessInfo {
            pid,
            exec_id: own.get(&pid).cloned().flatten(),
            command: command(pid)?.trim_end().to_owned(),
        })
    };
    pids.into_iter().filter_map(info).collect()
}

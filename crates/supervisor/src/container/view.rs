//! The container as others see it: a picture that its task replaces after each change.

use std::path::PathBuf;
use std::time::Duration;

use berth_core::{Signal, Stdio, StdioTo};

use super::task::Task;
use crate::types::{ContainerView, ExecStarted, ExecView, Stage};

pub(crate) struct Snapshot {
    pub(crate) view: ContainerView,
    /// Run, not Create.
    pub(crate) run: bool,
    /// Of the request that made it, and of the one that started it.
    pub(crate) request_id: String,
    pub(crate) start_request_id: String,
    /// The init's, even if it has ended.
    pub(crate) pid: u32,
    /// What was answered to the requests that made execs.
    pub(crate) exec_requests: Vec<(String, ExecStarted)>,
}

impl Task {
    pub(super) fn snapshot(&self) -> Snapshot {
        let record = &self.record;
        let execs = self.execs.iter().map(|(id, exec)| ExecView {
            exec_id: id.clone(),
            pid: if exec.exit.is_some() { 0 } else { exec.pid },
            last_pid: exec.pid,
            started_at: exec.started_at,
            exit: exec.exit.clone(),
            terminal: exec.terminal,
            stdio: exec.stdio.clone(),
        });
        let answered = self
            .execs
            .iter()
            .filter(|(_, e)| !e.request_id.is_empty() && e.pid != 0);
        let requests = answered.map(|(id, e)| {
            let started = ExecStarted {
                pid: e.pid,
                exec_id: id.clone(),
            };
            (e.request_id.clone(), started)
        });
        let stdio = Stdio::from(&record.stdio);
        let view = ContainerView {
            key: self.key.clone(),
            incarnation: self.incarnation,
            bundle: record.bundle.clone(),
            runtime: record.runtime.name.clone(),
            labels: record.labels.clone(),
            state: self.state,
            pid: if self.exit.is_some() { 0 } else { self.pid },
            last_pid: self.pid,
            created_at: record.created_at,
            started_at: record.started_at,
            exit: self.exit.clone(),
            execs: execs.collect(),
            log_path: self.log_path(&stdio),
            stdio,
            stop_signal: Signal::from_number(record.stop_signal).unwrap_or(Signal::TERM),
            stop_timeout: Duration::from_millis(record.stop_timeout_ms),
            shim_pid: self.link.as_ref().map_or(0, |l| l.client.process().pid()),
            processes: Vec::new(),
            cgroup: self.cgroup.clone(),
            log_dropped_bytes: 0,
            oom_kills: self.oom_kills,
            stages: self.stages(),
            restart: record.restart.policy(),
            restart_count: record.restart.count,
            restart_at: record.restart.due_at,
            remove: record.remove,
            limits: None,
        };
        Snapshot {
            view,
            run: record.run,
            request_id: record.request_id.clone(),
            start_request_id: record.start_request_id.clone(),
            pid: self.pid,
            exec_requests: requests.collect(),
        }
    }

    pub(super) fn stages(&self) -> Vec<Stage> {
        let stages = self.record.stages.iter();
        stages
            .map(|s| Stage {
                name: s.name.clone(),
                duration: Duration::from_micros(s.duration_us),
            })
            .collect()
    }

    /// Folder of the log, if there is one.
    pub(super) fn log_path(&self, stdio: &Stdio) -> Option<PathBuf> {
        let keeps = matches!(&stdio.to, StdioTo::Log(log) if !log.discard);
        keeps.then(|| self.env.layout.log_dir(&self.key))
    }
}

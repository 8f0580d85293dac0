//! What the shim writes down: itself, its init, and every exit. tmpfs, small files, never synced: the loop may do it.

use std::os::fd::OwnedFd;

use berth_record::{ExecRecord, ExitRecord, Folder, ProcessRecord, ReasonRecord, ShimRecord, ShimState};
use berth_sys::{file, process};
use berth_wire::shim::{Exit, State};

use crate::child::Child;
use crate::container::Container;
use crate::error::Error;

#[derive(Debug)]
pub struct Records {
    folder: Folder,
    shim: ShimRecord,
}

fn failed(operation: &'static str) -> impl FnOnce(berth_record::Error) -> Error {
    move |source| Error::Record { operation, source }
}

impl Records {
    /// Also what an earlier shim has left, if it is of the same boot.
    pub fn new(name: &str, folder: &OwnedFd) -> Result<(Records, Option<ShimRecord>), Error> {
        let io = |what: &'static str| Error::io("serve", what);
        let pid = process::getpid();
        let start_time = process::start_time(pid).map_err(io("/proc/self/stat"))?;
        let boot_id = process::boot_id().map_err(io("boot_id"))?;
        let folder = Folder::from_fd(file::duplicate(folder).map_err(io("folder"))?, name);
        // A broken record is as good as none: the runtime knows what it made.
        let earlier = folder
            .shim()
            .ok()
            .flatten()
            .filter(|earlier| earlier.boot_id == boot_id);
        let shim = ShimRecord {
            shim: ProcessRecord { pid, start_time },
            boot_id,
            version: env!("CARGO_PKG_VERSION").into(),
            // If this shim does not live to remove it either, the next one must find it.
            ..earlier.clone().unwrap_or_default()
        };
        Ok((Records { folder, shim }, earlier))
    }

    pub fn serving(&self) -> Result<(), Error> {
        self.folder.write_shim(&self.shim).map_err(failed("serve"))
    }

    pub fn state(&mut self, state: State, container: &Container, init: Option<&Child>) -> Result<(), Error> {
        self.shim.incarnation.clone_from(&container.incarnation);
        self.shim.cgroup.clone_from(&container.cgroup.name);
        let born = init.and_then(|child| Some((child, child.born.as_ref()?)));
        self.shim.init = born.map(|(_, born)| ProcessRecord {
            pid: born.pid,
            start_time: born.start_time,
        });
        self.shim.oom_baseline = init.map_or(0, |child| child.oom_before);
        self.shim.started_at = init.map_or(0, |child| child.started_at);
        self.shim.state = match state {
            State::Empty => ShimState::Empty,
            State::Creating => ShimState::Creating,
            State::Created => ShimState::Created,
            State::Running => ShimState::Running,
            State::Paused => ShimState::Paused,
            State::Stopped => ShimState::Stopped,
        };
        self.folder.write_shim(&self.shim).map_err(failed("record"))
    }

    /// Keeps the space of an exit before there is a process that could end.
    pub fn reserve(&self, exec_id: &str) -> Result<(), Error> {
        let done = if exec_id.is_empty() {
            self.folder.reserve_exit()
        } else {
            self.folder.reserve_exec(exec_id)
        };
        done.map_err(failed("reserve"))
    }

    pub fn exec(&self, child: &Child) -> Result<(), Error> {
        self.folder
            .write_exec(&self.exec_record(child, None))
            .map_err(failed("record"))
    }

    pub fn exit(&self, child: &Child, exit: &Exit) -> Result<(), Error> {
        let record = ExitRecord {
            incarnation: self.shim.incarnation.clone(),
            exec_id: child.exec_id.clone(),
            pid: child.pid(),
            code: exit.code,
            signal: exit.signal,
            reason: match exit {
                Exit { oom: true, .. } => ReasonRecord::Oom,
                Exit { signal: 0, .. } => ReasonRecord::Exited,
                Exit { .. } => ReasonRecord::Signaled,
            },
            at: exit.at,
            message: String::new(),
        };
        let done = if child.is_init() {
            self.folder.write_exit(&record)
        } else {
            self.folder.write_exec_exit(&self.exec_record(child, Some(record)))
        };
        done.map_err(failed("record"))
    }

    fn exec_record(&self, child: &Child, exit: Option<ExitRecord>) -> ExecRecord {
        ExecRecord {
            exec_id: child.exec_id.clone(),
            incarnation: self.shim.incarnation.clone(),
            process: ProcessRecord {
                pid: child.pid(),
                start_time: child.born.as_ref().map_or(0, |born| born.start_time),
            },
            request_id: child.request_id.clone(),
            terminal: child.stdio.terminal,
            started_at: child.started_at,
            exit,
        }
    }

    pub fn remove_exec(&self, exec_id: &str) -> Result<(), Error> {
        self.folder.remove_exec(exec_id).map_err(failed("remove"))
    }

    /// Ids of all execs that any shim of this folder has left a record of.
    pub fn exec_ids(&self) -> Vec<String> {
        self.folder.exec_ids().unwrap_or_default()
    }
}

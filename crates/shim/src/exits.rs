//! How processes end: reaped, output read to the end, recorded, told. In this order, for each.
//!
//! Invariants: an exit is in its record before it is in the outbox; it is told after the answer of the call that made the process;
//! exits of execs come before the init's; a known child is reaped for its owner, an unknown one only when it can't be one that a
//! creator is about to name.

use std::time::Instant;

use berth_sys::process::{self, Ended};
use berth_sys::{signal, time};
use berth_wire::shim::{Exit, ProcessExited, State};

use crate::shim::Shim;
use crate::stage::stage;

/// Turns of output that are read when the patience is over: what pipes can hold, not what a busy grandchild can write.
const LAST_TURNS: usize = 64;

impl Shim {
    /// Takes the status of every child that has ended and that may be reaped now.
    pub fn reap(&mut self) {
        let living: Vec<u32> = self
            .children
            .iter()
            .filter(|child| child.lives())
            .map(|child| child.id)
            .collect();
        for id in living {
            self.reap_child(id);
        }
        self.ending
            .retain(|pid| !matches!(process::reap(*pid), Ok(Some(_)) | Err(_)));
        for child in &mut self.children {
            if let Some(writer) = child.stdio.writer()
                && let Ok(Some(ended)) = process::reap(writer)
            {
                child.stdio.writer_ended(ended == Ended::Exited(0));
            }
        }
        if !self.makes_a_process() {
            self.reap_orphans();
        }
    }

    fn reap_child(&mut self, id: u32) {
        let now = Instant::now();
        let drain = self.container.as_ref().map(|container| container.drain_timeout);
        let Some(child) = self.children.iter_mut().find(|child| child.id == id) else {
            return;
        };
        let Ok(Some(ended)) = process::reap(child.pid()) else {
            return;
        };
        stage!("exit.reaped");
        let signal = match ended {
            Ended::Exited(_) => 0,
            Ended::Signaled { signal, .. } => u32::from(signal),
        };
        if let Some(born) = &mut child.born {
            born.pidfd = None;
        }
        child.exit = Some(Exit {
            code: ended.code(),
            signal,
            oom: false,
            at: time::realtime(),
        });
        child.drain_by = Some(now + drain.unwrap_or_default());
        child.stdio.ended();
        let is_init = child.is_init();
        if is_init {
            self.init_ended();
        }
        let kills = self.look_for_oom();
        if let Some(child) = self.children.iter_mut().find(|child| child.id == id)
            && let Some(exit) = &mut child.exit
        {
            exit.oom = exit.code == 128 + signal::SIGKILL.unsigned_abs() && kills > child.oom_before;
        }
    }

    /// The container ends with its init: what is left of it goes too. With a pid namespace of its own the kernel has seen to that.
    fn init_ended(&mut self) {
        self.state = State::Stopped;
        for child in &self.children {
            let _ = child.signal(signal::SIGKILL);
        }
        let shares = self
            .init()
            .and_then(|init| init.born.as_ref())
            .is_some_and(|born| !born.own_pid_namespace);
        if shares {
            self.kill_rest();
        }
        // The exit record follows; it says the same and more.
        let _ = self.record_state();
    }

    fn reap_orphans(&mut self) {
        while let Ok(Some((pid, _))) = process::peek() {
            if self.knows(pid) || !matches!(process::reap(pid), Ok(Some(_))) {
                break;
            }
        }
    }

    /// Whether this child has an owner here.
    pub fn knows(&self, pid: u32) -> bool {
        self.ending.contains(&pid)
            || self.tasks.iter().any(|task| task.creator.pid == pid)
            || self
                .children
                .iter()
                .any(|child| child.lives() && child.pid() == pid || child.stdio.writer() == Some(pid))
    }

    /// Tells the exits whose output is where it belongs, or has had its time.
    pub fn tell_exits(&mut self) {
        let now = Instant::now();
        // Execs first: the init stands at the front.
        let order: Vec<u32> = self.children.iter().rev().map(|child| child.id).collect();
        for id in order {
            let others_told = self
                .children
                .iter()
                .all(|other| other.is_init() || other.told || other.born.is_none());
            let Some(child) = self.children.iter_mut().find(|child| child.id == id) else {
                continue;
            };
            let Some(exit) = child.exit.filter(|_| !child.told && !child.busy) else {
                continue;
            };
            let late = child.drain_by.is_some_and(|by| by <= now);
            if !late && (!child.stdio.is_drained() || child.is_init() && !others_told) {
                continue;
            }
            if late {
                child.stdio.drain_now(LAST_TURNS);
            }
            stage!("exit.drained");
            // Its space was reserved. If it can't be written even so, telling it is what is left to do.
            let _ = self.records.exit(child, &exit);
            stage!("exit.recorded");
            child.told = true;
            let exited = ProcessExited {
                exec_id: child.exec_id.clone(),
                pid: child.pid(),
                exit: Some(exit),
            };
            self.outbox.exited(exited);
            stage!("exit.queued");
        }
        self.finish_delete();
    }
}

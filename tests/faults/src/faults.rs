//! The faults, and when: one at a time, so that a trace can be read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_e2e::Daemon;
use berth_e2e::proc::{self, Process};
use rustix::process::Signal;

use crate::ledger::Ledger;

pub struct Injector<'a> {
    random: fastrand::Rng,
    stages: &'a [String],
    ledger: Arc<Ledger>,
    began: Instant,
    trace: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillDaemon,
    EndDaemon,
    KillDaemonAtStage,
    StopDaemon,
    KillTemplate,
    StopTemplate,
    StopShim,
    KillShim,
}

const FAULTS: [Fault; 8] = [
    Fault::KillDaemon,
    Fault::EndDaemon,
    Fault::KillDaemonAtStage,
    Fault::StopDaemon,
    Fault::KillTemplate,
    Fault::StopTemplate,
    Fault::StopShim,
    Fault::KillShim,
];

impl<'a> Injector<'a> {
    pub fn new(random: fastrand::Rng, stages: &'a [String], ledger: Arc<Ledger>) -> Self {
        Self {
            random,
            stages,
            ledger,
            began: Instant::now(),
            trace: Vec::new(),
        }
    }

    /// One line a fault, with its time since the episode began.
    pub fn trace(&self) -> String {
        self.trace.concat()
    }

    fn note(&mut self, what: &str) {
        self.trace
            .push(format!("  {:>6} ms {what}\n", self.began.elapsed().as_millis()));
    }

    /// Ends with a daemon at work.
    pub async fn run(&mut self, daemon: &mut Daemon, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            // The load's own pace decides what a fault meets; the pause only spreads them.
            self.pause(100..1000).await;
            let fault = FAULTS[self.random.usize(0..FAULTS.len())];
            self.ledger.count(|counts| counts.faults += 1);
            self.strike(daemon, fault).await;
        }
        daemon.set_env(&[]);
        daemon.kill_and_restart().await;
        self.note("the last restart");
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(milliseconds))).await;
    }

    async fn strike(&mut self, daemon: &mut Daemon, fault: Fault) {
        match fault {
            Fault::KillDaemon => {
                daemon.kill();
                self.note("SIGKILL daemon");
                if self.random.bool() {
                    self.pause(1..800).await;
                }
                daemon.restart().await;
                self.note("daemon back");
            }
            Fault::EndDaemon => {
                self.note("SIGTERM daemon");
                daemon.terminate().await;
                daemon.restart().await;
                self.note("daemon back");
            }
            Fault::KillDaemonAtStage => {
                let stage = self.stages[self.random.usize(0..self.stages.len())].clone();
                daemon.kill();
                daemon.set_env(&[("BERTH_KILL_AT", &stage)]);
                self.note(&format!("restart, to die at {stage}"));
                daemon.restart().await;
                // A stage that the load does not pass now is no fault.
                let until = Instant::now() + Duration::from_secs(2);
                while !daemon.was_killed() && Instant::now() < until {
                    self.pause(5..6).await;
                }
                daemon.set_env(&[]);
                daemon.kill_and_restart().await;
                self.note("daemon back");
            }
            Fault::StopDaemon => self.stop(Some(daemon.pid()), "daemon").await,
            Fault::StopTemplate => self.stop(template(daemon), "template").await,
            Fault::KillTemplate => {
                if let Some(pid) = template(daemon) {
                    self.note("SIGKILL template");
                    proc::kill(pid, Signal::KILL);
                }
            }
            Fault::StopShim => {
                let shim = self.some_shim(daemon).await.map(|(_, shim)| shim.pid);
                self.stop(shim, "a shim").await;
            }
            Fault::KillShim => {
                if let Some((id, shim)) = self.some_shim(daemon).await {
                    // First: from here on its end may be a loss.
                    self.ledger.wound(&id);
                    self.note(&format!("SIGKILL the shim of {id}"));
                    if shim.alive() {
                        proc::kill(shim.pid, Signal::KILL);
                    }
                }
            }
        }
    }

    async fn stop(&mut self, pid: Option<u32>, what: &str) {
        let Some(process) = pid.and_then(Process::find) else {
            return;
        };
        self.note(&format!("SIGSTOP {what}"));
        proc::kill(process.pid, Signal::STOP);
        self.pause(50..800).await;
        if process.alive() {
            proc::kill(process.pid, Signal::CONT);
        }
        self.note(&format!("SIGCONT {what}"));
    }

    async fn some_shim(&mut self, daemon: &Daemon) -> Option<(String, Process)> {
        let live = self.ledger.live();
        let id = live.get(self.random.usize(0..live.len().max(1)))?.clone();
        let shim = daemon.try_get(&id).await.ok()?.shim_pid;
        Some((id, Process::find(shim)?))
    }
}

fn template(daemon: &Daemon) -> Option<u32> {
    proc::children(daemon.pid())
        .into_iter()
        .find(|pid| proc::name(*pid).as_deref() == Some("berth-template"))
}

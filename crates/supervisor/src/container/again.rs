//! Restarts: after an end the policy is asked, the pause waited out, and the container made again in place of what is left of it.
//! Its id, its log and its record go on; shim, cgroup and incarnation are new.

use std::sync::Arc;

use berth_core::restart::{Ended, Restarts};
use berth_core::state::{Input, State};
use berth_core::{ErrorCode, EventKind, ExitReason, RestartPolicy, Signal};
use berth_record::{ContainerRecord, ExitRecord, StateRecord};
use tokio::time::Duration;

use super::remove::{Removal, remove};
use super::task::Task;
use super::{Fact, Wish};
use crate::env::Env;
use crate::reply::Reply;

/// Before a start that could not be tried is tried.
const LATER: Duration = Duration::from_secs(1);

impl Task {
    pub(super) fn policy(&self) -> RestartPolicy {
        self.record.restart.policy()
    }

    /// It has ended, and that is told.
    pub(super) fn after_end(&mut self) {
        self.consider_restart();
        if self.state == State::Stopped && self.record.remove {
            self.input(Input::Delete, None);
        }
    }

    /// Is it to be started again? Decided once for each life and boot.
    fn consider_restart(&mut self) {
        let Some(exit) = self.exit.clone() else { return };
        let began = self.record.started_at != 0 || self.record.restart.count != 0;
        if self.state != State::Stopped || self.policy() == RestartPolicy::No || !began {
            return;
        }
        let restart = &self.record.restart;
        let decided = restart.decided_for == self.record.incarnation;
        if !decided || restart.decided_boot != self.env.boot_id {
            let ended = Ended {
                failed: exit.code != 0,
                lived: Duration::from_nanos(
                    u64::try_from(exit.exited_at - self.record.started_at)
                        .ok()
                        .filter(|_| self.record.started_at != 0)
                        .unwrap_or_default(),
                ),
                rebooted: decided || exit.reason == ExitReason::Reboot,
            };
            let mut restarts = restart.restarts();
            let pause = restarts.after(self.policy(), ended);
            self.put_restarts(restarts);
            let pid = self.pid;
            let (incarnation, boot_id, now) = (
                self.record.incarnation.clone(),
                self.env.boot_id.clone(),
                self.env.clock.now(),
            );
            let restart = &mut self.record.restart;
            restart.last = Some(ExitRecord::new(&incarnation, "", pid, &exit));
            restart.due_at = pause.map_or(0, |p| {
                now.saturating_add(i64::try_from(p.as_nanos()).unwrap_or(i64::MAX))
            });
            (restart.decided_for, restart.decided_boot) = (incarnation, boot_id);
            self.note();
        }
        if self.record.restart.due_at != 0 {
            self.input(Input::Restart, None);
        }
    }

    fn put_restarts(&mut self, restarts: Restarts) {
        self.record.restart.set_restarts(restarts);
    }

    /// The record, to where a crash and a reboot leave it.
    pub(super) fn note(&self) {
        if let Some(folder) = &self.folder {
            let record = ContainerRecord {
                state: StateRecord::Stopped,
                ..self.record.clone()
            };
            let record = if self.exit.is_some() { &record } else { &self.record };
            if let Err(error) = folder.write_container(record) {
                tracing::warn!(container = %self.key, %error, "its restart policy could not be noted");
            }
        }
        self.keep();
    }

    pub(super) fn keep(&self) {
        if self.policy() != RestartPolicy::No {
            self.env.kept.set(&self.key, &self.record);
        }
    }

    pub(super) fn back_off(&mut self) {
        let left = self.record.restart.due_at.saturating_sub(self.env.clock.now());
        // The clock may have been set.
        let left = Duration::from_nanos(u64::try_from(left).unwrap_or_default());
        self.wait_for_restart(left.min(Duration::from_millis(self.record.restart.pause_ms)));
    }

    fn wait_for_restart(&mut self, pause: Duration) {
        let facts = self.facts_in.clone();
        let timer = tokio::spawn(async move {
            // The pause is what was asked for.
            tokio::time::sleep(pause).await;
            let _ = facts.send(Box::new(Fact::Due)).await;
        });
        self.queued = Some(timer.abort_handle());
    }

    /// Not now: the queue is full, or the journal is. The next daemon does it if this one ends.
    pub(super) fn defer_restart(&mut self) {
        if !self.env.is_closing() {
            self.wait_for_restart(LATER);
        }
    }

    pub(super) fn rejoin(&mut self) {
        // What the journal did not take yet is acknowledged to the shim that is about to go.
        if self.env.is_closing() || !self.unsaid.is_empty() {
            return self.defer_restart();
        }
        self.enqueue();
    }

    /// Whoever asks for its end does not want it back.
    pub(super) fn heed(&mut self, wish: Option<&Wish>) {
        let own = Signal::from_number(self.record.stop_signal).unwrap_or(Signal::TERM);
        let asks = match wish {
            Some(Wish::Stop { .. }) => true,
            Some(Wish::Signal { exec: None, signal, .. }) => *signal == Signal::KILL || *signal == own,
            _ => false,
        };
        if asks && self.policy() != RestartPolicy::No && !self.record.restart.stopped {
            self.record.restart.stopped = true;
            self.record.restart.due_at = 0;
            self.note();
        }
    }

    /// Whoever stops it need not know that it is being made again just now.
    pub(super) fn hold(&mut self, wish: Wish) {
        self.heed(Some(&wish));
        self.held.push(wish);
    }

    /// The restart has come to its end, whichever.
    pub(super) fn release_held(&mut self) {
        for wish in std::mem::take(&mut self.held) {
            self.wish(wish);
        }
    }

    pub(super) fn set_policy(&mut self, policy: RestartPolicy, reply: Reply<()>) {
        if self.state == State::Deleting {
            let error = self.error("update", ErrorCode::WrongState, "the container is being deleted");
            return reply.send(Err(error));
        }
        self.record.restart.set_policy(policy);
        self.record.restart.failures = 0;
        self.note();
        if policy == RestartPolicy::No {
            self.env.kept.drop(&self.key);
            self.record.restart.due_at = 0;
            self.input(Input::RestartCancelled, None);
        }
        self.tell(EventKind::Updated);
        self.publish();
        reply.send(Ok(()));
    }

    /// What is left of the life before, to be removed first; the record is the next one's afterwards. `None` = this is the first.
    pub(super) fn begin_again(&mut self) -> Option<Removal> {
        let folder = self.folder.take()?;
        let link = self.link.take();
        let removal = Removal {
            env: self.env.clone(),
            key: self.key.clone(),
            record: self.record.clone(),
            folder,
            log: false,
            made: true,
            force: self.exit.as_ref().is_none_or(|e| e.reason == ExitReason::Lost),
            link,
            unreached: None,
        };
        self.past_links = removal.link.as_ref().map_or(self.past_links, |l| l.number);
        match berth_record::random::incarnation() {
            Ok(incarnation) => self.incarnation = incarnation,
            Err(error) => tracing::error!(container = %self.key, %error, "no new incarnation: it keeps the old one"),
        }
        let restart = &mut self.record.restart;
        restart.count = restart.count.saturating_add(1);
        restart.due_at = 0;
        restart.replaced = false;
        self.record = ContainerRecord {
            incarnation: self.incarnation.to_string(),
            boot_id: self.env.boot_id.clone(),
            run: true,
            start_sent: false,
            start_request_id: String::new(),
            started_at: 0,
            state: StateRecord::Creating,
            made: false,
            stages: std::mem::take(&mut self.record.stages),
            ..self.record.clone()
        };
        (self.exit, self.ending, self.failure) = (None, None, None);
        (self.pid, self.oom_kills, self.oom_told) = (0, 0, 0);
        self.execs.clear();
        Some(removal)
    }

    pub(super) fn restart_message(&self, kind: EventKind) -> String {
        match self.record.restart.count {
            n if n > 0 && kind == EventKind::Started => format!("restart {n}"),
            _ => String::new(),
        }
    }
}

/// The life before; what resists is retried in the background, as for any other that is deleted.
pub(super) async fn clear(env: &Arc<Env>, mut removal: Removal) {
    removal.record.restart.replaced = true;
    if let Err(error) = removal.folder.write_container(&removal.record) {
        tracing::warn!(container = %removal.key, %error, "that it is replaced could not be noted");
    }
    let key = removal.key.clone();
    let left = remove(removal).await.finish(env);
    if !left.is_empty() {
        tracing::warn!(container = %key, ?left, "it is restarted, but this is left of its life before; it is tried again");
    }
}

//! Exits and other news of the shim; and events on their way to the journal.
//!
//! Invariant: an exit gets exactly one number. Before it is told its record exists (the shim's); it is journaled, then marked in the
//! folder with its number, then acknowledged, then everybody who waits hears it. If the journal is full, those who wait hear it
//! all the same, and it is journaled, marked and acknowledged as soon as there is room.

use berth_core::state::{Input, State};
use berth_core::{EventKind, ExecId, ExitReason, ExitStatus};
use berth_wire::rpc::Method;
use berth_wire::shim::{self as wire, event::What};
use tokio::time::Duration;

use super::Fact;
use super::remove::UNSEEN;
use super::task::Task;
use crate::env::EXITS;
use crate::shim;
use crate::stage::stage;
use crate::types::NewEvent;

/// Until the journal is tried again: doubled from the first to the last.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An end that was not told yet.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) status: ExitStatus,
    /// Number of the shim's event that told it.
    pub(super) ack: Option<u64>,
}

pub(super) struct Unsaid {
    event: NewEvent,
    /// Number of the shim's event that it tells.
    ack: Option<u64>,
}

impl Task {
    pub(super) fn shim_event(&mut self, event: wire::Event) {
        match event.what {
            Some(What::Exited(exited)) => self.exited(event.number, exited),
            Some(What::Oom(oom)) => {
                self.oom_kills = self.oom_kills.max(oom.count);
                if oom.count <= self.oom_told {
                    // Told before; the acknowledgement did not arrive.
                    return self.ack(event.number);
                }
                self.oom_told = oom.count;
                let told = NewEvent {
                    oom_kills: oom.count,
                    ..self.event(EventKind::Oom)
                };
                self.say(told, Some(event.number));
                self.publish();
            }
            Some(What::ForeignWait(wait)) => {
                if let Some(permit) = &self.permit {
                    tracing::debug!(container = %self.key, stage = wait.stage, "its start waits for something foreign");
                    permit.give_back();
                }
            }
            None => self.ack(event.number),
        }
    }

    fn exited(&mut self, number: u64, exited: wire::ProcessExited) {
        let Some(exit) = exited.exit else {
            return self.ack(number);
        };
        stage!("exit.received");
        let (status, ack) = (shim::exit(&exit), Some(number));
        if !exited.exec_id.is_empty() {
            match exited.exec_id.parse() {
                Ok(exec) => self.exec_ended(exec, Ending { status, ack }),
                Err(_) => self.ack(number),
            }
        } else if self.exit.is_some() {
            // Told before; the acknowledgement did not arrive.
            self.ack(number);
        } else {
            self.ending = Some(Ending { status, ack });
            if self.state == State::Deleting && self.pid == 0 {
                // Its launch is being given up, and nobody hears of an end before the beginning: kept until it is known what became of it.
                return;
            }
            self.input(Input::Exited, None);
        }
    }

    pub(super) fn tell_exit(&mut self) {
        let Some(Ending { mut status, ack }) = self.ending.take() else {
            return;
        };
        if self.is_unheard_of() {
            // Its shim was mute when it was adopted, and has spoken.
            self.to_catch_up = None;
            self.tell(EventKind::Created);
        }
        if self.record.started_at == 0 {
            self.learn_of_start();
        }
        if self.record.started_at == 0 && status.reason != ExitReason::Reboot {
            status.reason = ExitReason::StartFailed;
            if status.message.is_empty() {
                let why = self.failure.as_ref().map(|e| e.message().to_owned());
                status.message = why.unwrap_or_else(|| "it ended before it was started".into());
            }
        }
        self.count_exit(status.reason);
        let event = NewEvent {
            exit: Some(status.clone()),
            at: status.exited_at,
            ..self.event(EventKind::Exited)
        };
        self.say(event, ack);
        self.exit = Some(status);
        self.after_end();
    }

    /// An earlier daemon may have sent the start, which was still under way when this one looked: only the shim wrote it down.
    fn learn_of_start(&mut self) {
        let shim = self.folder.as_ref().and_then(|folder| folder.shim().ok().flatten());
        if let Some(shim) = shim.filter(|s| s.incarnation == self.record.incarnation && s.started_at != 0) {
            self.record.started_at = shim.started_at;
            self.tell(EventKind::Started);
        }
    }

    /// A removal whose shim was mute or gone has ended the init, and no news of that came.
    pub(super) fn end_unseen(&mut self) {
        if self.pid == 0 || self.exit.is_some() || self.ending.is_some() {
            return;
        }
        let numbered = self.folder.as_ref().and_then(|folder| folder.exit_seq().ok().flatten());
        if numbered.is_some() {
            return;
        }
        self.lose_execs();
        let recorded = self.folder.as_ref().and_then(|folder| folder.exit().ok().flatten());
        let status = recorded
            .filter(|e| e.incarnation == self.record.incarnation)
            .map_or_else(|| ExitStatus::lost(self.env.clock.now(), UNSEEN), |exit| exit.status());
        self.ending = Some(Ending { status, ack: None });
        self.input(Input::Exited, None);
    }

    pub(super) fn tell_exec_exit(&mut self, exec: &ExecId, pid: u32, Ending { status, ack }: Ending) {
        let event = NewEvent {
            exec_id: Some(exec.clone()),
            pid,
            at: status.exited_at,
            exit: Some(status),
            ..self.event(EventKind::ExecExited)
        };
        self.say(event, ack);
    }

    fn count_exit(&self, reason: ExitReason) {
        if let Some(i) = EXITS.iter().position(|r| *r == reason) {
            self.env.counters().exits[i] += 1;
        }
    }

    /// Into the journal, behind what waits for it already; then `ack` is acknowledged to the shim.
    pub(super) fn say(&mut self, event: NewEvent, ack: Option<u64>) {
        self.unsaid.push_back(Unsaid { event, ack });
        if !self.retrying {
            self.say_all();
        }
    }

    pub(super) fn say_all(&mut self) {
        while let Some(unsaid) = self.unsaid.front() {
            let Ok(event) = self.env.bus.publish(unsaid.event.clone()) else {
                // The bus has logged why.
                self.retrying = true;
                let patience = self.patience;
                self.patience = (patience * 2).min(RETRY.1);
                return self.beside(async move {
                    // A full disk tells nobody when it has room again.
                    tokio::time::sleep(patience).await;
                    Fact::Retry
                });
            };
            self.patience = RETRY.0;
            let Some(Unsaid { event: said, ack }) = self.unsaid.pop_front() else {
                return;
            };
            if said.exit.is_some() {
                stage!("exit.journaled");
                self.mark(said.exec_id.as_ref(), event.cursor.number);
                stage!("exit.marked");
                if let Some(exec) = said.exec_id {
                    self.exec_told(&exec);
                }
            }
            if let Some(number) = ack {
                self.ack(number);
            }
        }
        if self.unsaved && !self.removing {
            self.save();
        }
    }

    /// Notes in the folder which number an exit has.
    pub(super) fn mark(&self, exec: Option<&ExecId>, number: u64) {
        let Some(folder) = &self.folder else { return };
        let marked = match exec {
            None => folder.write_exit_seq(number),
            Some(exec) => folder.write_exec_seq(exec.as_str(), number),
        };
        if let Err(error) = marked {
            // The journal knows it too.
            tracing::warn!(container = %self.key, %error, "an exit's number could not be noted");
        }
    }

    /// The shim may forget its events up to this one.
    pub(super) fn ack(&self, number: u64) {
        let Some(link) = self.link.clone().filter(|_| number > 0) else {
            return;
        };
        let deadline = self.env.config().shim.call_timeout;
        tokio::spawn(async move {
            // Lost: it comes again, and is known.
            let _ = link
                .client
                .call::<wire::AckResponse>(Method::Ack, &wire::AckRequest { number }, deadline)
                .await;
            stage!("exit.acked");
        });
    }
}

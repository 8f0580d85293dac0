//! Calls that a creator works on: create, start, exec, pause, resume, update, delete, and the undoing of what failed.
//!
//! ```text
//! asked ──fork──> at work ──created──> (process known, recorded) ──done──> answered
//!                    │                                        └─failed─> undo (create) ──> refused
//!                    └── late ──> killed with its group ────────────────^
//! ```
//!
//! Invariants: every task has a deadline; create, start, pause, resume, update, delete run one at a time, execs and
//! signals beside each other;
//! while a create or an exec runs no unknown child is reaped, because it may be the one whose pid we learn a moment later.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_sys::process;
use berth_wire::shim::State;

use crate::calls::ReplyTo;
use crate::creator::{self, Created, Creator, Failed, Job, Received, Report, StageTime};
use crate::error::Error;
use crate::shim::Shim;
use crate::stdio::Ends;
use crate::watch::{Token, Want, Watched};

/// What a driver may take beyond the runtime's own deadline, to clean up.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Task {
    pub id: u32,
    pub op: Op,
    pub creator: Creator,
    reports: Watched,
    begun: Instant,
    pub deadline: Instant,
    /// Who is answered; a delete may have been asked for by several.
    pub to: Vec<ReplyTo>,
    pub created: Option<Created>,
    /// The console or the record of a process that is there can't be used.
    broken: Option<Error>,
}

#[derive(Debug)]
pub enum Op {
    Create {
        child: u32,
        start: bool,
    },
    Start,
    Exec {
        child: u32,
    },
    Pause,
    Resume,
    Update,
    Delete,
    /// To all processes; the id of the request, or "".
    SignalAll {
        request_id: String,
    },
    /// Of a create that failed; the error is the answer.
    Undo {
        error: Error,
    },
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Create { .. } | Op::Undo { .. } => "create",
            Op::Start => "start",
            Op::Exec { .. } => "exec",
            Op::Pause => "pause",
            Op::Resume => "resume",
            Op::Update => "update",
            Op::Delete => "delete",
            Op::SignalAll { .. } => "signal",
        }
    }

    /// Makes a process that the loop does not know yet.
    fn makes(&self) -> bool {
        matches!(self, Op::Create { .. } | Op::Exec { .. })
    }

    /// Calls of the runtime, at most.
    fn calls(&self) -> u32 {
        match self {
            Op::Create { start: true, .. } | Op::Delete | Op::Undo { .. } => 2,
            _ => 1,
        }
    }
}

/// How a task ended.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<(), Error>,
    pub stages: Vec<StageTime>,
    pub left: Vec<String>,
}

impl Shim {
    /// Anything but execs and signals.
    pub fn has_exclusive_task(&self) -> bool {
        let shared = |op: &Op| matches!(op, Op::Exec { .. } | Op::SignalAll { .. });
        self.tasks.iter().any(|task| !shared(&task.op))
    }

    pub fn makes_a_process(&self) -> bool {
        self.tasks.iter().any(|task| task.op.makes())
    }

    pub fn launch(&mut self, op: Op, to: Vec<ReplyTo>, job: Job, ends: Option<Ends>) -> Result<(), Error> {
        let operation = op.name();
        let id = self.new_id();
        let Some(container) = &self.container else {
            return Err(Error::State {
                operation,
                problem: "there is no container".into(),
            });
        };
        let timeout = container.setting.timeout;
        let io = |source| Error::Io {
            operation,
            path: "creator".into(),
            source,
        };
        let (creator, reports) = creator::fork(&container.setting, job, ends).map_err(io)?;
        let reports = match self.poll.watch(reports, Token::Task(id), Want::READ) {
            Ok(reports) => reports,
            Err(error) => {
                creator.kill();
                self.ending.push(creator.pid);
                return Err(io(error));
            }
        };
        let begun = Instant::now();
        let deadline = begun + timeout * op.calls() + GRACE;
        if matches!(op, Op::Create { .. } | Op::Start) {
            self.watch_for_foreign_wait(creator.pid, operation, begun);
        }
        self.tasks.push(Task {
            id,
            op,
            creator,
            reports,
            begun,
            deadline,
            to,
            created: None,
            broken: None,
        });
        Ok(())
    }

    pub fn task_ready(&mut self, id: u32) {
        while let Some(task) = self.tasks.iter().find(|task| task.id == id) {
            let operation = task.op.name();
            let outcome = match Report::receive(task.reports.as_fd()) {
                Ok(Received::Nothing) => return,
                Ok(Received::Fifos(fds)) => {
                    self.task_fifos(id, fds);
                    continue;
                }
                Ok(Received::Report(Report {
                    created: Some(created), ..
                })) => {
                    self.task_created(id, created);
                    continue;
                }
                Ok(Received::Report(Report {
                    failed: Some(failed),
                    stages,
                    left,
                    ..
                })) => Outcome {
                    result: Err(failed.into()),
                    stages,
                    left,
                },
                Ok(Received::Report(Report { stages, left, .. })) => Outcome {
                    result: Ok(()),
                    stages,
                    left,
                },
                Ok(Received::Gone) | Err(_) => {
                    task.creator.kill();
                    Outcome {
                        result: Err(Error::Creator { operation }),
                        stages: Vec::new(),
                        left: Vec::new(),
                    }
                }
            };
            self.end_task(id, outcome);
        }
    }

    pub fn task_late(&mut self, id: u32) {
        let Some(task) = self.tasks.iter().find(|task| task.id == id) else {
            return;
        };
        let after_ms = u64::try_from(task.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let error = Error::Timeout {
            operation: task.op.name(),
            after_ms,
        };
        task.creator.kill();
        self.end_task(
            id,
            Outcome {
                result: Err(error),
                stages: Vec::new(),
                left: Vec::new(),
            },
        );
    }

    /// For a forced delete: whatever is under way is given up.
    pub fn cancel_tasks(&mut self) {
        let all: Vec<u32> = self.tasks.iter().map(|task| task.id).collect();
        for id in all {
            let Some(task) = self.tasks.iter().find(|task| task.id == id) else {
                continue;
            };
            task.creator.kill();
            let error = Error::Cancelled {
                operation: task.op.name(),
            };
            self.close_task(
                id,
                Outcome {
                    result: Err(error),
                    stages: Vec::new(),
                    left: Vec::new(),
                },
                false,
            );
        }
    }

    fn task_fifos(&mut self, id: u32, fds: Vec<OwnedFd>) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        let (Op::Create { child, .. } | Op::Exec { child }) = task.op else {
            return;
        };
        let child = self.children.iter_mut().find(|one| one.id == child);
        if let Some(Err(error)) = child.map(|child| child.stdio.take_fifos(fds)) {
            task.creator.kill();
            task.broken = Some(error);
        }
    }

    fn task_created(&mut self, id: u32, created: Created) {
        let Some(at) = self.tasks.iter().position(|task| task.id == id) else {
            return;
        };
        let (child, is_init) = match self.tasks[at].op {
            Op::Create { child, .. } => (child, true),
            Op::Exec { child } => (child, false),
            _ => return,
        };
        let broken = self.born(child, is_init, &created).err();
        let task = &mut self.tasks[at];
        task.created = Some(created);
        match broken {
            None if matches!(task.op, Op::Create { start: true, .. }) => creator::go_on(&task.reports),
            None => {}
            Some(_) => {
                task.creator.kill();
                task.broken = broken;
            }
        }
    }

    fn end_task(&mut self, id: u32, outcome: Outcome) {
        self.close_task(id, outcome, true);
        self.trim_due = true;
        // Children that were held because of it, and calls that waited.
        self.reap();
        self.call_waiting();
    }

    fn close_task(&mut self, id: u32, mut outcome: Outcome, undo: bool) {
        let Some(at) = self.tasks.iter().position(|task| task.id == id) else {
            return;
        };
        let task = self.tasks.remove(at);
        self.ending.push(task.creator.pid);
        if let Some(broken) = task.broken {
            outcome.result = Err(broken);
        }
        if matches!(task.op, Op::Create { .. } | Op::Start) {
            self.sampler = None;
        }
        match task.op {
            Op::Create { child, start } => {
                self.create_ended(child, start, task.created.as_ref(), task.to, outcome, undo)
            }
            Op::Start => self.start_ended(&task.to, outcome),
            Op::Exec { child } => self.exec_ended(child, task.created.as_ref(), &task.to, outcome),
            Op::Pause => self.freeze_ended(&task.to, outcome, State::Paused),
            Op::Resume => self.freeze_ended(&task.to, outcome, State::Running),
            Op::Update => self.update_ended(&task.to, outcome),
            Op::Delete => self.delete_ended(task.to, outcome),
            Op::SignalAll { request_id } => self.signal_all_ended(&task.to, request_id, outcome),
            Op::Undo { error } => self.undo_ended(&task.to, &error),
        }
    }

    /// SIGKILL to children that nobody knows: what a failed runtime left behind. Only while no call makes a process, and only
    /// if the container's own orphans can't be among them.
    pub fn kill_strays(&mut self) {
        if self.makes_a_process()
            || self
                .children
                .iter()
                .any(|c| c.born.as_ref().is_some_and(|b| !b.own_pid_namespace))
        {
            return;
        }
        for pid in process::children(process::getpid()).unwrap_or_default() {
            if !self.knows(pid)
                && let Ok(pidfd) = process::pidfd_open(pid)
            {
                let _ = process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGKILL);
            }
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        let Failed {
            code,
            message,
            runtime_message,
            exit_code,
        } = failed;
        Error::Driver {
            code,
            message,
            runtime_message,
            exit_code,
        }
    }
}

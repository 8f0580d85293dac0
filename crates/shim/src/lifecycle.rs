//! The calls that a creator works on: how each begins, and what becomes of it.

use berth_sys::{file, process, time};
use berth_wire::shim::{
    CreateRequest, CreateResponse, ExecRequest, ExecResponse, PauseResponse, ResumeResponse, StartResponse, State,
    UpdateRequest, UpdateResponse,
};

use crate::calls::ReplyTo;
use crate::cgroup::Place;
use crate::child::{Born, Child};
use crate::container::Container;
use crate::creator::{Created, Delete, Exec, Job, PROCESS_FILE, Victim};
use crate::error::Error;
use crate::shim::Shim;
use crate::stage::stage;
use crate::stdio::Stdio;
use crate::task::{Op, Outcome, Task};

impl Shim {
    pub fn create(&mut self, to: ReplyTo, request: CreateRequest) -> Result<(), Error> {
        stage!("create.begin");
        self.is_in("create", &[State::Empty])?;
        let container = Container::new(&request, &self.folder)?;
        let cleanup_only = container.cleanup_only;
        self.container = Some(container);
        self.in_use = true;
        if cleanup_only {
            self.adopt_earlier();
        }
        // Best effort: lowering it needs a capability that not every host gives.
        let _ = process::set_oom_score_adj(request.oom_score_adj);
        if cleanup_only {
            self.answer(to, &CreateResponse::default());
            return Ok(());
        }
        self.records.reserve("")?;
        stage!("create.reserved");
        let spec = request.stdio.unwrap_or_default();
        let child = self.new_id();
        let (stdio, ends) = Stdio::open(&spec, child, &self.poll, &self.folder, true)?;
        self.children
            .insert(0, Child::new(child, String::new(), String::new(), stdio));
        self.state = State::Creating;
        let op = Op::Create {
            child,
            start: request.start,
        };
        if let Err(error) = self.launch(op, vec![to], Job::Create { start: request.start }, Some(ends)) {
            self.forget_init();
            return Err(error);
        }
        stage!("create.forked");
        Ok(())
    }

    /// A creator has made this process.
    pub fn born(&mut self, id: u32, is_init: bool, created: &Created) -> Result<(), Error> {
        let operation = if is_init { "create" } else { "exec" };
        let Some(at) = self.children.iter().position(|child| child.id == id) else {
            return Ok(());
        };
        if self.knows(created.pid) {
            return Err(Error::Driver {
                code: berth_core::ErrorCode::Runtime.number(),
                message: format!(
                    "{operation}: the runtime named process {}, which is another one's",
                    created.pid
                ),
                runtime_message: String::new(),
                exit_code: 0,
            });
        }
        let child = &mut self.children[at];
        // Not reaped yet, even if it has ended: unknown children are held meanwhile.
        let pidfd = process::pidfd_open(created.pid).map_err(Error::io(operation, created.pid.to_string()))?;
        let Created {
            pid,
            start_time,
            own_pid_namespace,
            ..
        } = *created;
        child.born = Some(Born {
            pid,
            start_time,
            pidfd: Some(pidfd),
            own_pid_namespace,
        });
        child.oom_before = created.oom_kills;
        if is_init {
            stage!("create.made");
            if let Some(container) = &mut self.container {
                container.cgroup = Place {
                    name: created.cgroup.clone(),
                    membership: created.membership.clone(),
                };
            }
            self.watch_for_oom(created.oom_kills);
        } else {
            stage!("exec.made");
            child.started_at = time::realtime();
        }
        let child = &mut self.children[at];
        if child.stdio.terminal && !child.stdio.take_console()? {
            return Err(Error::Driver {
                code: berth_core::ErrorCode::Runtime.number(),
                message: format!("{operation}: the runtime sent no terminal"),
                runtime_message: String::new(),
                exit_code: 0,
            });
        }
        if is_init {
            self.state = State::Created;
            self.record_state()?;
            stage!("create.recorded");
        } else {
            self.records.exec(&self.children[at])?;
            stage!("exec.recorded");
        }
        Ok(())
    }

    pub fn record_state(&mut self) -> Result<(), Error> {
        let Some(container) = &self.container else {
            return Ok(());
        };
        self.records.state(
            self.state,
            container,
            self.children.first().filter(|child| child.is_init()),
        )
    }

    pub fn create_ended(
        &mut self,
        id: u32,
        start: bool,
        created: Option<&Created>,
        to: Vec<ReplyTo>,
        outcome: Outcome,
        undo: bool,
    ) {
        let error = match (outcome.result, created) {
            (Ok(()), Some(created)) => {
                if start {
                    self.started();
                }
                let answer = CreateResponse {
                    pid: created.pid,
                    start_time: created.start_time,
                    started: start,
                    cgroup: created.cgroup.clone(),
                    stages: outcome.stages,
                    started_at: self.init().map_or(0, |init| init.started_at),
                };
                if let Some(init) = self.children.iter_mut().find(|child| child.id == id) {
                    init.busy = false;
                }
                stage!("create.done");
                to.into_iter().for_each(|to| self.answer(to, &answer));
                return;
            }
            (Ok(()), None) => Error::Creator { operation: "create" },
            (Err(error), _) => error,
        };
        if !undo {
            self.undo_ended(&to, &error);
            return;
        }
        if matches!(error, Error::Driver { .. }) && created.is_none() {
            // The driver has undone what there was; what it found there before is not ours to remove.
            self.container = None;
            self.undo_ended(&to, &error);
            return;
        }
        self.kill_strays();
        let job = self.removal(false);
        let refusal = error.to_string();
        if self.launch(Op::Undo { error }, to.clone(), job, None).is_err() {
            let error = Error::State {
                operation: "create",
                problem: format!("{refusal}; and it could not be undone"),
            };
            self.undo_ended(&to, &error);
        }
    }

    /// What a delete or an undo has to do.
    pub fn removal(&self, thaw: bool) -> Job {
        let cgroup = self
            .container
            .as_ref()
            .map(|container| container.cgroup.clone())
            .unwrap_or_default();
        Job::Delete(Delete {
            victims: self.victims(),
            thaw,
            cgroup,
        })
    }

    pub fn undo_ended(&mut self, to: &[ReplyTo], error: &Error) {
        self.forget_init();
        self.kill_strays();
        for to in to {
            self.refuse(*to, error);
        }
    }

    /// As if there had been no create; Delete can still be asked for.
    fn forget_init(&mut self) {
        self.children.retain(|child| !child.is_init());
        self.oom = None;
        self.state = State::Empty;
        let _ = file::unlink_at(&self.folder, PROCESS_FILE);
        // What is left over says no more than that there is a shim.
        let _ = self.record_state();
    }

    /// The cgroup of the container that an earlier shim has left.
    fn adopt_earlier(&mut self) {
        if let (Some(container), Some(earlier)) = (&mut self.container, &self.earlier) {
            container.cgroup = Place::named(&earlier.cgroup);
        }
    }

    /// What a delete has to kill first, held by pidfd.
    fn victims(&self) -> Vec<Victim> {
        let born = self
            .children
            .iter()
            .filter(|child| child.lives())
            .filter_map(|child| child.born.as_ref());
        let mine = born.filter_map(|born| {
            Some(Victim {
                pid: born.pid,
                pidfd: born.pidfd.as_ref()?.try_clone().ok()?,
            })
        });
        let earlier = self.earlier.as_ref().and_then(|record| record.init).and_then(|init| {
            Some(Victim {
                pid: init.pid,
                pidfd: process::open_known(init.pid, init.start_time).ok()??,
            })
        });
        mine.chain(earlier).collect()
    }

    pub fn start(&mut self, to: ReplyTo) -> Result<(), Error> {
        stage!("start.begin");
        self.is_in("start", &[State::Created])?;
        self.launch(Op::Start, vec![to], Job::Start, None)?;
        if let Some(init) = self.init() {
            init.busy = true;
        }
        stage!("start.forked");
        Ok(())
    }

    pub fn start_ended(&mut self, to: &[ReplyTo], outcome: Outcome) {
        stage!("start.done");
        let started = outcome.result.is_ok();
        if started {
            self.started();
        }
        let mut started_at = 0;
        if let Some(init) = self.init() {
            init.busy = false;
            started_at = init.started_at;
        }
        match outcome.result {
            Ok(()) => to.iter().for_each(|to| {
                self.answer(
                    *to,
                    &StartResponse {
                        stages: outcome.stages.clone(),
                        started_at,
                    },
                )
            }),
            Err(error) => to.iter().for_each(|to| self.refuse(*to, &error)),
        }
    }

    fn started(&mut self) {
        if let Some(init) = self.init() {
            let now = time::realtime();
            // It may have ended already.
            init.started_at = init.exit.map_or(now, |exit| exit.at.min(now));
        }
        if self.state == State::Created {
            self.state = State::Running;
        }
        // Nothing is decided by it while this shim lives.
        let _ = self.record_state();
        stage!("start.recorded");
    }

    pub fn exec(&mut self, to: ReplyTo, request: ExecRequest) -> Result<(), Error> {
        let operation = "exec";
        stage!("exec.begin");
        let ExecRequest {
            exec_id,
            process_json,
            overrides,
            stdio,
            request_id,
            join,
        } = request;
        berth_core::ExecId::new(&exec_id).map_err(|error| Error::Invalid {
            operation,
            problem: error.to_string(),
        })?;
        if let Some(child) = self.child(&exec_id) {
            // A daemon that died before the answer was in its record asks again, or the next one does.
            let same = join || !request_id.is_empty() && child.request_id == request_id;
            let (id, busy) = (child.id, child.busy);
            let started_at = child.started_at;
            let made = child.born.as_ref().map(|born| ExecResponse {
                pid: born.pid,
                start_time: born.start_time,
                started_at,
            });
            let is_its = |task: &&mut Task| matches!(task.op, Op::Exec { child } if child == id);
            return match (made, self.tasks.iter_mut().find(is_its)) {
                (_, Some(task)) if same && busy => {
                    task.to.push(to);
                    Ok(())
                }
                (Some(answer), _) if same && !busy => {
                    self.answer(to, &answer);
                    Ok(())
                }
                _ => Err(Error::Exists {
                    operation,
                    what: format!("exec {exec_id}"),
                }),
            };
        }
        if join {
            return Err(Error::NotFound {
                operation,
                what: format!("exec {exec_id}"),
            });
        }
        self.is_in(operation, &[State::Running])?;
        self.records.reserve(&exec_id)?;
        stage!("exec.reserved");
        let child = self.new_id();
        let spec = stdio.unwrap_or_default();
        let opened = Stdio::open(&spec, child, &self.poll, &self.folder, false);
        let begun = opened.and_then(|(stdio, ends)| {
            let size = stdio.size();
            self.children
                .push(Child::new(child, exec_id.clone(), request_id, stdio));
            let job = Exec {
                exec_id: exec_id.clone(),
                process_json: process_json.to_vec(),
                overrides: overrides.unwrap_or_default(),
                terminal: spec.terminal,
                size,
                init: self.init().map_or(0, |init| init.pid()),
            };
            self.launch(Op::Exec { child }, vec![to], Job::Exec(job), Some(ends))
        });
        if begun.is_err() {
            self.forget_exec(child, &exec_id);
        }
        stage!("exec.forked");
        begun
    }

    fn forget_exec(&mut self, id: u32, exec_id: &str) {
        self.children.retain(|child| child.id != id);
        let _ = self.records.remove_exec(exec_id);
    }

    pub fn exec_ended(&mut self, id: u32, created: Option<&Created>, to: &[ReplyTo], outcome: Outcome) {
        let Some(child) = self.children.iter_mut().find(|child| child.id == id) else {
            return;
        };
        child.busy = false;
        match (outcome.result, created) {
            (Ok(()), Some(created)) => {
                let answer = ExecResponse {
                    pid: created.pid,
                    start_time: created.start_time,
                    started_at: child.started_at,
                };
                to.iter().for_each(|to| self.answer(*to, &answer));
            }
            (result, _) => {
                let error = result.err().unwrap_or(Error::Creator { operation: "exec" });
                let _ = child.signal(berth_sys::signal::SIGKILL);
                let exec_id = child.exec_id.clone();
                self.forget_exec(id, &exec_id);
                self.kill_strays();
                to.iter().for_each(|to| self.refuse(*to, &error));
            }
        }
    }

    pub fn pause(&mut self, to: ReplyTo) -> Result<(), Error> {
        self.is_in("pause", &[State::Running])?;
        self.launch(Op::Pause, vec![to], Job::Pause, None)
    }

    pub fn resume(&mut self, to: ReplyTo) -> Result<(), Error> {
        self.is_in("resume", &[State::Paused])?;
        self.launch(Op::Resume, vec![to], Job::Resume, None)
    }

    pub fn freeze_ended(&mut self, to: &[ReplyTo], outcome: Outcome, state: State) {
        if let Err(error) = outcome.result {
            to.iter().for_each(|to| self.refuse(*to, &error));
            return;
        }
        if matches!(self.state, State::Running | State::Paused) {
            self.state = state;
            let _ = self.record_state();
        }
        for to in to {
            if state == State::Paused {
                self.answer(*to, &PauseResponse {});
            } else {
                self.answer(*to, &ResumeResponse {});
            }
        }
    }

    pub fn update(&mut self, to: ReplyTo, request: UpdateRequest) -> Result<(), Error> {
        self.is_in("update", &[State::Created, State::Running, State::Paused])?;
        let job = Job::Update {
            resources: request.resources_json.to_vec(),
        };
        self.launch(Op::Update, vec![to], job, None)
    }

    pub fn update_ended(&mut self, to: &[ReplyTo], outcome: Outcome) {
        match outcome.result {
            Ok(()) => to.iter().for_each(|to| self.answer(*to, &UpdateResponse {})),
            Err(error) => to.iter().for_each(|to| self.refuse(*to, &error)),
        }
    }
}

//! From frames to calls: who may ask what, what has to wait for the call under way, and the calls that are answered at once.

use std::time::Duration;

use berth_wire::hello::Role;
use berth_wire::rpc::{self, Method, parse};
use berth_wire::shim::{
    AckRequest, AckResponse, CloseStdinRequest, CloseStdinResponse, EventsRequest, ResizeRequest, ResizeResponse,
    ShutdownResponse, SignalRequest, SignalResponse, State, StateResponse,
};
use berth_wire::ttrpc::{Frame, Kind};
use bytes::Bytes;
use prost::Message;

use crate::child::Child;
use crate::creator::Job;
use crate::error::Error;
use crate::shim::Shim;
use crate::stage::stage;
use crate::task::{Op, Outcome, Task};

/// Signals whose request ids are remembered.
const REMEMBERED: usize = 32;
/// Calls that wait for the one under way.
const WAITING: usize = 64;

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
pub struct ReplyTo {
    pub conn: u32,
    pub stream: u32,
}

/// A call as it came, for later.
#[derive(Debug)]
pub struct Queued {
    pub to: ReplyTo,
    method: Method,
    payload: Bytes,
}

impl Shim {
    pub fn frame(&mut self, conn: u32, role: Role, frame: Frame) {
        let to = ReplyTo {
            conn,
            stream: frame.stream,
        };
        match frame.kind {
            Kind::Request => match rpc::parse_request(frame.body) {
                Ok((method, _)) if role == Role::Tool && !matches!(method, Method::State | Method::Attach) => {
                    self.refuse(
                        to,
                        &Error::Tool {
                            operation: method.name(),
                        },
                    );
                }
                Ok((method, payload)) => self.call(Queued { to, method, payload }),
                Err(error) => self.refuse(to, &error.into()),
            },
            Kind::Data => self.attach_input(to, frame.body),
            // Nothing is asked of a client.
            Kind::Response => {}
        }
    }

    fn call(&mut self, call: Queued) {
        let waits = match call.method {
            Method::Create | Method::Start | Method::Exec | Method::Pause | Method::Resume | Method::Update => {
                self.has_exclusive_task()
            }
            _ => false,
        };
        if waits && self.waiting.len() < WAITING {
            self.waiting.push_back(call);
            return;
        }
        let Queued { to, method, payload } = call;
        let operation = method.name();
        let begun = match method {
            _ if waits => Err(Error::State {
                operation,
                problem: "too many calls wait".into(),
            }),
            Method::Create => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.create(to, r)),
            Method::Start => self.start(to),
            Method::Exec => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.exec(to, r)),
            Method::Pause => self.pause(to),
            Method::Resume => self.resume(to),
            Method::Update => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.update(to, r)),
            Method::Delete => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.delete(to, r)),
            Method::Signal => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.signal(to, &r)),
            Method::Resize => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.resize(to, &r)),
            Method::CloseStdin => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.close_stdin(to, &r)),
            Method::State => {
                self.answer(to, &self.describe());
                Ok(())
            }
            Method::Events => parse(operation, payload)
                .map_err(Error::from)
                .map(|r| self.events(to, &r)),
            Method::Ack => parse(operation, payload).map_err(Error::from).map(|r: AckRequest| {
                self.outbox.ack(r.number);
                self.answer(to, &AckResponse {});
            }),
            Method::Attach => parse(operation, payload)
                .map_err(Error::from)
                .and_then(|r| self.attach(to, &r)),
            Method::Shutdown => self.shutdown(to),
        };
        if let Err(error) = begun {
            self.refuse(to, &error);
        }
    }

    /// The calls that waited for the one that has just ended.
    pub fn call_waiting(&mut self) {
        while !self.has_exclusive_task()
            && let Some(call) = self.waiting.pop_front()
        {
            // Whoever asked and went away meanwhile wants nothing any more.
            if self.conn(call.to.conn).is_some() {
                self.call(call);
            }
        }
    }

    pub fn answer(&mut self, to: ReplyTo, message: &impl Message) {
        match rpc::response_ok(to.stream, message) {
            Ok(bytes) => self.send(to.conn, &bytes),
            Err(error) => {
                self.refuse(
                    to,
                    &Error::Invalid {
                        operation: "answer",
                        problem: error.to_string(),
                    },
                );
            }
        }
    }

    pub fn refuse(&mut self, to: ReplyTo, error: &Error) {
        let bytes = rpc::response_err(to.stream, &error.to_string(), &error.failure());
        self.send(to.conn, &bytes);
    }

    fn describe(&self) -> StateResponse {
        let dropped = |child: &Child| child.stdio.ring().map_or(0, crate::writer::Ring::dropped);
        let is_being_made = |child: &&Child| child.busy && !child.is_init();
        let made = self.children.iter().filter(|child| !is_being_made(child));
        let being_made = self.children.iter().filter(is_being_made);
        StateResponse {
            incarnation: self
                .container
                .as_ref()
                .map(|c| c.incarnation.clone())
                .unwrap_or_default(),
            state: self.state.into(),
            processes: made.filter(|child| child.born.is_some()).map(Child::to_wire).collect(),
            being_made: being_made.map(Child::to_wire).collect(),
            cgroup: self
                .container
                .as_ref()
                .map(|c| c.cgroup.name.clone())
                .unwrap_or_default(),
            oom_kills: self.oom_kills(),
            log_dropped_bytes: self.children.iter().map(dropped).sum(),
            last_event: self.outbox.last(),
        }
    }

    fn events(&mut self, to: ReplyTo, request: &EventsRequest) {
        if let Some(older) = self.outbox.subscribe(to.conn, to.stream, request.after) {
            self.answer(
                ReplyTo {
                    conn: older.conn,
                    stream: older.stream,
                },
                &(),
            );
        }
    }

    /// True if something was sent.
    pub fn feed_events(&mut self) -> bool {
        let mut sent = false;
        while let Some(subscriber) = self.outbox.subscriber()
            && self.conn(subscriber.conn).is_some_and(|conn| conn.has_room())
            && let Some(event) = self.outbox.next()
        {
            // An event is far below a frame's limit.
            if let Ok(bytes) = rpc::data(subscriber.stream, &event) {
                self.send(subscriber.conn, &bytes);
                sent = true;
            }
        }
        sent
    }

    /// A process that was made, by the id of its exec; "" = the init.
    fn process(&mut self, operation: &'static str, exec_id: &str) -> Result<&mut Child, Error> {
        let made = self.child(exec_id).filter(|child| child.born.is_some());
        made.ok_or_else(|| Error::NotFound {
            operation,
            what: if exec_id.is_empty() {
                "init process".into()
            } else {
                format!("exec {exec_id}")
            },
        })
    }

    fn signal(&mut self, to: ReplyTo, request: &SignalRequest) -> Result<(), Error> {
        let operation = "signal";
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|number| (1..=64).contains(number));
        let signal = signal.ok_or_else(|| Error::Invalid {
            operation,
            problem: format!("{} is not between 1 and 64", request.signal),
        })?;
        let known = !request.request_id.is_empty() && self.recent.contains(&request.request_id);
        if !known {
            self.process(operation, &request.exec_id)?;
            if request.all {
                return self.signal_all(to, signal, &request.request_id);
            }
            let child = self.process(operation, &request.exec_id)?;
            if !child.lives() {
                return Err(Error::State {
                    operation,
                    problem: "the process has ended".into(),
                });
            }
            child
                .signal(signal)
                .map_err(Error::io(operation, child.pid().to_string()))?;
            self.remember(request.request_id.clone());
        }
        self.answer(to, &SignalResponse {});
        Ok(())
    }

    fn remember(&mut self, request_id: String) {
        if !request_id.is_empty() {
            self.recent.push_back(request_id);
            self.recent.drain(..self.recent.len().saturating_sub(REMEMBERED));
        }
    }

    /// In a creator: to find and hold 100,000 processes takes a second.
    fn signal_all(&mut self, to: ReplyTo, signal: i32, request_id: &str) -> Result<(), Error> {
        let is_same = |task: &&mut Task| matches!(&task.op, Op::SignalAll { request_id: id } if !id.is_empty() && id == request_id);
        if let Some(task) = self.tasks.iter_mut().find(is_same) {
            task.to.push(to);
            return Ok(());
        }
        let cgroup = self.container.as_ref().map(|c| c.cgroup.clone()).unwrap_or_default();
        let op = Op::SignalAll {
            request_id: request_id.into(),
        };
        self.launch(op, vec![to], Job::SignalAll { cgroup, signal }, None)
    }

    /// All that are left of a container whose init has ended. Nobody asked, so nobody is told.
    pub fn kill_rest(&mut self) {
        let Some(container) = &self.container else { return };
        let job = Job::SignalAll {
            cgroup: container.cgroup.clone(),
            signal: berth_sys::signal::SIGKILL,
        };
        let op = Op::SignalAll {
            request_id: String::new(),
        };
        // Where no process can be made, the delete does it.
        let _ = self.launch(op, Vec::new(), job, None);
    }

    pub fn signal_all_ended(&mut self, to: &[ReplyTo], request_id: String, outcome: Outcome) {
        match outcome.result {
            Ok(()) => {
                self.remember(request_id);
                to.iter().for_each(|to| self.answer(*to, &SignalResponse {}));
            }
            Err(error) => to.iter().for_each(|to| self.refuse(*to, &error)),
        }
    }

    fn resize(&mut self, to: ReplyTo, request: &ResizeRequest) -> Result<(), Error> {
        self.process("resize", &request.exec_id)?
            .stdio
            .resize(request.width, request.height)?;
        self.answer(to, &ResizeResponse {});
        Ok(())
    }

    fn close_stdin(&mut self, to: ReplyTo, request: &CloseStdinRequest) -> Result<(), Error> {
        self.process("close stdin", &request.exec_id)?.stdio.close_stdin();
        self.answer(to, &CloseStdinResponse {});
        Ok(())
    }

    fn shutdown(&mut self, to: ReplyTo) -> Result<(), Error> {
        let operation = "shutdown";
        if self.children.iter().any(Child::lives) || !self.tasks.is_empty() {
            return Err(Error::State {
                operation,
                problem: "a process of the container lives, or a call is under way".into(),
            });
        }
        stage!("shutdown.begin");
        // First the socket: who finds none knows that this shim is gone.
        self.close_listener();
        stage!("shutdown.socket_gone");
        self.kill_writers();
        self.answer(to, &ShutdownResponse {});
        self.quit_after(to.conn, Duration::from_secs(1));
        Ok(())
    }

    pub fn is_in(&self, operation: &'static str, allowed: &[State]) -> Result<(), Error> {
        if allowed.contains(&self.state) {
            return Ok(());
        }
        let name = match self.state {
            State::Empty => "not created",
            State::Creating => "being created",
            State::Created => "created but not started",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        };
        Err(Error::State {
            operation,
            problem: format!("the container is {name}"),
        })
    }
}

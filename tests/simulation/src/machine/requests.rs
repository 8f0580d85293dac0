//! What a shim does with a request: at once, after a while, with a failure, or never.

use std::sync::Arc;

use berth_core::ErrorCode;
use berth_record::ExecRecord;
use berth_wire::rpc::{self, Method};
use berth_wire::shim::{self as wire, event::What};

use super::{Due, Exec, Init, Machine, Request};
use crate::schedule::Random;

fn failure(stream: u32, code: ErrorCode, message: &str) -> Vec<u8> {
    let failure = wire::Failure {
        code: code.number(),
        ..Default::default()
    };
    rpc::response_err(stream, message, &failure)
}

fn ok(stream: u32, message: &impl prost::Message) -> Vec<u8> {
    rpc::response_ok(stream, message).unwrap_or_default()
}

impl Machine {
    pub fn request(&mut self, shim: usize, conn: usize, stream: u32, method: Method, body: bytes::Bytes) {
        let healed = self.healed;
        let of = &mut self.shims[shim];
        if of.ended.has_come() || of.mute {
            return;
        }
        of.requests += 1;
        let salt = (u64::try_from(shim).unwrap_or(0) << 32) ^ of.requests;
        let mut random = Random::new(self.seed ^ salt.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let fails = random.chance(8) && !healed;
        let foreign = random.chance(8) && !healed;
        let hangs = random.chance(2) && !healed;
        let delay = if random.chance(90) {
            random.below(60)
        } else {
            random.below(9000)
        };
        macro_rules! parse {
            () => {
                match rpc::parse("request", body) {
                    Ok(request) => request,
                    Err(_) => return,
                }
            };
        }
        let what = match method {
            Method::Ack => {
                let request: wire::AckRequest = parse!();
                if !of.deaf {
                    of.outbox.retain(|e| e.number > request.number);
                }
                return self.send(shim, conn, ok(stream, &wire::AckResponse {}));
            }
            Method::Events => {
                of.events = Some((conn, stream));
                let frames: Vec<_> = of.outbox.iter().filter_map(|e| rpc::data(stream, e).ok()).collect();
                return frames.into_iter().for_each(|frame| self.send(shim, conn, frame));
            }
            Method::Create => {
                let request: wire::CreateRequest = parse!();
                of.incarnation.clone_from(&request.incarnation);
                of.cleaner = request.cleanup_only;
                if !of.cleaner {
                    of.state = wire::State::Creating;
                    let _ = of.folder.reserve_exit();
                    self.write_shim(shim);
                    if foreign {
                        let stage = "create".into();
                        self.send_event(shim, 0, What::ForeignWait(wire::ForeignWait { stage }));
                    }
                }
                Request::Create(request, fails)
            }
            Method::Start => Request::Start(fails),
            Method::Exec => {
                let request: wire::ExecRequest = parse!();
                let known = of.execs.contains_key(&request.exec_id);
                match (request.join, known) {
                    (true, false) => {
                        return self.send(shim, conn, failure(stream, ErrorCode::NotFound, "no such exec"));
                    }
                    (false, true) => {
                        return self.send(shim, conn, failure(stream, ErrorCode::AlreadyExists, "there is one"));
                    }
                    (true, true) => {}
                    (false, false) => {
                        let exec = Exec {
                            request: request.request_id.clone(),
                            ..Exec::default()
                        };
                        of.execs.insert(request.exec_id.clone(), exec);
                        let _ = of.folder.reserve_exec(&request.exec_id);
                    }
                }
                Request::Exec(request, fails)
            }
            Method::Signal => Request::Signal(parse!()),
            Method::Delete => Request::Delete(parse!(), fails),
            Method::Pause => Request::Freeze(true, fails),
            Method::Resume => Request::Freeze(false, false),
            Method::State => Request::State,
            Method::Shutdown => Request::Shutdown,
            Method::Attach => {
                return self.send(shim, conn, failure(stream, ErrorCode::NotFound, "nothing to attach to"));
            }
            Method::Update | Method::Resize | Method::CloseStdin => Request::Other,
        };
        if hangs && !matches!(what, Request::State | Request::Shutdown) {
            // What hangs in a create is killed by whoever undoes it.
            if method == Method::Create && !self.shims[shim].cleaner {
                self.shims[shim].state = wire::State::Empty;
            }
            return self.trace(format_args!("shim {shim} hangs in {method:?}"));
        }
        let delay = if matches!(what, Request::State) { 0 } else { delay };
        self.after(
            delay,
            Due::Effect {
                shim,
                conn,
                stream,
                what: Box::new(what),
            },
        );
    }

    pub(super) fn happen(&mut self, what: Due) {
        match what {
            Due::Answer { shim, conn, frame } => self.send(shim, conn, frame),
            Due::InitEnds {
                incarnation,
                code,
                signal,
            } => self.init_ends(&incarnation, code, signal),
            Due::ExecEnds {
                incarnation,
                exec,
                code,
                signal,
            } => {
                if let Some(shim) = self.shim_of(&incarnation) {
                    self.exec_ends(shim, &exec, code, signal);
                }
            }
            Due::Effect {
                shim,
                conn,
                stream,
                what,
            } => {
                if self.shims[shim].ended.has_come() {
                    return;
                }
                let of = &self.shims[shim];
                let waits = match &*what {
                    Request::Exec(request, _) => {
                        request.join && of.execs.get(&request.exec_id).is_some_and(|e| e.pid == 0)
                    }
                    Request::Delete(..) | Request::Shutdown => of.state == wire::State::Creating,
                    _ => false,
                };
                if waits {
                    // Answered, or undone, when it is made.
                    let what = Due::Effect {
                        shim,
                        conn,
                        stream,
                        what,
                    };
                    return self.after(8, what);
                }
                let Some(frame) = self.effect(shim, stream, *what) else {
                    return;
                };
                let salt = self.serial ^ 0x5bd1_e995;
                let late = Random::new(self.seed ^ salt).below(40);
                self.after(late, Due::Answer { shim, conn, frame });
            }
        }
    }

    fn effect(&mut self, shim: usize, stream: u32, what: Request) -> Option<Vec<u8>> {
        let incarnation = self.shims[shim].incarnation.clone();
        let wall = self.wall();
        let refused = |message| Some(failure(stream, ErrorCode::WrongState, message));
        match what {
            Request::Create(request, _) if request.cleanup_only => Some(ok(stream, &wire::CreateResponse::default())),
            Request::Create(_, true) => {
                self.shims[shim].state = wire::State::Empty;
                self.write_shim(shim);
                Some(failure(stream, ErrorCode::Runtime, "the runtime failed"))
            }
            Request::Create(request, false) => {
                let other = self.names.get(&request.id).and_then(|other| self.inits.get(other));
                if other.is_some_and(|init| init.alive) {
                    // What resisted its removal is still in the cgroup of that name, and runc refuses one that is not empty.
                    self.shims[shim].state = wire::State::Empty;
                    self.write_shim(shim);
                    return Some(failure(stream, ErrorCode::Runtime, "its cgroup is not empty"));
                }
                self.names.insert(request.id.clone(), incarnation.clone());
                let init = Init {
                    id: request.id.clone(),
                    alive: true,
                    frozen: false,
                    doomed: false,
                    ended: Arc::default(),
                };
                self.inits.insert(incarnation.clone(), init);
                self.books.made(&incarnation, &request.id);
                let of = &mut self.shims[shim];
                of.state = if request.start {
                    wire::State::Running
                } else {
                    wire::State::Created
                };
                of.started_at = if request.start { wall } else { 0 };
                self.write_shim(shim);
                if request.start {
                    self.books.started(&incarnation);
                    self.may_end(&incarnation);
                }
                let response = wire::CreateResponse {
                    pid: 1000 + u32::try_from(shim).unwrap_or(0),
                    started: request.start,
                    ..Default::default()
                };
                Some(ok(stream, &response))
            }
            Request::Start(fails) => {
                let of = &mut self.shims[shim];
                if of.state != wire::State::Created {
                    return refused("it was not created, or is started");
                }
                if fails {
                    return Some(failure(stream, ErrorCode::Runtime, "the runtime failed"));
                }
                (of.state, of.started_at) = (wire::State::Running, wall);
                self.write_shim(shim);
                self.books.started(&incarnation);
                self.may_end(&incarnation);
                Some(ok(stream, &wire::StartResponse::default()))
            }
            Request::Exec(request, fails) => {
                let of = &mut self.shims[shim];
                if request.join {
                    let made = of.execs.get(&request.exec_id).map(|e| e.pid);
                    return Some(match made {
                        Some(pid) => ok(
                            stream,
                            &wire::ExecResponse {
                                pid,
                                ..Default::default()
                            },
                        ),
                        None => failure(stream, ErrorCode::NotFound, "no such exec"),
                    });
                }
                if fails || of.state != wire::State::Running {
                    of.execs.remove(&request.exec_id);
                    let _ = of.folder.remove_exec(&request.exec_id);
                    return refused("the runtime failed");
                }
                let pid = 5000 + u32::try_from(self.serial).unwrap_or(0);
                let Some(exec) = of.execs.get_mut(&request.exec_id) else {
                    return refused("it was deleted");
                };
                exec.pid = pid;
                let record = ExecRecord {
                    exec_id: request.exec_id.clone(),
                    incarnation: incarnation.clone(),
                    request_id: request.request_id.clone(),
                    started_at: wall,
                    ..ExecRecord::default()
                };
                let _ = of.folder.write_exec(&record);
                let mut random = Random::new(self.seed ^ u64::from(pid));
                if random.chance(60) {
                    let code = u32::try_from(random.below(200)).unwrap_or(0);
                    let what = Due::ExecEnds {
                        incarnation,
                        exec: request.exec_id,
                        code,
                        signal: 0,
                    };
                    self.after(random.below(400), what);
                }
                Some(ok(
                    stream,
                    &wire::ExecResponse {
                        pid,
                        ..Default::default()
                    },
                ))
            }
            Request::Signal(request) => {
                let obeys = request.signal == 9 || Random::new(self.seed ^ self.serial).chance(70);
                let code = 128 + request.signal;
                if request.exec_id.is_empty() {
                    if !self.inits.get(&incarnation).is_some_and(|i| i.alive) {
                        return refused("it has ended");
                    }
                    if obeys {
                        let signal = request.signal;
                        self.after(
                            4,
                            Due::InitEnds {
                                incarnation,
                                code,
                                signal,
                            },
                        );
                    }
                } else if obeys {
                    self.exec_ends(shim, &request.exec_id, code, request.signal);
                }
                Some(ok(stream, &wire::SignalResponse {}))
            }
            Request::Delete(request, _) if !request.exec_id.is_empty() => {
                let of = &mut self.shims[shim];
                if of
                    .execs
                    .get(&request.exec_id)
                    .is_some_and(|e| e.pid != 0 && e.exit.is_none())
                {
                    if !request.force {
                        return refused("it runs");
                    }
                    self.exec_ends(shim, &request.exec_id, 137, 9);
                }
                self.shims[shim].execs.remove(&request.exec_id);
                Some(ok(stream, &wire::DeleteResponse::default()))
            }
            Request::Delete(request, resists) => {
                let id = self.shims[shim].id.clone();
                let cleaner = self.shims[shim].cleaner;
                let there = self
                    .names
                    .get(&id)
                    .cloned()
                    .filter(|other| cleaner || *other == incarnation);
                if let Some(there) = there {
                    if self.inits.get(&there).is_some_and(|i| i.alive) {
                        if !request.force {
                            return refused("it runs");
                        }
                        if let Some(init) = self.inits.get_mut(&there) {
                            init.frozen = false;
                        }
                        self.init_ends(&there, 137, 9);
                    }
                    if resists {
                        let left = vec!["its cgroup".to_owned()];
                        return Some(ok(stream, &wire::DeleteResponse { left }));
                    }
                    self.names.remove(&id);
                }
                if !cleaner {
                    self.shims[shim].state = wire::State::Empty;
                    self.write_shim(shim);
                }
                Some(ok(stream, &wire::DeleteResponse::default()))
            }
            Request::Freeze(on, fails) => {
                let of = &mut self.shims[shim];
                let (from, to) = if on {
                    (wire::State::Running, wire::State::Paused)
                } else {
                    (wire::State::Paused, wire::State::Running)
                };
                if of.state != from || fails {
                    return refused("it is not in that state");
                }
                of.state = to;
                if let Some(init) = self.inits.get_mut(&incarnation) {
                    init.frozen = on;
                    if !on && init.doomed {
                        self.init_ends(&incarnation, 137, 9);
                    }
                }
                Some(if on {
                    ok(stream, &wire::PauseResponse {})
                } else {
                    ok(stream, &wire::ResumeResponse {})
                })
            }
            Request::Other => Some(ok(stream, &wire::UpdateResponse {})),
            Request::State => Some(ok(stream, &self.state(shim))),
            Request::Shutdown => {
                if self.inits.get(&incarnation).is_some_and(|i| i.alive) && !self.shims[shim].cleaner {
                    return refused("its container lives");
                }
                // The answer goes out before it ends.
                let conns: Vec<_> = (0..self.shims[shim].conns.len()).collect();
                let frame = ok(stream, &wire::ShutdownResponse {});
                conns.into_iter().for_each(|conn| self.send(shim, conn, frame.clone()));
                self.shim_ends(shim);
                None
            }
        }
    }

    fn state(&self, shim: usize) -> wire::StateResponse {
        let of = &self.shims[shim];
        let mut processes = Vec::new();
        if let Some(init) = self.inits.get(&of.incarnation) {
            processes.push(wire::Process {
                pid: 1000 + u32::try_from(shim).unwrap_or(0),
                started_at: of.started_at,
                exit: self.books.truth(&of.incarnation).filter(|_| !init.alive),
                ..Default::default()
            });
        }
        let exec = |(id, exec): (&String, &Exec)| wire::Process {
            exec_id: id.clone(),
            pid: exec.pid,
            started_at: self.wall(),
            exit: exec.exit,
            request_id: exec.request.clone(),
            ..Default::default()
        };
        processes.extend(of.execs.iter().filter(|(_, e)| e.pid != 0).map(exec));
        wire::StateResponse {
            incarnation: of.incarnation.clone(),
            state: of.state.into(),
            processes,
            oom_kills: of.oom_kills,
            last_event: of.last,
            being_made: of.execs.iter().filter(|(_, e)| e.pid == 0).map(exec).collect(),
            ..Default::default()
        }
    }
}

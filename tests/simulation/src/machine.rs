//! The machine as values: what is due when, shims, the inits and execs below them, and what is true about each.
//!
//! A request to a shim has its effect after a while and is answered a while after that; both whiles, and whether it fails, are
//! decided by the seed, the shim and how many requests it had before. A daemon's death leaves all of it as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use berth_core::{ErrorCode, ExitStatus};
use berth_record::{ExecRecord, ExitRecord, Folder, ProcessRecord, ShimRecord, ShimState};
use berth_wire::rpc::{self, Method};
use berth_wire::shim::{self as wire, event::What};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::books::Books;
use crate::place::BOOT;
use crate::schedule::Random;

/// A machine whose lock another thread's panic poisoned is as it was: a planned crash panics outside of it.
pub fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((began, at)) = machine.clock {
        let passed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        machine.now = machine.now.max(at + passed);
    }
    machine
}

pub struct Machine {
    seed: u64,
    /// Milliseconds since it was switched on.
    pub now: u64,
    /// When this life of the daemon began, by its clock and by the machine's.
    pub clock: Option<(Instant, u64)>,
    serial: u64,
    due: BTreeMap<(u64, u64), Due>,
    /// Something new is due.
    pub news: Arc<Notify>,
    shims: Vec<Shim>,
    inits: BTreeMap<String, Init>,
    /// Which incarnation has the cgroup and the runtime's state of a name.
    names: BTreeMap<String, String>,
    pub journal_full: bool,
    /// Nothing fails or hangs any more.
    pub healed: bool,
    pub books: Books,
}

enum Due {
    Effect {
        shim: usize,
        conn: usize,
        stream: u32,
        what: Request,
    },
    Answer {
        shim: usize,
        conn: usize,
        frame: Vec<u8>,
    },
    InitEnds {
        incarnation: String,
        code: u32,
        signal: u32,
    },
    ExecEnds {
        incarnation: String,
        exec: String,
        code: u32,
        signal: u32,
    },
}

enum Request {
    Create(wire::CreateRequest, bool),
    Start(bool),
    Exec(wire::ExecRequest, bool),
    Signal(wire::SignalRequest),
    Delete(wire::DeleteRequest, bool),
    Freeze(bool, bool),
    Other,
    State,
    Shutdown,
}

struct Shim {
    id: String,
    folder: Arc<Folder>,
    /// Empty until it was asked to create.
    incarnation: String,
    cleaner: bool,
    ended: watch::Sender<bool>,
    mute: bool,
    deaf: bool,
    state: wire::State,
    started_at: i64,
    outbox: Vec<wire::Event>,
    last: u64,
    oom_kills: u64,
    execs: BTreeMap<String, Exec>,
    requests: u64,
    conns: Vec<Option<mpsc::Sender<Vec<u8>>>>,
    events: Option<(usize, u32)>,
}

#[derive(Default)]
struct Exec {
    /// 0 = it is being made.
    pid: u32,
    request: String,
    exit: Option<wire::Exit>,
}

struct Init {
    id: String,
    alive: bool,
    frozen: bool,
    /// It was killed while it was frozen.
    doomed: bool,
    ended: watch::Sender<bool>,
}

/// A process that stands for every init in the records, so that their check finds one that lives.
fn stand_in() -> u32 {
    struct Child(std::process::Child);
    static CHILD: OnceLock<Option<Child>> = OnceLock::new();
    let child = CHILD.get_or_init(|| {
        // It ends with us: its standard input does.
        let mut cat = std::process::Command::new("cat");
        cat.stdin(std::process::Stdio::piped()).spawn().ok().map(Child)
    });
    child.as_ref().map_or(0, |child| child.0.id())
}

fn process(pid: u32) -> ProcessRecord {
    let start_time = berth_sys::process::start_time(pid).unwrap_or(0);
    ProcessRecord { pid, start_time }
}

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
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: 0,
            clock: None,
            serial: 0,
            due: BTreeMap::new(),
            news: Arc::default(),
            shims: Vec::new(),
            inits: BTreeMap::new(),
            names: BTreeMap::new(),
            journal_full: false,
            healed: false,
            books: Books::default(),
        }
    }

    pub fn wall(&self) -> i64 {
        1_000_000_000_000 + i64::try_from(self.now).unwrap_or(0) * 1_000_000
    }

    pub fn trace(&mut self, what: impl std::fmt::Display) {
        self.books.trace.push(format!("{:>7} {what}", self.now));
    }

    pub fn next_due(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Time passes, and what is due until then happens.
    pub fn advance(&mut self, to: u64) {
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= to) {
            let ((at, _), what) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(what);
        }
        self.now = self.now.max(to);
    }

    fn after(&mut self, delay: u64, what: Due) {
        self.serial += 1;
        // Multiples of four; the steps of the schedule lie between them, so that no two moments are one.
        let at = (self.now + delay).next_multiple_of(4);
        self.due.insert((at, self.serial), what);
        self.news.notify_one();
    }

    // Shims and their connections.

    pub fn fork(&mut self, folder: Arc<Folder>, id: &str) -> usize {
        self.shims.push(Shim {
            id: id.to_owned(),
            folder,
            incarnation: String::new(),
            cleaner: false,
            ended: watch::Sender::new(false),
            mute: false,
            deaf: false,
            state: wire::State::Empty,
            started_at: 0,
            outbox: Vec::new(),
            last: 0,
            oom_kills: 0,
            execs: BTreeMap::new(),
            requests: 0,
            conns: Vec::new(),
            events: None,
        });
        self.shims.len() - 1
    }

    /// The live one that serves this incarnation.
    pub fn shim_of(&self, incarnation: &str) -> Option<usize> {
        let serves = |s: &Shim| s.incarnation == incarnation && !s.cleaner && !*s.ended.borrow();
        self.shims.iter().position(serves)
    }

    fn shim_called(&self, id: u8) -> Option<usize> {
        let name = name(id);
        let serves = |s: &Shim| s.id == name && !s.cleaner && !s.incarnation.is_empty() && !*s.ended.borrow();
        self.shims.iter().rposition(serves)
    }

    pub fn shim_process(&self, shim: usize) -> (u32, watch::Receiver<bool>) {
        (std::process::id(), self.shims[shim].ended.subscribe())
    }

    pub fn init_process(&self, incarnation: &str) -> Option<watch::Receiver<bool>> {
        Some(self.inits.get(incarnation)?.ended.subscribe())
    }

    pub fn connected(&mut self, shim: usize, out: mpsc::Sender<Vec<u8>>) -> usize {
        let shim = &mut self.shims[shim];
        let lives = !*shim.ended.borrow();
        shim.conns.push(lives.then_some(out));
        shim.conns.len() - 1
    }

    pub fn send(&mut self, shim: usize, conn: usize, frame: Vec<u8>) {
        if let Some(out) = &self.shims[shim].conns[conn] {
            // Full or closed: a client that does not read, or is gone.
            let _ = out.try_send(frame);
        }
    }

    pub fn disconnected(&mut self, shim: usize, conn: usize) {
        let of = &mut self.shims[shim];
        of.conns[conn] = None;
        if of.events.is_some_and(|(events, _)| events == conn) {
            of.events = None;
        }
        // A shim that has nothing to look after ends with its daemon.
        if of.cleaner || of.incarnation.is_empty() {
            self.shim_ends(shim);
        }
    }

    /// All connections end with the daemon.
    pub fn daemon_died(&mut self) {
        self.books.unsaid |= self.journal_full;
        self.clock = None;
        for shim in 0..self.shims.len() {
            for conn in 0..self.shims[shim].conns.len() {
                if self.shims[shim].conns[conn].is_some() {
                    self.disconnected(shim, conn);
                }
            }
            // Nothing was said to it yet.
            if self.shims[shim].cleaner || self.shims[shim].incarnation.is_empty() {
                self.shim_ends(shim);
            }
        }
    }

    fn shim_ends(&mut self, shim: usize) {
        let of = &mut self.shims[shim];
        if of.ended.send_replace(true) {
            return;
        }
        of.conns.iter_mut().for_each(|conn| *conn = None);
        of.events = None;
        if !of.cleaner && !of.incarnation.is_empty() {
            // Its process is not there any more.
            self.write_shim(shim);
        }
    }

    pub fn kill_shim(&mut self, shim: usize) {
        if *self.shims[shim].ended.borrow() {
            return;
        }
        let incarnation = self.shims[shim].incarnation.clone();
        self.trace(format_args!("shim of {} killed", self.shims[shim].id.clone()));
        self.books.wound(&incarnation);
        self.shim_ends(shim);
    }

    pub fn kill_init(&mut self, incarnation: &str) {
        let incarnation = incarnation.to_owned();
        self.after(
            4,
            Due::InitEnds {
                incarnation,
                code: 137,
                signal: 9,
            },
        );
    }

    fn write_shim(&mut self, shim: usize) {
        let of = &self.shims[shim];
        let mut own = process(std::process::id());
        if *of.ended.borrow() {
            // The number is another process's by now.
            own.start_time = 1;
        }
        let record = ShimRecord {
            shim: own,
            boot_id: BOOT.into(),
            incarnation: of.incarnation.clone(),
            init: self.inits.contains_key(&of.incarnation).then(|| process(stand_in())),
            state: match of.state {
                wire::State::Empty => ShimState::Empty,
                wire::State::Creating => ShimState::Creating,
                wire::State::Created => ShimState::Created,
                wire::State::Running => ShimState::Running,
                wire::State::Paused => ShimState::Paused,
                wire::State::Stopped => ShimState::Stopped,
            },
            started_at: of.started_at,
            ..ShimRecord::default()
        };
        // Its folder may be gone already.
        let _ = of.folder.write_shim(&record);
    }

    // What the schedule does.

    pub fn act(&mut self, shim: u8, what: impl FnOnce(&mut Self, usize)) {
        if let Some(shim) = self.shim_called(shim) {
            what(self, shim);
        }
    }

    pub fn mute(&mut self, shim: usize, on: bool) {
        self.shims[shim].mute = on;
    }

    pub fn deaf(&mut self, shim: usize, on: bool) {
        self.shims[shim].deaf = on;
    }

    pub fn hang_up(&mut self, shim: usize) {
        self.shims[shim].conns.iter_mut().for_each(|conn| *conn = None);
        self.shims[shim].events = None;
    }

    pub fn oom_kill(&mut self, shim: usize) {
        self.shims[shim].oom_kills += 1;
        let count = self.shims[shim].oom_kills;
        self.tell(shim, What::Oom(wire::OomKill { count }));
    }

    pub fn ends(&mut self, shim: usize, code: u32) {
        let incarnation = self.shims[shim].incarnation.clone();
        self.init_ends(&incarnation, code, 0);
    }

    pub fn exec_ends_by_itself(&mut self, shim: usize, exec: &str, code: u32) {
        self.exec_ends(shim, exec, code, 0);
    }

    pub fn heal(&mut self) {
        self.healed = true;
        self.journal_full = false;
        for shim in &mut self.shims {
            (shim.mute, shim.deaf) = (false, false);
        }
    }

    /// What lives or lies about.
    pub fn left(&self) -> Vec<String> {
        let shims = self.shims.iter().filter(|s| !*s.ended.borrow());
        let inits = self.inits.values().filter(|i| i.alive);
        let mut left: Vec<_> = shims.map(|s| format!("shim of {}", s.id)).collect();
        left.extend(inits.map(|i| format!("init of {}", i.id)));
        left.extend(self.names.keys().map(|id| format!("cgroup of {id}")));
        left
    }

    // Requests.

    pub fn request(&mut self, shim: usize, conn: usize, stream: u32, method: Method, body: bytes::Bytes) {
        let healed = self.healed;
        let of = &mut self.shims[shim];
        if *of.ended.borrow() || of.mute {
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
                what,
            },
        );
    }

    fn happen(&mut self, what: Due) {
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
                if *self.shims[shim].ended.borrow() {
                    return;
                }
                if let Request::Exec(request, _) = &what
                    && request.join
                    && self.shims[shim].execs.get(&request.exec_id).is_some_and(|e| e.pid == 0)
                {
                    // Answered when it is made.
                    let what = Due::Effect {
                        shim,
                        conn,
                        stream,
                        what,
                    };
                    return self.after(8, what);
                }
                let deletes = matches!(&what, Request::Delete(..) | Request::Shutdown);
                if deletes && self.shims[shim].state == wire::State::Creating {
                    // Undone when it is made.
                    let what = Due::Effect {
                        shim,
                        conn,
                        stream,
                        what,
                    };
                    return self.after(8, what);
                }
                let Some(frame) = self.effect(shim, stream, what) else {
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
                if let Some(other) = self.names.insert(request.id.clone(), incarnation.clone()) {
                    // What resisted its removal waits until the id is free again.
                    if self.inits.get(&other).is_some_and(|i| i.alive) {
                        self.books
                            .wrong(format!("{} is made while an earlier one of this id lives", request.id));
                    }
                }
                let init = Init {
                    id: request.id.clone(),
                    alive: true,
                    frozen: false,
                    doomed: false,
                    ended: watch::Sender::new(false),
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

    // Ends.

    /// Most containers end by themselves after a while.
    fn may_end(&mut self, incarnation: &str) {
        let mut random = Random::new(self.seed ^ self.serial.wrapping_mul(77));
        if random.chance(40) {
            let delay = if random.chance(30) { 0 } else { random.below(3000) };
            let what = Due::InitEnds {
                incarnation: incarnation.to_owned(),
                code: u32::try_from(random.below(120)).unwrap_or(0),
                signal: 0,
            };
            self.after(delay, what);
        }
    }

    fn init_ends(&mut self, incarnation: &str, code: u32, signal: u32) {
        let at = self.wall();
        let Some(init) = self.inits.get_mut(incarnation).filter(|i| i.alive) else {
            return;
        };
        if init.frozen {
            init.doomed |= signal != 0;
            return;
        }
        init.alive = false;
        init.ended.send_replace(true);
        let id = init.id.clone();
        self.trace(format_args!("init of {id} ends with {code}"));
        let Some(shim) = self.shim_of(incarnation) else { return };
        let execs: Vec<_> = self.shims[shim].execs.keys().cloned().collect();
        for exec in execs {
            self.exec_ends(shim, &exec, 137, 9);
        }
        let exit = wire::Exit {
            code,
            signal,
            oom: false,
            at,
        };
        let status = ExitStatus::ended(code, signal, false, at);
        let pid = 1000 + u32::try_from(shim).unwrap_or(0);
        // The record first: whoever hears of the end may look.
        let recorded = self.shims[shim]
            .folder
            .write_exit(&ExitRecord::new(incarnation, "", pid, &status));
        if let Err(error) = recorded {
            self.trace(format_args!("exit of {id} not recorded: {error}"));
        }
        self.books.ended(incarnation, "", exit);
        self.shims[shim].state = wire::State::Stopped;
        self.write_shim(shim);
        let exited = wire::ProcessExited {
            exec_id: String::new(),
            pid,
            exit: Some(exit),
        };
        self.tell(shim, What::Exited(exited));
    }

    fn exec_ends(&mut self, shim: usize, exec: &str, code: u32, signal: u32) {
        let at = self.wall();
        let of = &mut self.shims[shim];
        let Some(entry) = of.execs.get_mut(exec).filter(|e| e.pid != 0 && e.exit.is_none()) else {
            return;
        };
        let exit = wire::Exit {
            code,
            signal,
            oom: false,
            at,
        };
        entry.exit = Some(exit);
        let (pid, incarnation) = (entry.pid, of.incarnation.clone());
        let status = ExitStatus::ended(code, signal, false, at);
        let record = ExecRecord {
            exec_id: exec.to_owned(),
            incarnation: incarnation.clone(),
            exit: Some(ExitRecord::new(&incarnation, exec, pid, &status)),
            ..ExecRecord::default()
        };
        let _ = of.folder.write_exec_exit(&record);
        self.books.ended(&incarnation, &format!("{exec} {pid}"), exit);
        let exited = wire::ProcessExited {
            exec_id: exec.to_owned(),
            pid,
            exit: Some(exit),
        };
        self.tell(shim, What::Exited(exited));
    }

    /// Into the outbox, and out to who listens.
    fn tell(&mut self, shim: usize, what: What) {
        let of = &mut self.shims[shim];
        of.last += 1;
        let event = wire::Event {
            number: of.last,
            what: Some(what.clone()),
        };
        of.outbox.push(event);
        let number = of.last;
        self.send_event(shim, number, what);
    }

    fn send_event(&mut self, shim: usize, number: u64, what: What) {
        let of = &self.shims[shim];
        let Some((conn, stream)) = of.events.filter(|_| !of.mute) else {
            return;
        };
        let event = wire::Event {
            number,
            what: Some(what),
        };
        if let Ok(frame) = rpc::data(stream, &event) {
            self.send(shim, conn, frame);
        }
    }
}

pub fn name(id: u8) -> String {
    format!("c{id}")
}

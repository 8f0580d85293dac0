//! The machine as values: what is due when, shims, the inits and execs below them, and what is true about each.
//!
//! A request to a shim has its effect after a while and is answered a while after that; both whiles, and whether it fails, are
//! decided by the seed, the shim and how many requests it had before. A daemon's death leaves all of it as it is.

mod ends;
mod requests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use berth_record::{Folder, ProcessRecord, ShimRecord, ShimState};
use berth_supervisor::End;
use berth_wire::shim::{self as wire, event::What};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::books::Books;
use crate::place::BOOT;

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
        what: Box<Request>,
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
    ended: Arc<End>,
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
    ended: Arc<End>,
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
            ended: Arc::default(),
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
        let serves = |s: &Shim| s.incarnation == incarnation && !s.cleaner && !s.ended.has_come();
        self.shims.iter().position(serves)
    }

    fn shim_called(&self, id: u8) -> Option<usize> {
        let name = name(id);
        let serves = |s: &Shim| s.id == name && !s.cleaner && !s.incarnation.is_empty() && !s.ended.has_come();
        self.shims.iter().rposition(serves)
    }

    pub fn shim_process(&self, shim: usize) -> (u32, Arc<End>) {
        (std::process::id(), self.shims[shim].ended.clone())
    }

    pub fn init_process(&self, incarnation: &str) -> Option<Arc<End>> {
        Some(self.inits.get(incarnation)?.ended.clone())
    }

    pub fn connected(&mut self, shim: usize, out: mpsc::Sender<Vec<u8>>) -> usize {
        let shim = &mut self.shims[shim];
        let lives = !shim.ended.has_come();
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
        if !of.ended.come() {
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
        if self.shims[shim].ended.has_come() {
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
        if of.ended.has_come() {
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
        let shims = self.shims.iter().filter(|s| !s.ended.has_come());
        let inits = self.inits.values().filter(|i| i.alive);
        let mut left: Vec<_> = shims.map(|s| format!("shim of {}", s.id)).collect();
        left.extend(inits.map(|i| format!("init of {}", i.id)));
        left.extend(self.names.keys().map(|id| format!("cgroup of {id}")));
        left
    }
}

pub fn name(id: u8) -> String {
    format!("c{id}")
}

//! The shim's state and its one loop.
//!
//! ```text
//! ready fds ──> signals (children), connections (calls), creators' reports, stdio, OOM
//!          ──> whatever is overdue ──> events and output to those who have room ──> wait
//! ```
//!
//! Invariants: no call in the loop can be held by a disk or a peer; nothing here waits for something else than epoll; deadlines are
//! read off the state, so an idle shim sleeps for ever; one that nobody can ever ask for anything again ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use berth_record::{SOCKET, ShimRecord};
use berth_sys::process::{self, SignalFd};
use berth_sys::{file, signal, socket};
use berth_wire::hello::Role;
use berth_wire::shim::State;

use crate::attach::Attached;
use crate::calls::Queued;
use crate::child::Child;
use crate::conn::Conn;
use crate::container::Container;
use crate::delete::Deleting;
use crate::error::Error;
use crate::foreign::Sampler;
use crate::oom::OomWatch;
use crate::outbox::Outbox;
use crate::records::Records;
use crate::task::Task;
use crate::watch::{Part, Poll, Ready, Token, Want, Watched};

/// Connections at one time; more are closed at once.
const CONNECTIONS: usize = 64;
/// Until a connection is tried again for which there was no descriptor, if nothing has happened meanwhile.
const DEAF: Duration = Duration::from_secs(1);

/// Everything that a shim is.
#[derive(Debug)]
pub struct Shim {
    pub poll: Poll,
    pub folder: Rc<OwnedFd>,
    pub records: Records,
    signals: SignalFd,
    _signals_watched: Watched,
    /// None once Shutdown was asked for.
    listener: Option<Watched>,
    /// The descriptor for one connection more when all others are used up: the next daemon must get in.
    reserve: Option<OwnedFd>,
    /// There is no descriptor for whoever is waiting: until when the listener is not looked at.
    deaf_until: Option<Instant>,
    conns: Vec<Conn>,
    next_id: u32,
    /// The highest of any daemon so far.
    epoch: u64,
    pub container: Option<Container>,
    /// A Create was taken, whatever became of it.
    pub in_use: bool,
    /// What an earlier shim of this folder left, until it is removed.
    pub earlier: Option<ShimRecord>,
    pub state: State,
    /// The init first.
    pub children: Vec<Child>,
    pub tasks: Vec<Task>,
    /// Calls that wait until the one under way is done.
    pub waiting: VecDeque<Queued>,
    /// Creators that have told everything and are not reaped yet.
    pub ending: Vec<u32>,
    pub outbox: Outbox,
    pub attached: Vec<Attached>,
    /// Ids of the last signals, so that a repeated request does nothing.
    pub recent: VecDeque<String>,
    pub oom: Option<OomWatch>,
    pub sampler: Option<Sampler>,
    pub deleting: Option<Deleting>,
    /// A call has used memory that is free again.
    pub trim_due: bool,
    /// The connection whose answer is the last thing to do, and until when.
    quit: Option<(u32, Instant)>,
}

impl Shim {
    pub fn new(name: &str, folder: OwnedFd, first: OwnedFd) -> Result<Shim, Error> {
        let io = |what: &'static str| Error::io("serve", what);
        let folder = Rc::new(folder);
        let poll = Poll::new().map_err(io("epoll"))?;
        let signals = SignalFd::block(&[signal::SIGCHLD]).map_err(io("signalfd"))?;
        let watched = file::duplicate(&signals).and_then(|fd| poll.watch(fd, Token::Signals, Want::READ));
        let watched = watched.map_err(io("signalfd"))?;
        let listener = socket::listen_at(folder.as_fd(), SOCKET, 0o600)
            .and_then(|fd| poll.watch(fd, Token::Listener, Want::READ))
            .map_err(io(SOCKET))?;
        let (records, earlier) = Records::new(name, &folder)?;
        records.serving()?;
        let mut shim = Shim {
            poll,
            folder,
            records,
            signals,
            _signals_watched: watched,
            listener: Some(listener),
            reserve: None,
            deaf_until: None,
            earlier,
            conns: Vec::new(),
            next_id: 0,
            epoch: 0,
            container: None,
            in_use: false,
            state: State::Empty,
            children: Vec::new(),
            tasks: Vec::new(),
            waiting: VecDeque::new(),
            ending: Vec::new(),
            outbox: Outbox::default(),
            attached: Vec::new(),
            recent: VecDeque::new(),
            oom: None,
            sampler: None,
            deleting: None,
            trim_due: false,
            quit: None,
        };
        shim.connect(first).map_err(io("socket"))?;
        Ok(shim)
    }

    pub fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// Until Shutdown, or until there is nothing to keep and nobody to come.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let timeout = self
                .next_deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            for ready in self.poll.wait(timeout)? {
                self.dispatch(&ready);
            }
            self.overdue(Instant::now());
            self.listen_again();
            self.tell_exits();
            self.feed();
            self.trim();
            if self
                .quit
                .is_some_and(|(conn, by)| self.is_flushed(conn) || by <= Instant::now())
            {
                return Ok(());
            }
            if self.is_abandoned() {
                // Whoever has connected meanwhile counts.
                self.accept();
                if self.is_abandoned() {
                    self.close_listener();
                    self.kill_writers();
                    return Ok(());
                }
            }
        }
    }

    /// No daemon is connected, no process lives and no call is under way; and either there never was a container (a daemon died
    /// right after the fork), or the folder has gone and with it every way to ask about this one.
    ///
    /// Asked whenever something has happened: what can make it true wakes the loop, but for a folder that is removed while no daemon
    /// runs.
    fn is_abandoned(&self) -> bool {
        let is_daemon = |conn: &Conn| conn.peer().is_none_or(|peer| peer.role == Role::Daemon);
        if self.listener.is_none() || self.conns.iter().any(is_daemon) {
            return false;
        }
        let untold = self.children.iter().any(|child| child.born.is_some() && !child.told);
        if untold || !self.tasks.is_empty() || self.deleting.is_some() {
            return false;
        }
        !self.in_use || matches!(file::exists_at(&self.folder, SOCKET), Ok(false))
    }

    fn dispatch(&mut self, ready: &Ready) {
        match ready.token {
            Token::Signals => {
                while let Ok(Some(_)) = self.signals.read() {}
                self.reap();
            }
            Token::Listener => self.accept(),
            Token::Conn(id) => self.serve(id, ready.read),
            Token::Task(id) => self.task_ready(id),
            Token::Oom => self.oom_ready(),
            Token::Io(id, part) => {
                let Some(child) = self.children.iter_mut().find(|child| child.id == id) else {
                    return;
                };
                match part {
                    // What goes wrong with it is told when the creator has ended.
                    Part::Console => drop(child.stdio.take_console()),
                    _ => child.stdio.pump(),
                }
            }
        }
    }

    /// Gives back what a call has used, once it is answered.
    fn trim(&mut self) {
        if self.trim_due && self.tasks.is_empty() {
            self.trim_due = false;
            process::malloc_trim();
        }
    }

    /// Read off the state, so that nothing has to be cancelled.
    fn next_deadline(&self) -> Option<Instant> {
        let tasks = self.tasks.iter().map(|task| task.deadline);
        let drains = self
            .children
            .iter()
            // One that a creator is still at work on is told when that has ended, which wakes the loop.
            .filter(|child| !child.told && !child.busy)
            .filter_map(|child| child.drain_by);
        let readers = self.children.iter().filter_map(|child| child.stdio.deadline());
        let others = [
            self.oom.as_ref().and_then(|oom| oom.look_again),
            self.sampler.as_ref().map(|sampler| sampler.next),
            self.quit.map(|(_, by)| by),
            self.deaf_until,
        ];
        tasks
            .chain(drains)
            .chain(readers)
            .chain(others.into_iter().flatten())
            .min()
    }

    fn overdue(&mut self, now: Instant) {
        let late: Vec<u32> = self
            .tasks
            .iter()
            .filter(|task| task.deadline <= now)
            .map(|task| task.id)
            .collect();
        for id in late {
            self.task_late(id);
        }
        if self
            .oom
            .as_ref()
            .and_then(|oom| oom.look_again)
            .is_some_and(|at| at <= now)
        {
            self.look_for_oom();
        }
        for child in &mut self.children {
            if child.stdio.deadline().is_some_and(|by| by <= now) {
                child.stdio.pump();
            }
        }
        if self.sampler.as_ref().is_some_and(|sampler| sampler.next <= now) {
            self.sample(now);
        }
    }

    fn accept(&mut self) {
        while let Some(listener) = &mut self.listener {
            let socket = match socket::accept(&*listener) {
                Ok(Some(socket)) => socket,
                Ok(None) => break,
                Err(_) if self.reserve.take().is_some() => continue,
                // Whoever waits keeps the listener readable, and nothing but an end of something of ours changes what there is.
                Err(_) => {
                    let _ = listener.want(Want::NONE);
                    self.deaf_until = Some(Instant::now() + DEAF);
                    break;
                }
            };
            // A process that may not talk to us, and one too many, are hung up on.
            let allowed = socket::peer(&socket).is_ok_and(|peer| peer.uid == 0 || peer.uid == own_uid(&self.folder));
            if allowed && self.conns.len() < CONNECTIONS {
                let _ = self.connect(socket);
            }
        }
    }

    /// Whatever has woken the loop may have given descriptors back.
    fn listen_again(&mut self) {
        if self.reserve.is_none() {
            self.reserve = file::duplicate(&self.folder).ok();
        }
        if self.deaf_until.take().is_some()
            && let Some(listener) = &mut self.listener
        {
            // It is in the set again, or nobody can connect; there is no third way.
            let _ = listener.want(Want::READ);
            self.accept();
        }
    }

    fn connect(&mut self, socket: OwnedFd) -> io::Result<()> {
        let id = self.new_id();
        let conn = Conn::new(id, socket, &self.poll)?;
        self.conns.push(conn);
        Ok(())
    }

    fn serve(&mut self, id: u32, read: bool) {
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == id) else {
            return;
        };
        if !read {
            return;
        }
        let taken = conn.read(self.epoch);
        let Some(peer) = conn.peer() else {
            if taken.gone {
                self.drop_conn(id);
            }
            return;
        };
        if let Some(epoch) = taken.greeted {
            self.fence(epoch);
        }
        for frame in taken.frames {
            self.frame(id, peer.role, frame);
        }
        if taken.gone {
            self.drop_conn(id);
        }
    }

    /// A daemon of a later generation is here: earlier ones have no say any more.
    fn fence(&mut self, epoch: u64) {
        self.epoch = epoch;
        let is_older = |conn: &Conn| {
            conn.peer()
                .is_some_and(|peer| peer.role == Role::Daemon && peer.epoch < epoch)
        };
        let older: Vec<u32> = self
            .conns
            .iter()
            .filter(|conn| is_older(conn))
            .map(|conn| conn.id)
            .collect();
        for id in older {
            self.drop_conn(id);
        }
    }

    fn drop_conn(&mut self, id: u32) {
        self.conns.retain(|conn| conn.id != id);
        self.outbox.drop_conn(id);
        // Nobody would hear of it; whoever still wants it asks again.
        self.waiting.retain(|call| call.to.conn != id);
        self.attached.retain(|attached| attached.conn != id);
    }

    pub fn conn(&mut self, id: u32) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|conn| conn.id == id)
    }

    pub fn conns_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.conns.iter_mut()
    }

    pub fn send(&mut self, conn: u32, bytes: &[u8]) {
        // A caller that went away asks again.
        if let Some(conn) = self.conn(conn) {
            conn.send(bytes);
        }
    }

    pub fn close_listener(&mut self) {
        self.listener = None;
        // Nobody can connect to it any more, removed or not.
        let _ = file::unlink_at(&self.folder, SOCKET);
    }

    /// Gives events and output to whoever has room, and writes.
    fn feed(&mut self) {
        self.release_held();
        // Written before it is asked who has room: who has none then is waited for, and nobody is forgotten who got it just now.
        loop {
            self.flush();
            if !(self.feed_events() | self.feed_attached()) {
                break;
            }
        }
    }

    fn flush(&mut self) {
        let mut gone = Vec::new();
        for conn in &mut self.conns {
            let writes = conn.flush();
            if !writes || conn.is_done() {
                gone.push(conn.id);
            }
        }
        for id in gone {
            self.drop_conn(id);
        }
    }

    fn is_flushed(&self, id: u32) -> bool {
        self.conns
            .iter()
            .find(|conn| conn.id == id)
            .is_none_or(Conn::is_flushed)
    }

    /// Ends the loop as soon as this connection has been sent everything.
    pub fn quit_after(&mut self, conn: u32, patience: Duration) {
        self.quit = Some((conn, Instant::now() + patience));
    }

    pub fn init(&mut self) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.is_init())
    }

    pub fn child(&mut self, exec_id: &str) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.exec_id == exec_id)
    }
}

/// The user whose folder it is: the one that the daemon runs as.
fn own_uid(folder: &OwnedFd) -> u32 {
    use std::os::unix::fs::MetadataExt;
    file::duplicate(folder)
        .and_then(|fd| std::fs::File::from(fd).metadata())
        .map_or(0, |meta| meta.uid())
}

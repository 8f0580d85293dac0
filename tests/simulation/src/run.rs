//! One run: lives of the daemon one after the other until the schedule is through, then everything healed, deleted and counted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_core::state::{Input, State};
use berth_supervisor::{Event, EventItem, EventQuery, Since, Supervisor};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::call::{Clients, key};
use crate::crash;
use crate::machine::{Machine, lock};
use crate::place::Place;
use crate::schedule::{Op, Schedule, Step};

/// Containers of a schedule.
const IDS: u8 = 3;
/// A step does not wait longer than this to meet something, in milliseconds.
const MEETING: u64 = 200;
/// Within this simulated time everything must be deleted at the end.
const PATIENCE: Duration = Duration::from_secs(1800);

#[derive(Debug, Default)]
pub struct Report {
    /// Empty = the books balance.
    pub problems: Vec<String>,
    /// Begins with the moment; what happens at one moment to callers who wait for the same has no order.
    pub trace: Vec<String>,
    pub crashes: u64,
    pub events: u64,
    /// Cells of core's table that this thread has asked so far.
    pub cells: HashSet<(State, Input)>,
}

enum End {
    Crash { down: u64 },
    Through,
}

pub fn run(schedule: &Schedule) -> Report {
    crash::prepare();
    let place = match Place::new() {
        Ok(place) => place,
        Err(error) => return failed(format!("no folder for the run: {error}")),
    };
    berth_supervisor::block_inline();
    let machine = Arc::new(Mutex::new(Machine::new(schedule.seed)));
    let mut steps = schedule
        .steps
        .iter()
        .copied()
        .collect::<std::collections::VecDeque<_>>();
    let (mut crashes, mut generation) = (0, 0);
    loop {
        generation += 1;
        let crashed = crash::watch();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            // So that the crash is seen before another task runs.
            .event_interval(1)
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return failed(format!("no runtime: {error}")),
        };
        let life = Life {
            place: &place,
            machine: machine.clone(),
            generation,
        };
        let end = runtime.block_on(life.live(&mut steps, &crashed));
        crash::plan(0);
        drop(runtime);
        let mut machine = lock(&machine);
        match end {
            Ok(End::Crash { down }) => {
                crashes += 1;
                machine.trace("the daemon dies");
                machine.daemon_died();
                let until = (machine.now + down).next_multiple_of(4);
                machine.advance(until);
            }
            Ok(End::Through) => break,
            Err(problem) => {
                machine.books.wrong(problem);
                break;
            }
        }
    }
    let mut machine = lock(&machine);
    let problems = std::mem::take(&mut machine.books.problems);
    Report {
        problems,
        trace: std::mem::take(&mut machine.books.trace),
        crashes,
        events: machine.books.cursor().unwrap_or(0),
        cells: berth_supervisor::cells().into_iter().collect(),
    }
}

fn failed(problem: String) -> Report {
    Report {
        problems: vec![problem],
        ..Report::default()
    }
}

/// Ends what it holds.
struct Ending(JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Life<'a> {
    place: &'a Place,
    machine: Arc<Mutex<Machine>>,
    generation: u64,
}

impl Life<'_> {
    async fn live(&self, steps: &mut std::collections::VecDeque<Step>, crashed: &Notify) -> Result<End, String> {
        let began = Instant::now();
        let switched_on = {
            let mut machine = lock(&self.machine);
            machine.clock = Some((began, machine.now));
            machine.now
        };
        let _pump = Ending(tokio::spawn(pump(self.machine.clone(), began, switched_on)));
        let supervisor = self.place.daemon(&self.machine, self.generation).await?;
        let _reader = Ending(tokio::spawn(read(supervisor.clone(), self.machine.clone())));
        let key = key(0).ok_or("a name")?;
        let clients = Clients {
            supervisor: supervisor.clone(),
            machine: self.machine.clone(),
            spec: self.place.spec(key),
        };
        let mut calls: Vec<JoinHandle<()>> = Vec::new();
        // Where a crash that never came to its stage is due.
        let mut planned = None;
        while let Some(step) = steps.pop_front() {
            let pause = step.gap.next_multiple_of(4) + 4;
            let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            // Between the moments of the machine.
            let at = (now + pause) / 4 * 4 + 1;
            tokio::select! {
                biased;
                () = crashed.notified() => {
                    // The step was not taken yet.
                    steps.push_front(step);
                    return Ok(End::Crash { down: planned.take().unwrap_or(4) });
                }
                () = tokio::time::sleep_until(began + Duration::from_millis(at)) => {}
            }
            if step.meets > 0 && self.meet(began, switched_on, step.meets, crashed).await {
                steps.push_front(step);
                return Ok(End::Crash {
                    down: planned.take().unwrap_or(4),
                });
            }
            lock(&self.machine).trace(format_args!("{:?}", step.op));
            match step.op {
                Op::Crash { down } => return Ok(End::Crash { down }),
                Op::CrashAtStage { stage, down } => {
                    planned = Some(down);
                    crash::plan(stage);
                }
                Op::GiveUp => {
                    calls.retain(|call| !call.is_finished());
                    if let Some(call) = calls.pop() {
                        call.abort();
                    }
                }
                op => match clients.call(op) {
                    Some(call) => calls.push(call),
                    None => self.act(op),
                },
            }
        }
        // What was begun last may still meet its crash.
        tokio::select! {
            biased;
            () = crashed.notified() => return Ok(End::Crash { down: planned.take().unwrap_or(4) }),
            () = tokio::time::sleep(Duration::from_millis(400)) => {}
        }
        crash::plan(0);
        lock(&self.machine).heal();
        match tokio::time::timeout(PATIENCE, self.wind_up(&clients, &calls)).await {
            Ok(result) => result?,
            Err(_) => {
                let (left, folders) = (lock(&self.machine).left(), self.place.containers());
                return Err(format!(
                    "not everything could be deleted within {} s; calls: {:?}; left: {left:?}, folders {folders:?}",
                    PATIENCE.as_secs(),
                    supervisor.calls()
                ));
            }
        }
        self.count(&supervisor).await;
        Ok(End::Through)
    }

    /// Waits until something is due, and so many turns of the tasks that follow from it. True: the daemon crashed meanwhile.
    async fn meet(&self, began: Instant, switched_on: u64, turns: u8, crashed: &Notify) -> bool {
        let (now, due) = {
            let machine = lock(&self.machine);
            (machine.now, machine.next_due())
        };
        let Some(due) = due.filter(|due| *due <= now + MEETING) else {
            return false;
        };
        let meeting = async {
            tokio::time::sleep_until(began + Duration::from_millis(due.saturating_sub(switched_on))).await;
            for _ in 1..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = crashed.notified() => true,
            () = meeting => false,
        }
    }

    /// The world's part of the schedule.
    fn act(&self, op: Op) {
        let mut machine = lock(&self.machine);
        match op {
            Op::Ends { id, code } => machine.act(id, |m, shim| m.ends(shim, code.into())),
            Op::ExecEnds { id, exec, code } => {
                machine.act(id, |m, shim| {
                    m.exec_ends_by_itself(shim, &format!("e{exec}"), code.into())
                });
            }
            Op::OomKill { id } => machine.act(id, Machine::oom_kill),
            Op::ShimKilled { id } => machine.act(id, Machine::kill_shim),
            Op::HangUp { id } => machine.act(id, Machine::hang_up),
            Op::Mute { id, on } => machine.act(id, |m, shim| m.mute(shim, on)),
            Op::Deaf { id, on } => machine.act(id, |m, shim| m.deaf(shim, on)),
            Op::JournalFull(full) => machine.journal_full = full,
            _ => {}
        }
    }

    /// Deletes everything; then every id must be usable again.
    async fn wind_up(&self, clients: &Clients, calls: &[JoinHandle<()>]) -> Result<(), String> {
        let supervisor = &clients.supervisor;
        supervisor.adopted().await;
        // Calls of the schedule may make one anew.
        loop {
            let mut free = calls.iter().all(JoinHandle::is_finished);
            for key in (0..IDS).filter_map(key) {
                if let Err(error) = supervisor.delete(key.clone(), None, true, None).await {
                    lock(&self.machine).trace(format_args!("delete at the end: {:?}", error.code()));
                }
                free &= supervisor.look(&key).await.is_err();
            }
            if free && lock(&self.machine).left().is_empty() && self.place.containers().is_empty() {
                break;
            }
            // Of simulated time: nobody tells when a disk's folder is gone.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for key in (0..IDS).filter_map(key) {
            let run = supervisor.run(self.place.spec(key.clone()), None).await;
            let run = run.map_err(|e| format!("an id can't be used again: {e}"))?;
            lock(&self.machine).books.answered(run.incarnation.to_string());
            let deleted = supervisor.delete(key, None, true, None).await;
            deleted.map_err(|e| format!("a new container can't be deleted: {e}"))?;
        }
        while !lock(&self.machine).left().is_empty() || !self.place.containers().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    async fn count(&self, supervisor: &Supervisor) {
        // Readers and acknowledgements are a moment behind.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let metrics = supervisor.metrics();
        let history = history(supervisor).await;
        let mut machine = lock(&self.machine);
        if (metrics.queue_length, metrics.starts_at_work) != (0, 0) {
            let held = (metrics.queue_length, metrics.starts_at_work);
            machine
                .books
                .wrong(format!("starts that wait, and permits that are held: {held:?}"));
        }
        if metrics.containers != 0 {
            machine
                .books
                .wrong(format!("{} containers are listed", metrics.containers));
        }
        machine.books.balance(&history);
    }
}

/// The machine's time goes with the daemon's.
async fn pump(machine: Arc<Mutex<Machine>>, began: Instant, switched_on: u64) {
    let news = lock(&machine).news.clone();
    loop {
        let next = lock(&machine).next_due();
        let due = async {
            match next {
                Some(at) => {
                    tokio::time::sleep_until(began + Duration::from_millis(at.saturating_sub(switched_on))).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => {}
            () = news.notified() => {}
        }
        let passed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        lock(&machine).advance(switched_on + passed);
    }
}

fn query(since: Since, history_only: bool) -> EventQuery {
    EventQuery {
        namespace: None,
        since,
        id: None,
        history_only,
        kinds: Vec::new(),
    }
}

/// A reader that goes on by its cursor in every life.
async fn read(supervisor: Supervisor, machine: Arc<Mutex<Machine>>) {
    let since = match lock(&machine).books.cursor() {
        None => Since::Oldest,
        Some(number) => Since::After(berth_core::Cursor {
            number,
            ..supervisor.event_head()
        }),
    };
    let mut stream = match supervisor.events(query(since, false)).await {
        Ok(stream) => stream,
        Err(error) => {
            return lock(&machine)
                .books
                .wrong(format!("a reader's cursor is refused: {error}"));
        }
    };
    while let Some(item) = stream.next().await {
        match item {
            EventItem::Event(event) => {
                let mut machine = lock(&machine);
                let line = machine.books.read(event);
                machine.trace(line);
            }
            EventItem::Lagged(_) => lock(&machine).books.wrong("a reader was told to be behind".into()),
            EventItem::CaughtUp(_) => {}
        }
    }
}

async fn history(supervisor: &Supervisor) -> Vec<Event> {
    let Ok(mut stream) = supervisor.events(query(Since::Oldest, true)).await else {
        return Vec::new();
    };
    let mut events = Vec::new();
    while let Some(item) = stream.next().await {
        if let EventItem::Event(event) = item {
            events.push(event);
        }
    }
    events
}

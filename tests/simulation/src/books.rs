//! The books: what was true, what was answered, what the events said; and what must agree.

use std::collections::{BTreeMap, HashMap};

use berth_core::{EventKind, ExitReason, ExitStatus};
use berth_supervisor::Event;
use berth_wire::shim as wire;

#[derive(Default)]
pub struct Books {
    pub trace: Vec<String>,
    pub problems: Vec<String>,
    lives: HashMap<String, Life>,
    /// What a reader with a cursor was told, by number.
    read: BTreeMap<u64, Event>,
    /// Whom a client was told to have started.
    answered: Vec<String>,
}

#[derive(Default)]
struct Life {
    id: String,
    started: bool,
    /// Its shim was killed while it may have lived.
    wounded: bool,
    /// As recorded: by "" the init's, by "EXEC PID" an exec's.
    ends: HashMap<String, wire::Exit>,
}

impl Books {
    pub fn wrong(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub fn made(&mut self, incarnation: &str, id: &str) {
        self.lives.entry(incarnation.to_owned()).or_default().id = id.to_owned();
    }

    pub fn started(&mut self, incarnation: &str) {
        self.lives.entry(incarnation.to_owned()).or_default().started = true;
    }

    pub fn wound(&mut self, incarnation: &str) {
        self.lives.entry(incarnation.to_owned()).or_default().wounded = true;
    }

    pub fn ended(&mut self, incarnation: &str, who: &str, exit: wire::Exit) {
        let ends = &mut self.lives.entry(incarnation.to_owned()).or_default().ends;
        ends.insert(who.to_owned(), exit);
    }

    /// How the init ended, if its shim saw it.
    pub fn truth(&self, incarnation: &str) -> Option<wire::Exit> {
        self.lives.get(incarnation)?.ends.get("").copied()
    }

    /// A client heard that this one was made.
    pub fn answered(&mut self, incarnation: String) {
        self.answered.push(incarnation);
    }

    /// A client heard of the end of some life of this id.
    pub fn heard(&mut self, id: &str, told: &ExitStatus) {
        if matches!(told.reason, ExitReason::Lost | ExitReason::StartFailed) {
            return;
        }
        let mut lives = self.lives.values().filter(|life| life.id == id);
        if !lives.any(|life| life.ends.get("").is_some_and(|exit| exit.code == u32::from(told.code))) {
            self.wrong(format!("{id}: a client was told {told:?}, and no life of it ended so"));
        }
    }

    /// A reader goes on after this number.
    pub fn cursor(&self) -> Option<u64> {
        self.read.last_key_value().map(|(number, _)| *number)
    }

    /// Answers what goes into the trace.
    pub fn read(&mut self, event: Event) -> String {
        let number = event.cursor.number;
        let expected = self.cursor().unwrap_or(0) + 1;
        if number != expected {
            self.wrong(format!("a reader was told event {number} where {expected} was next"));
        }
        let what = &event.what;
        let exit = what.exit.as_ref().map(|exit| exit.code);
        let line = format!("event {number} {:?} of {} {exit:?}", what.kind, what.key.id);
        self.read.insert(number, event);
        line
    }

    /// All history, when everything has been deleted.
    pub fn balance(&mut self, history: &[Event]) {
        let mut problems = Vec::new();
        for (event, expected) in history.iter().zip(1..) {
            if event.cursor.number != expected {
                problems.push(format!("event {} stands where {expected} belongs", event.cursor.number));
            }
            if self.read.get(&expected).is_some_and(|read| read != event) {
                problems.push(format!(
                    "event {expected} was told otherwise than it stands in the history"
                ));
            }
        }
        if self.cursor().unwrap_or(0) != history.len() as u64 {
            problems.push("the reader was not told all of the history".into());
        }
        let mut told: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
        for event in history {
            told.entry(event.what.incarnation.to_string()).or_default().push(event);
        }
        for (incarnation, events) in &told {
            let nobody = Life::default();
            let life = self.lives.get(incarnation).unwrap_or(&nobody);
            let id = &events[0].what.key.id;
            problems.extend(one_life(life, events).into_iter().map(|p| format!("{id}: {p}")));
        }
        for incarnation in &self.answered {
            if !told.contains_key(incarnation) {
                problems.push("a container that a client was told of is in no event".into());
            }
        }
        for (incarnation, life) in &self.lives {
            if life.started && !life.wounded && !told.contains_key(incarnation) && self.answered.contains(incarnation) {
                problems.push(format!("{} was started and is in no event", life.id));
            }
        }
        self.problems.extend(problems);
    }
}

/// What the events say about one incarnation.
fn one_life(life: &Life, events: &[&Event]) -> Vec<String> {
    let mut problems = Vec::new();
    let at = |kind| {
        let of = |(_, e): &(usize, &&Event)| e.what.kind == kind && e.what.exec_id.is_none();
        events.iter().enumerate().filter(of).map(|(i, _)| i).collect::<Vec<_>>()
    };
    let (created, started) = (at(EventKind::Created), at(EventKind::Started));
    let (exited, deleted) = (at(EventKind::Exited), at(EventKind::Deleted));
    for (what, times) in [
        ("created", &created),
        ("started", &started),
        ("exited", &exited),
        ("deleted", &deleted),
    ] {
        if times.len() > 1 {
            problems.push(format!("{what} was told {} times", times.len()));
        }
    }
    let order = [created.first(), started.first(), exited.first(), deleted.first()];
    let order: Vec<_> = order.into_iter().flatten().collect();
    if !order.is_sorted() {
        problems.push("its events are out of order".into());
    }
    if created.is_empty() && (!started.is_empty() || !exited.is_empty() || !deleted.is_empty()) {
        problems.push("it was not told as created".into());
    }
    if !created.is_empty() {
        if exited.is_empty() {
            problems.push("its end was never told".into());
        }
        if deleted.is_empty() {
            problems.push("its deletion was never told".into());
        }
    }
    if life.started && started.is_empty() && !created.is_empty() && !life.wounded {
        problems.push("it was started, and nobody was told".into());
    }
    for event in events {
        let (Some(told), what) = (&event.what.exit, &event.what) else {
            continue;
        };
        let who = match &what.exec_id {
            None => String::new(),
            Some(exec) => format!("{exec} {}", what.pid),
        };
        match life.ends.get(&who) {
            Some(exit) if exit.code != u32::from(told.code) => problems.push(format!(
                "{who} ended with {}, and the events say {} ({:?})",
                exit.code, told.code, told.reason
            )),
            None if told.reason != ExitReason::Lost && !life.wounded => {
                problems.push(format!("{who} was told as ended with {}, which it did not", told.code));
            }
            None if !life.wounded => problems.push(format!("{who} was lost though its shim was not")),
            _ => {}
        }
    }
    let execs = |kind| events.iter().filter(move |e| e.what.kind == kind);
    for end in execs(EventKind::ExecExited) {
        let same = |e: &&&&Event| e.what.exec_id == end.what.exec_id && e.what.pid == end.what.pid;
        if execs(EventKind::ExecExited).filter(|e| same(&e)).count() > 1 {
            problems.push(format!(
                "the end of exec {:?} was told more than once",
                end.what.exec_id
            ));
        }
        if !execs(EventKind::ExecStarted).any(|e| same(&&e)) {
            problems.push(format!(
                "exec {:?} was told as ended and never as started",
                end.what.exec_id
            ));
        }
    }
    let mut kills: Vec<_> = execs(EventKind::Oom).map(|e| e.what.oom_kills).collect();
    let all = kills.len();
    kills.dedup();
    if kills.len() != all {
        problems.push("an OOM kill was told twice".into());
    }
    problems
}

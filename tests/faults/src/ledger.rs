//! The books: what was asked for and answered, against what the events say.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_e2e::v1::{Event, EventKind, ExitReason, ExitStatus};

/// One process of one container's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    pub incarnation: String,
    /// Empty = the init.
    pub exec: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub containers: u64,
    pub execs: u64,
    pub lines: u64,
    pub events: u64,
    pub faults: u64,
    /// Containers whose shim the harness killed.
    pub wounded: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.containers += other.containers;
        self.execs += other.execs;
        self.lines += other.lines;
        self.events += other.events;
        self.faults += other.faults;
        self.wounded += other.wounded;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults, {} containers ({} lost their shim), {} execs, {} lines, {} events",
            self.faults, self.containers, self.wounded, self.execs, self.lines, self.events
        )
    }
}

#[derive(Debug, Default)]
struct Books {
    /// Codes of processes that ended untouched, and what the container is called.
    ends: HashMap<Who, (String, u32)>,
    /// Ids of containers that live, for the injector.
    live: Vec<String>,
    /// Ids of those whose shim was killed in this life.
    wounded: HashSet<String>,
    problems: Vec<String>,
    counts: Counts,
}

#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        // An actor that panicked leaves no half-made entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, id: &str) {
        let mut books = self.books();
        books.wounded.remove(id);
        books.live.push(id.to_owned());
        books.counts.containers += 1;
    }

    /// Its id is free again.
    pub fn end(&self, id: &str) {
        self.books().live.retain(|live| live != id);
    }

    pub fn live(&self) -> Vec<String> {
        self.books().live.clone()
    }

    /// Before the shim is killed: what happens to this container from now on may be a loss.
    pub fn wound(&self, id: &str) {
        let mut books = self.books();
        if books.wounded.insert(id.to_owned()) {
            books.counts.wounded += 1;
        }
    }

    pub fn is_wounded(&self, id: &str) -> bool {
        self.books().wounded.contains(id)
    }

    pub fn wrong(&self, problem: String) {
        self.books().problems.push(problem);
    }

    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.books().counts);
    }

    pub fn counts(&self) -> Counts {
        self.books().counts
    }

    pub fn problems(&self) -> Vec<String> {
        self.books().problems.clone()
    }

    /// An end as the API told it, against the code that the command ends with.
    pub fn ended(&self, id: &str, who: Who, expected: u32, told: &ExitStatus) {
        let mut books = self.books();
        let wounded = books.wounded.contains(id);
        let true_end = told.code == expected && told.reason() == ExitReason::Exited;
        if true_end && !wounded {
            books.ends.insert(who, (id.to_owned(), expected));
        } else if !(wounded && (true_end || told.reason() == ExitReason::Lost || told.signal == 9)) {
            books
                .problems
                .push(format!("{id} {}: told {told:?} in place of code {expected}", who.exec));
        }
    }

    /// Every end that the API told stands once in the history, with the same code.
    pub fn balance(&self, history: &[Event]) {
        let mut told: HashMap<Who, Vec<u32>> = HashMap::new();
        for event in history {
            if matches!(event.kind(), EventKind::Exited | EventKind::ExecExited) {
                let who = Who {
                    incarnation: event.incarnation.clone(),
                    exec: event.exec_id.clone(),
                };
                let code = event.exit.as_ref().map_or(u32::MAX, |exit| exit.code);
                told.entry(who).or_default().push(code);
            }
        }
        let mut books = self.books();
        let mut problems = Vec::new();
        for (who, (id, code)) in &books.ends {
            let events = told.get(who).map_or(&[][..], Vec::as_slice);
            if events != [*code] {
                problems.push(format!(
                    "{id} {}: ended with {code}, the events say {events:?}",
                    who.exec
                ));
            }
        }
        books.problems.extend(problems);
        books.counts.events += u64::try_from(history.len()).unwrap_or(u64::MAX);
    }
}

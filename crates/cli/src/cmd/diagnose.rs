//! `berth diagnose`: what the API knows of one container, and what the kernel says of its processes, in one page to read or to send.
//!
//! Reads `/proc` of the daemon's machine, so it must run there, and sees as much as its user may. It changes nothing and waits for
//! nothing; a process that ends meanwhile is left out.

use std::fs;
use std::path::Path;

use berth_client::Happened;
use berth_wire::v1::{Container, ContainerState, Event, EventsRequest, GetRequest, LogsRequest};
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::complete;
use crate::error::Result;
use crate::{human, json};

/// So many of the last events and lines are shown.
const LAST: usize = 10;

/// Kernel functions of one process's stack that are shown.
const DEEP: usize = 6;

#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    #[arg(value_name = "ID", add = complete::ids())]
    pub id: String,
}

pub async fn diagnose(context: &Context, args: DiagnoseArgs) -> Result<u8> {
    let client = context.client().await?;
    let request = GetRequest {
        id: args.id.clone(),
        processes: true,
        ..Default::default()
    };
    let container = client.get(request).await?.container.unwrap_or_default();
    let mut events = client.events(EventsRequest {
        id: args.id.clone(),
        since: "0".into(),
        history_only: true,
        ..Default::default()
    });
    let mut history = Vec::new();
    while let Some(happened) = events.next().await? {
        if let Happened::Event(event) = happened {
            history.push(event);
        }
    }
    let mut log = client.logs(LogsRequest {
        id: args.id,
        tail: Some(LAST as u64),
        ..Default::default()
    });
    let mut lines = Vec::new();
    // Output that goes elsewhere has no log, which is no failure of a diagnosis.
    while let Ok(Some(entry)) = log.next().await {
        lines.push(String::from_utf8_lossy(&entry.data).trim_end().to_owned());
    }
    let mut processes: Vec<Process> = container
        .processes
        .iter()
        .filter_map(|process| Process::read(Path::new("/proc"), process.pid))
        .collect();
    // A container without a cgroup of its own has its first process at least.
    if processes.is_empty() {
        processes.extend(Process::read(Path::new("/proc"), container.pid));
    }
    let shim = Process::read(Path::new("/proc"), container.shim_pid);
    let report = Report {
        verdicts: verdicts(&container, &processes, shim.as_ref()),
        container,
        processes,
        shim,
        events: history.split_off(history.len().saturating_sub(LAST)),
        lines,
    };
    if context.out.json {
        context.out.document(&report.json())?;
    } else {
        context.out.bytes(report.text().as_bytes())?;
    }
    Ok(0)
}

struct Report {
    verdicts: Vec<String>,
    container: Container,
    processes: Vec<Process>,
    shim: Option<Process>,
    events: Vec<Event>,
    lines: Vec<String>,
}

/// One process as `/proc` tells it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    pid: u32,
    command: String,
    /// "S (sleeping)"
    state: String,
    threads: String,
    memory: String,
    /// The kernel function that it sleeps in; empty if it runs.
    waits_in: String,
    /// Innermost first; root only.
    stack: Vec<String>,
    /// `None` if we may not look.
    files: Option<usize>,
    mounts: Option<usize>,
    /// SIGTERM has a handler.
    handles_term: bool,
}

impl Process {
    fn read(proc: &Path, pid: u32) -> Option<Self> {
        let folder = proc.join(pid.to_string());
        let status = fs::read_to_string(folder.join("status")).ok().filter(|_| pid != 0)?;
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let arguments = text("cmdline").trim_end_matches('\0').replace('\0', " ");
        let caught = u64::from_str_radix(&field("SigCgt"), 16).unwrap_or(0);
        Some(Process {
            pid,
            // A kernel thread, or one that has ended, has no arguments.
            command: match arguments.is_empty() {
                true => format!("[{}]", field("Name")),
                false => printable(&arguments),
            },
            state: field("State"),
            threads: field("Threads"),
            memory: field("VmRSS"),
            waits_in: match text("wchan").trim() {
                "0" => String::new(),
                function => function.to_owned(),
            },
            stack: text("stack")
                .lines()
                .filter_map(|line| line.split_whitespace().last())
                .take(DEEP)
                .map(str::to_owned)
                .collect(),
            files: fs::read_dir(folder.join("fd")).ok().map(Iterator::count),
            mounts: fs::read_to_string(folder.join("mountinfo"))
                .ok()
                .map(|text| text.lines().count()),
            // Bit N - 1 is signal N.
            handles_term: caught >> 14 & 1 == 1,
        })
    }

    fn is_stuck(&self) -> bool {
        self.state.starts_with('D')
    }

    fn text(&self) -> String {
        let number = |count: Option<usize>| count.map_or_else(|| "?".into(), |count| count.to_string());
        let mut text = format!("  {}  {}\n      {}", self.pid, self.command, self.state);
        for (name, value) in [
            ("threads", &self.threads),
            ("memory", &self.memory),
            ("files", &number(self.files)),
            ("mounts", &number(self.mounts)),
            ("waits in", &self.waits_in),
        ] {
            if !value.is_empty() {
                text += &format!(", {name} {value}");
            }
        }
        if self.is_stuck() && !self.stack.is_empty() {
            text += &format!("\n      kernel: {}", self.stack.join(" < "));
        }
        text + "\n"
    }

    fn json(&self) -> Value {
        json!({
            "pid": self.pid, "command": self.command, "state": self.state, "threads": self.threads.parse::<u32>().ok(),
            "memory": self.memory, "waits_in": self.waits_in, "stack": self.stack, "files": self.files, "mounts": self.mounts,
            "handles_sigterm": self.handles_term,
        })
    }
}

/// What a person should look at first; none = nothing strange.
fn verdicts(container: &Container, processes: &[Process], shim: Option<&Process>) -> Vec<String> {
    let mut verdicts = Vec::new();
    let state = container.state();
    let lives = matches!(state, ContainerState::Running | ContainerState::Paused);
    if lives && shim.is_none() {
        verdicts.push(format!(
            "its shim, process {}, is gone: how it ends will not be known",
            container.shim_pid
        ));
    }
    for process in processes.iter().filter(|process| process.is_stuck()) {
        verdicts.push(format!(
            "process {} can't be killed now: it waits in the kernel ({}), as for storage or a network file system",
            process.pid,
            if process.waits_in.is_empty() {
                "unknown"
            } else {
                &process.waits_in
            }
        ));
    }
    if let Some(init) = processes.iter().find(|process| process.pid == container.pid)
        && !init.handles_term
        && ["", "TERM", "SIGTERM", "15"].contains(&container.stop_signal.as_str())
    {
        verdicts.push(
            "its first process has no handler for SIGTERM, which the kernel then does not deliver to it: `berth stop` will take its whole timeout"
                .into(),
        );
    }
    match state {
        ContainerState::Queued => verdicts.push("it waits for a start permit: see `start.concurrency`".into()),
        ContainerState::Creating | ContainerState::Starting => {
            verdicts.push("its start is at work: the runtime, a hook, or a FIFO that nobody reads".into())
        }
        ContainerState::Paused => verdicts.push("it is paused: `berth unpause` lets it go on".into()),
        _ => {}
    }
    if container.oom_kills > 0 {
        verdicts.push(format!(
            "the kernel killed {} of its processes for lack of memory",
            container.oom_kills
        ));
    }
    if container.log_dropped_bytes > 0 {
        verdicts.push(format!(
            "{} bytes of its output were dropped",
            container.log_dropped_bytes
        ));
    }
    if let Some(exit) = container.exit.as_ref().filter(|exit| !exit.message.is_empty()) {
        verdicts.push(exit.message.clone());
    }
    verdicts
}

impl Report {
    fn text(&self) -> String {
        let container = &self.container;
        let mut text = format!(
            "{}/{}  {}  runtime {}  bundle {}\n",
            container.namespace,
            container.id,
            json::state(container.state()),
            container.runtime,
            container.bundle
        );
        if let Some(exit) = &container.exit {
            text += &format!("exit {} ({})\n", exit.code, json::reason(exit.reason()));
        }
        let mut section = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                text += &format!("\n{title}\n{}", lines.concat());
            }
        };
        let bullets = |lines: &[String]| lines.iter().map(|line| format!("  {}\n", printable(line))).collect();
        section("Look at", bullets(&self.verdicts));
        section("Processes", self.processes.iter().map(Process::text).collect());
        section("Shim", self.shim.iter().map(Process::text).collect());
        if !container.cgroup.is_empty() {
            section("Cgroup", vec![format!("  {}\n", container.cgroup)]);
        }
        let stages = container.stages.iter();
        section(
            "Start",
            stages
                .map(|stage| format!("  {:<16} {:>9.1} ms\n", stage.name, stage.duration_us as f64 / 1000.0))
                .collect(),
        );
        let events = self.events.iter().map(|event| {
            let at = human::rfc3339(event.at).unwrap_or_else(|| "-".into());
            format!("  {at}  {} {}\n", json::kind(event.kind()), printable(&event.message))
        });
        section("Last events", events.collect());
        section("Last lines of its output", bullets(&self.lines));
        text
    }

    fn json(&self) -> Value {
        json!({
            "look_at": self.verdicts,
            "container": json::container(&self.container),
            "processes": self.processes.iter().map(Process::json).collect::<Value>(),
            "shim": self.shim.as_ref().map(Process::json),
            "events": self.events.iter().map(json::event).collect::<Value>(),
            "lines": self.lines,
        })
    }
}

/// A container's words must not reach the terminal as commands.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn we_can_read_ourselves() {
        let us = Process::read(Path::new("/proc"), std::process::id()).expect("we are here");
        assert!(us.command.contains("berth"), "{us:?}");
        assert!(
            us.files.is_some_and(|count| count > 2) && us.mounts.is_some_and(|count| count > 0),
            "{us:?}"
        );
        assert!(us.state.starts_with(['R', 'S']), "{us:?}");
        assert_eq!(Process::read(Path::new("/proc"), 0), None);
        assert_eq!(Process::read(Path::new("/nonexistent"), 1), None);
    }

    #[test]
    fn verdicts_name_what_is_strange() {
        let container = Container {
            pid: 5,
            shim_pid: 4,
            state: ContainerState::Running as i32,
            ..Default::default()
        };
        let process = |state: &str, handles_term| Process {
            pid: 5,
            state: state.into(),
            waits_in: "nfs_wait".into(),
            handles_term,
            ..Default::default()
        };
        let shim = process("S (sleeping)", true);
        assert!(verdicts(&container, &[process("S (sleeping)", true)], Some(&shim)).is_empty());
        let found = verdicts(&container, &[process("D (disk sleep)", false)], None).join("\n");
        for part in [
            "shim, process 4, is gone",
            "process 5 can't be killed",
            "nfs_wait",
            "no handler for SIGTERM",
        ] {
            assert!(found.contains(part), "{part} is not in {found}");
        }
    }
}

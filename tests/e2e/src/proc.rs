//! What the kernel says about processes, from /proc.
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;

/// A process that can't be taken for a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub start_time: u64,
}

impl Process {
    pub fn find(pid: u32) -> Option<Process> {
        Some(Process {
            pid,
            start_time: stat(pid)?.1.get(19)?.parse().ok()?,
        })
    }

    pub fn alive(&self) -> bool {
        alive(self.pid) && Process::find(self.pid).as_ref() == Some(self)
    }
}

/// The command's name, and the fields of /proc/PID/stat from the state on.
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    Some((name, tail.split_whitespace().map(str::to_owned).collect()))
}

/// True while the process runs; a zombie has ended.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, fields)| !matches!(fields[0].as_str(), "Z" | "X"))
}

pub fn name(pid: u32) -> Option<String> {
    Some(stat(pid)?.0)
}

/// "S", "R", "T", "D", "Z" as in /proc/PID/stat.
pub fn state(pid: u32) -> Option<String> {
    Some(stat(pid)?.1[0].clone())
}

pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.1.get(1)?.parse().ok()
}

pub fn pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

pub fn children(pid: u32) -> Vec<u32> {
    pids().filter(|p| parent(*p) == Some(pid)).collect()
}

/// The process and all that descend from it.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        all.extend(children(all[next]));
        next += 1;
    }
    all
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    // It may have ended by itself already.
    let _ = kill_process(pid, signal);
}

/// `Threads`, `CapEff`, `NoNewPrivs` and so on of /proc/PID/status.
pub fn status(pid: u32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))
        .map(|v| v.trim().to_owned())
}

/// Proportional set size in KiB.
pub fn pss_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines()
        .find_map(|l| l.strip_prefix("Pss:"))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()
}

/// The cgroup folders of a process, one a hierarchy, as absolute paths.
pub fn cgroup_dirs(pid: u32) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let root = match controllers.strip_prefix("name=").unwrap_or(controllers) {
                "" if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => String::new(),
                "" => "unified".to_owned(),
                name => name.to_owned(),
            };
            Some(PathBuf::from(format!("/sys/fs/cgroup/{root}{path}")))
        })
        .collect()
}

/// A cgroup file of the process, by its v1 controller and name or its v2 name, whichever this machine has.
pub fn cgroup_file(pid: u32, controller: &str, v1: &str, v2: &str) -> Option<String> {
    let dirs = cgroup_dirs(pid);
    let v1_dir = dirs
        .iter()
        .find(|d| d.starts_with(format!("/sys/fs/cgroup/{controller}")));
    let file = match v1_dir {
        Some(dir) => dir.join(v1),
        None => dirs.first()?.join(v2),
    };
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

//! What a daemon may have left behind, and how to sweep it up after a failed test.
use crate::proc;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folders under which a cgroup path may appear: one a v1 hierarchy, or the one of v2.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// crun refuses v1 cgroups while a controller sits in the unified hierarchy; mounting it as v1 frees it.
pub fn free_hybrid_controllers() {
    let Ok(free) = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers") else {
        return;
    };
    for controller in free.split_whitespace() {
        let dir = format!("/sys/fs/cgroup/{controller}");
        // Another test process may be doing the same; crun itself tells if it did not help.
        let _ = std::fs::create_dir(&dir);
        let _ = std::process::Command::new("mount")
            .args(["-t", "cgroup", "-o", controller, "cgroup", &dir])
            .status();
    }
}

/// Processes, mounts and cgroups of one daemon and its containers.
#[derive(Debug, Default)]
pub struct Leftovers {
    pub processes: BTreeSet<u32>,
    pub mounts: Vec<String>,
    pub cgroups: Vec<PathBuf>,
}

impl Leftovers {
    pub fn find(dirs: &[PathBuf], cgroup: &str) -> Leftovers {
        let mut found = Leftovers {
            mounts: dirs.iter().flat_map(|dir| mounts(dir)).collect(),
            ..Leftovers::default()
        };
        for root in cgroup_roots() {
            walk(&root.join(cgroup.trim_start_matches('/')), true, &mut found);
        }
        let me = std::process::id();
        let ours = |p: &u32| *p != me && proc::alive(*p) && dirs.iter().any(|dir| belongs(*p, dir));
        found.processes.extend(proc::pids().filter(ours));
        found
    }

    /// Processes whose folder, or anything else they hold, was removed under them: nobody will ever end them.
    pub fn strays(&self) -> Vec<u32> {
        let fds = |pid: &u32| {
            std::fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
        };
        let deleted = |pid: &u32| {
            let mut links = fds(pid).filter_map(|fd| std::fs::read_link(fd.path()).ok());
            links.any(|to| to.to_string_lossy().contains("/state/c/") && to.to_string_lossy().ends_with(" (deleted)"))
        };
        self.processes.iter().copied().filter(deleted).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.mounts.is_empty() && self.cgroups.is_empty()
    }

    /// Each process with its command line, for the message of a failed test.
    pub fn describe(&self) -> String {
        let line = |pid: &u32| {
            let cmd = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let (state, cmd) = (
                proc::state(*pid).unwrap_or_default(),
                String::from_utf8_lossy(&cmd).replace('\0', " "),
            );
            let folder = std::fs::read_link(format!("/proc/{pid}/fd/3")).unwrap_or_default();
            format!("  process {pid} {state} {cmd} {}\n", folder.display())
        };
        let processes: String = self.processes.iter().map(line).collect();
        format!("{processes}  mounts {:?}\n  cgroups {:?}", self.mounts, self.cgroups)
    }

    /// Ends and removes everything. For a test that has failed: no questions asked.
    pub fn sweep(dirs: &[PathBuf], cgroup: &str) {
        let swept = crate::until::blocking(std::time::Duration::from_secs(10), || {
            let found = Leftovers::find(dirs, cgroup);
            for pid in &found.processes {
                proc::kill(*pid, Signal::KILL);
            }
            for mount in found.mounts.iter().rev() {
                let _ = rustix::mount::unmount(mount.as_str(), rustix::mount::UnmountFlags::DETACH);
            }
            for dir in found.cgroups.iter().rev() {
                let _ = std::fs::write(dir.join("freezer.state"), "THAWED");
                let _ = std::fs::write(dir.join("cgroup.freeze"), "0");
                let _ = std::fs::remove_dir(dir);
            }
            found.is_empty().then_some(())
        });
        if swept.is_none() {
            eprintln!("could not sweep:\n{}", Leftovers::find(dirs, cgroup).describe());
        }
        remove_parents(cgroup);
    }
}

/// The cgroup parent itself is the test's, not the daemon's: runtimes make it and leave it.
pub fn remove_parents(cgroup: &str) {
    for root in cgroup_roots() {
        let _ = std::fs::remove_dir(root.join(cgroup.trim_start_matches('/')));
    }
}

/// Collects cgroups below `dir` (itself not, unless a process sits in it) and the processes in them.
fn walk(dir: &Path, top: bool, found: &mut Leftovers) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    if !top {
        found.cgroups.push(dir.to_owned());
    }
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.processes.extend(
        procs
            .lines()
            .filter_map(|l| l.parse::<u32>().ok())
            .filter(|p| proc::alive(*p)),
    );
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), false, found);
        }
    }
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", dir.display());
    table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|p| p.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

/// True if the process was given the folder on its command line or has something below it open.
fn belongs(pid: u32, dir: &Path) -> bool {
    let text = format!("{}/", dir.display());
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if cmdline.windows(text.len()).any(|w| w == text.as_bytes()) {
        return true;
    }
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|to| to.starts_with(dir))
}

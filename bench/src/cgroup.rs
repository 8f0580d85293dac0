//! The cgroup under which one side's daemon, shims, runtimes and containers all run, so that the kernel adds up their CPU time.

use crate::error::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `/NAME` in every hierarchy: `daemon` for the daemon and its children (joined only where CPU is counted), `c` for containers.
pub struct Cgroup {
    name: String,
    mounts: Vec<PathBuf>,
    /// Mount point of the hierarchy that counts CPU, and whether it is v2.
    counter: PathBuf,
    v2: bool,
}

impl Cgroup {
    /// Makes the groups. The name must be unique on the machine.
    pub fn make(name: &str) -> Result<Cgroup> {
        let text = std::fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = Vec::new();
        let mut counter = None;
        let mut v2 = None;
        for line in text.lines() {
            let [_, at, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            if kind == "cgroup" || kind == "cgroup2" {
                mounts.push(PathBuf::from(at));
            }
            if kind == "cgroup" && options.split(',').any(|option| option == "cpuacct") {
                counter = Some(PathBuf::from(at));
            } else if kind == "cgroup2" {
                v2 = Some(PathBuf::from(at));
            }
        }
        let is_v2 = counter.is_none();
        let counter = counter
            .or(v2)
            .ok_or_else(|| crate::error::BenchError::new("no cgroup filesystem is mounted"))?;
        let cgroup = Cgroup {
            name: name.to_owned(),
            mounts,
            counter,
            v2: is_v2,
        };
        std::fs::create_dir_all(cgroup.counter.join(name).join("daemon")).context("making a cgroup")?;
        Ok(cgroup)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What containers have as the parent of their cgroup.
    pub fn parent(&self) -> String {
        format!("/{}/c", self.name)
    }

    /// The file that a process writes its pid to, to be counted as the daemon's.
    pub fn join_file(&self) -> PathBuf {
        self.counter.join(&self.name).join("daemon/cgroup.procs")
    }

    /// CPU time of everything below: daemon, shims, runtimes and containers, the ended ones included.
    pub fn cpu(&self) -> Result<Duration> {
        self.cpu_of(&self.counter.join(&self.name))
    }

    /// CPU time of the daemon and the shims alone.
    pub fn cpu_of_daemon(&self) -> Result<Duration> {
        self.cpu_of(&self.counter.join(&self.name).join("daemon"))
    }

    fn cpu_of(&self, group: &Path) -> Result<Duration> {
        if !self.v2 {
            let text = std::fs::read_to_string(group.join("cpuacct.usage"))?;
            return Ok(Duration::from_nanos(text.trim().parse().unwrap_or_default()));
        }
        let text = std::fs::read_to_string(group.join("cpu.stat"))?;
        let usage = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
            .unwrap_or("0");
        Ok(Duration::from_micros(usage.parse().unwrap_or_default()))
    }

    /// The groups of one container.
    pub fn folders(&self, id: &str) -> Vec<PathBuf> {
        let folders = self
            .mounts
            .iter()
            .map(|mount| mount.join(&self.name).join("c").join(id));
        folders.filter(|folder| folder.is_dir()).collect()
    }

    /// The containers' groups that are still there.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let parents = self.mounts.iter().map(|mount| mount.join(&self.name).join("c"));
        parents
            .filter_map(|parent| std::fs::read_dir(parent).ok())
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }
}

/// The processes in a group.
pub fn members(group: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for mount in &self.mounts {
            remove(&mount.join(&self.name));
        }
    }
}

fn remove(group: &Path) {
    for entry in std::fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        remove(&entry.path());
    }
    let _ = std::fs::remove_dir(group);
}

//! The container's cgroups: where they are, what is written into them, and how they go away.
//!
//! Invariants: every path is below a controller's mount and has no `..`; a cgroup that existed before is used and not
//! removed by an undo; a limit that can't be set is an error and names the file and the value.

mod dbus;
mod devices;
mod scope;
mod stats;
mod tree;
mod v1;
mod v2;
mod values;
mod values_v2;

pub(crate) use values::settings;

pub(crate) use scope::Scope;
pub(crate) use v1::V1;
pub(crate) use v2::V2;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::unguarded::without;
use oci_spec::runtime::LinuxResources;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::OciError;

/// How long a freeze may take that somebody asked for, and one that only helps.
const FREEZE: Duration = Duration::from_secs(5);
const STAND_STILL: Duration = Duration::from_millis(200);
const ESRCH: i32 = 3;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether there is one hierarchy with all controllers.
pub(crate) fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The cgroups of one container under whichever hierarchy this machine has.
#[derive(Debug)]
pub enum Cgroups {
    V1(V1),
    V2(V2),
    /// v2 by way of systemd.
    Scope(Scope),
}

impl Cgroups {
    /// Where the cgroups at `path` will be (config.json's cgroupsPath; empty = named `id`: v1 below the caller's own, v2 beside
    /// it, as runc). Makes nothing.
    ///
    /// # Errors
    /// A path that leaves the hierarchy.
    pub(crate) fn plan(path: &str, id: &str) -> Result<Cgroups, OciError> {
        let path = checked(path)?;
        if unified() {
            Ok(Cgroups::V2(V2::plan(&path, id)?))
        } else {
            Ok(Cgroups::V1(V1::plan(&path, id)?))
        }
    }

    /// The same where systemd is to make it: `path` is `slice:prefix:name`.
    ///
    /// # Errors
    /// Another form of path; cgroups of version 1; properties of systemd among the annotations.
    pub(crate) fn plan_scope(path: &str, id: &str, annotations: &HashMap<String, String>) -> Result<Cgroups, OciError> {
        Ok(Cgroups::Scope(Scope::plan(path, id, annotations)?))
    }

    /// Makes them and writes the limits; systemd does both only when the process [`join`](Self::join)s.
    ///
    /// # Errors
    /// A controller that is not mounted but needed, a limit that the kernel refuses. What was made is gone again.
    pub(crate) fn make(&mut self, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.make(resources),
            Cgroups::V2(group) => group.make(resources),
            Cgroups::Scope(scope) => scope.make(),
        }
    }

    /// Whether the group that counts what the OOM killer does was made for this container.
    #[must_use]
    pub fn has_new_memory_group(&self) -> bool {
        match self {
            Cgroups::V1(groups) => groups.has_new_memory_group(),
            Cgroups::V2(group) => group.is_new(),
            Cgroups::Scope(scope) => scope.group().is_new(),
        }
    }

    /// Controllers and folder in each hierarchy, under v1.
    pub(crate) fn folders(&self) -> Vec<(String, PathBuf)> {
        match self {
            Cgroups::V1(groups) => groups.folders(),
            Cgroups::V2(_) | Cgroups::Scope(_) => Vec::new(),
        }
    }

    /// The folder that the init process is to be born in; `None` if it must [`join`](Self::join).
    ///
    /// # Errors
    /// A cgroup that is gone.
    pub(crate) fn cradle(&self) -> Result<Option<OwnedFd>, OciError> {
        match self {
            Cgroups::V1(_) => Ok(None),
            Cgroups::V2(group) => group.open().map(Some),
            Cgroups::Scope(_) => Ok(None),
        }
    }

    /// The folder that one more process is to be born in; `None` if it must go through the [`doors`](Self::doors).
    ///
    /// # Errors
    /// A cgroup that is gone.
    pub(crate) fn cradle_of_exec(&self) -> Result<Option<OwnedFd>, OciError> {
        match self {
            Cgroups::Scope(scope) => scope.group().open().map(Some),
            _ => self.cradle(),
        }
    }

    /// Puts a process into all of them that was not born there.
    ///
    /// # Errors
    /// As a write to cgroup.procs; systemd's.
    pub(crate) fn join(&self, pid: u32, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.join(pid),
            Cgroups::V2(group) => group.join(pid),
            Cgroups::Scope(scope) => scope.join(pid, resources),
        }
    }

    /// Removes what `make` made.
    pub fn undo(&self) {
        match self {
            Cgroups::V1(groups) => groups.undo(),
            Cgroups::V2(group) => group.undo(),
            // Without a process it is gone already, or goes.
            Cgroups::Scope(scope) => drop(scope.stop()),
        }
    }

    /// Opens what a process must be written into that is not born in it, while the host's hierarchies can still be seen.
    ///
    /// # Errors
    /// A cgroup that is gone.
    pub(crate) fn doors(&self) -> Result<Vec<(String, File)>, OciError> {
        match self {
            Cgroups::V1(groups) => groups.doors(),
            Cgroups::V2(_) | Cgroups::Scope(_) => Ok(Vec::new()),
        }
    }

    /// Every process in the cgroup and below it.
    ///
    /// # Errors
    /// As a read of cgroup.procs; a cgroup that is gone has none.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        match self {
            Cgroups::V1(groups) => groups.processes(),
            Cgroups::V2(group) => group.processes(),
            Cgroups::Scope(scope) => scope.group().processes(),
        }
    }

    /// What its processes use, in the form of runc's `events --stats`.
    #[must_use]
    pub fn stats(&self) -> Value {
        match self {
            Cgroups::V1(groups) => stats::v1(&|controller| groups.folder(controller)),
            Cgroups::V2(group) => group.stats(),
            Cgroups::Scope(scope) => scope.group().stats(),
        }
    }

    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match self {
            Cgroups::V1(groups) => groups.is_frozen(),
            Cgroups::V2(group) => group.is_frozen(),
            Cgroups::Scope(scope) => scope.group().is_frozen(),
        }
    }

    /// Freezes or thaws, and waits until it is so.
    ///
    /// # Errors
    /// No freezer, or one that does not finish: it thaws again then.
    pub fn freeze(&self, frozen: bool) -> Result<(), OciError> {
        self.freeze_within(frozen, FREEZE)
    }

    /// Signals every process in the cgroup and below it. They stand still meanwhile, so that none is forked past the list; SIGKILL
    /// also thaws what somebody paused, for a frozen process does not die. A freezer that is not there or does not finish is done
    /// without.
    ///
    /// # Errors
    /// As a read of cgroup.procs, pidfd_send_signal(2), but for a process that has just ended.
    pub(crate) fn signal_all(&self, signal: i32) -> io::Result<()> {
        if let Some(group) = self.unified()
            && signal == berth_sys::signal::SIGKILL
        {
            // In one step, the frozen and those that are being forked too.
            return group.kill();
        }
        let paused = self.is_frozen();
        let froze = !paused && self.freeze_within(true, STAND_STILL).is_ok();
        let done = self.signal_listed(signal);
        if froze || paused && signal == berth_sys::signal::SIGKILL {
            // What stays frozen is found by whoever waits for its end.
            let _ = self.freeze(false);
        }
        done
    }

    fn unified(&self) -> Option<&V2> {
        match self {
            Cgroups::V1(_) => None,
            Cgroups::V2(group) => Some(group),
            Cgroups::Scope(scope) => Some(scope.group()),
        }
    }

    fn signal_listed(&self, signal: i32) -> io::Result<()> {
        let open = |pid| Some((pid, berth_sys::process::pidfd_open(pid).ok()?));
        let opened: Vec<(u32, OwnedFd)> = self.processes()?.into_iter().filter_map(open).collect();
        // A number may have become another's before it was opened: who is here now was here when it was.
        let here: HashSet<u32> = self.processes()?.into_iter().collect();
        let mut first = Ok(());
        for (_, pidfd) in opened.iter().filter(|(pid, _)| here.contains(pid)) {
            match berth_sys::process::pidfd_send_signal(pidfd, signal) {
                Err(error) if error.raw_os_error() != Some(ESRCH) && first.is_ok() => first = Err(error),
                _ => {}
            }
        }
        first
    }

    fn freeze_within(&self, frozen: bool, patience: Duration) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.freeze(frozen, patience),
            Cgroups::V2(group) => group.freeze(frozen, patience),
            Cgroups::Scope(scope) => scope.group().freeze(frozen, patience),
        }
    }

    /// # Errors
    /// A limit that the kernel refuses, by file and value.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.update(resources),
            Cgroups::V2(group) => group.update(resources),
            Cgroups::Scope(scope) => scope.update(resources),
        }
    }

    /// Removes the container's cgroups with all below them. Can be repeated.
    ///
    /// # Errors
    /// One that still has a process, by name.
    pub fn remove(&self) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.remove(),
            Cgroups::V2(group) => group.remove(),
            Cgroups::Scope(scope) => scope.stop().and_then(|()| scope.group().remove()),
        }
    }

    pub(crate) fn from_json(value: &Value) -> Option<Cgroups> {
        match value {
            Value::Array(_) => V1::from_json(value).map(Cgroups::V1),
            _ if value["unit"].is_string() => Scope::from_json(value).map(Cgroups::Scope),
            _ => V2::from_json(value).map(Cgroups::V2),
        }
    }
}

/// v1: a list of its folders; v2: one object.
impl Serialize for Cgroups {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Cgroups::V1(groups) => groups.serialize(to),
            Cgroups::V2(group) => group.to_json().serialize(to),
            Cgroups::Scope(scope) => scope.to_json().serialize(to),
        }
    }
}

/// Refuses a cgroupsPath that can't be.
pub(crate) fn check_path(path: &std::path::Path) -> Result<(), OciError> {
    checked(&path.to_string_lossy()).map(drop)
}

/// The group that a process of a container is in by now, opened: an init that is itself a manager of cgroups (systemd) has moved
/// on from the container's own, which can then hold no process any more. v2 only.
pub(crate) fn cradle_beside(pid: u32) -> Result<OwnedFd, OciError> {
    v2::open_group_of(pid)
}

/// Normal components only: `..` would leave the hierarchy.
fn checked(path: &str) -> Result<String, OciError> {
    let leaves = |path: &str| path.split('/').any(|part| part == "..");
    if (leaves(path) && !without("cgroup-path")) || path.contains('\0') {
        return Err(OciError::field(
            "linux.cgroupsPath",
            format!("{path:?}"),
            "a path without `..`",
        ));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let absolute = if path.starts_with('/') { "/" } else { "" };
    if parts.is_empty() && !absolute.is_empty() {
        // Its processes are the machine's, and a delete ends them all.
        return Err(OciError::field(
            "linux.cgroupsPath",
            "\"/\"",
            "not the hierarchy's root",
        ));
    }
    Ok(format!("{absolute}{}", parts.join("/")))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_path_stays_in_the_hierarchy() {
        assert_eq!(checked("/a//b/./c/").expect("legal"), "/a/b/c");
        assert_eq!(checked("a/b").expect("legal"), "a/b");
        assert_eq!(checked("").expect("legal"), "");
        assert!(checked("/a/../../b").is_err());
        assert!(checked("a\0b").is_err());
        assert!(checked("/").is_err() && checked("/./").is_err());
    }

    /// A state file of an earlier version holds the list.
    #[test]
    fn reads_the_state_of_both_versions() {
        let v1 = serde_json::json!([{"controllers": "memory", "folder": "/sys/fs/cgroup/memory/a", "existed": false}]);
        let v2 = serde_json::json!({"folder": "/sys/fs/cgroup/a", "existed": true});
        let scope = serde_json::json!({
            "folder": "/sys/fs/cgroup/a.slice/b.scope", "existed": false, "unit": "b.scope", "slice": "a.slice",
        });
        for stored in [v1, v2, scope] {
            let cgroups = Cgroups::from_json(&stored).expect("legal");
            assert_eq!(serde_json::to_value(&cgroups).expect("JSON"), stored);
        }
        assert!(Cgroups::from_json(&serde_json::json!({"folder": "/etc", "existed": true})).is_none());
    }
}

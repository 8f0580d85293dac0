//! cgroups of v1, hybrid and v2: where a process's groups are, what they have used, who is in them, freezing, killing, removing.
//!
//! A [`Group`] is one name with a folder per controller: under v1 every hierarchy may have put the process elsewhere, so folders come
//! from /proc/PID/cgroup and the mounts, never from a guess. Reading what a kernel lacks gives 0, not an error: counters differ
//! between versions. Nothing here signals or removes a group that holds the caller, or a hierarchy's root.

mod control;
pub mod events;
mod limits;
mod oom;
pub mod parse;
mod stats;
#[cfg(test)]
mod test;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::mounts::Mount;

pub use limits::Limits;
pub use oom::OomKills;
pub use stats::Stats;

const TOP: &str = "/sys/fs/cgroup";

/// Which hierarchies a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One per controller.
    V1,
    /// One per controller, and a unified one without the usual controllers.
    Hybrid,
    V2,
}

/// Where the hierarchies are mounted. Detect once; a machine keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// By controller, `name=systemd` among them: the mount point, and which part of the hierarchy it shows.
    v1: BTreeMap<String, Place>,
    unified: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    point: PathBuf,
    root: PathBuf,
}

impl Place {
    /// The folder of a path of /proc/PID/cgroup; `None` if this mount does not show it.
    fn folder(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // Outside of our cgroup namespace the kernel writes `/..`.
        let inside = below
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| {
            if below.as_os_str().is_empty() {
                self.point.clone()
            } else {
                self.point.join(below)
            }
        })
    }
}

/// One cgroup: its name, and its folder under each controller. Under v2 all are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    version: Version,
    /// As /proc/PID/cgroup shows it for the memory controller (v1, hybrid) or the unified hierarchy (v2).
    name: String,
    v1: BTreeMap<String, PathBuf>,
    unified: Option<PathBuf>,
}

impl Hierarchies {
    /// From this process's mounts.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::of(&crate::mounts::all()?))
    }

    /// Where every distribution mounts them: below /sys/fs/cgroup, each v1 controller by its name. For whoever can't afford to read
    /// the mounts of a busy machine; nothing is looked for but the version.
    pub fn usual() -> io::Result<Self> {
        Ok(Self::usual_in(
            Path::new(TOP),
            &crate::file::read_text("/proc/self/cgroup")?,
        ))
    }

    fn usual_in(top: &Path, own: &str) -> Self {
        let place = |point: PathBuf| Place {
            point,
            root: PathBuf::from("/"),
        };
        if top.join("cgroup.controllers").exists() {
            return Self {
                v1: BTreeMap::new(),
                unified: Some(place(top.to_owned())),
            };
        }
        let mut found = Self {
            v1: BTreeMap::new(),
            unified: None,
        };
        for (controllers, _) in parse::membership(own) {
            if controllers.is_empty() {
                found.unified = Some(place(top.join("unified")));
                continue;
            }
            for controller in controllers.split(',') {
                let name = controller.strip_prefix("name=").unwrap_or(controller);
                found.v1.insert(controller.to_owned(), place(top.join(name)));
            }
        }
        found
    }

    #[must_use]
    pub fn of(mounts: &[Mount]) -> Self {
        // Options of the superblock that are no controllers.
        const OTHERS: [&str; 8] = [
            "rw",
            "ro",
            "xattr",
            "clone_children",
            "noprefix",
            "none",
            "cpuset_v2_mode",
            "release_agent",
        ];
        let mut found = Self {
            v1: BTreeMap::new(),
            unified: None,
        };
        for mount in mounts {
            let place = || Place {
                point: mount.point.clone(),
                root: mount.root.clone(),
            };
            match mount.filesystem.as_str() {
                // The first one counts: a later one may be a container's.
                "cgroup2" => {
                    found.unified.get_or_insert_with(place);
                }
                "cgroup" => {
                    for option in mount.super_options.split(',') {
                        let key = option.split('=').next().unwrap_or_default();
                        if !OTHERS.contains(&key) {
                            found.v1.entry(option.to_owned()).or_insert_with(place);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    #[must_use]
    pub fn version(&self) -> Version {
        match (
            &self.unified,
            self.v1.contains_key("memory") || self.v1.contains_key("pids"),
        ) {
            (Some(_), false) => Version::V2,
            (Some(_), true) => Version::Hybrid,
            (None, _) => Version::V1,
        }
    }

    /// The cgroup of a process. NotFound if there is no such process.
    pub fn group_of(&self, pid: u32) -> io::Result<Group> {
        Ok(self.group_in(&crate::file::read_text(format!("/proc/{pid}/cgroup"))?))
    }

    /// From the text of a /proc/PID/cgroup.
    #[must_use]
    pub fn group_in(&self, text: &str) -> Group {
        let version = self.version();
        let mut group = Group {
            version,
            name: String::new(),
            v1: BTreeMap::new(),
            unified: None,
        };
        for (controllers, path) in parse::membership(text) {
            if controllers.is_empty() {
                group.unified = self.unified.as_ref().and_then(|place| place.folder(path));
                if version == Version::V2 {
                    path.clone_into(&mut group.name);
                }
                continue;
            }
            for controller in controllers.split(',') {
                if version != Version::V2 && controller == "memory" {
                    path.clone_into(&mut group.name);
                }
                if let Some(folder) = self.v1.get(controller).and_then(|place| place.folder(path)) {
                    group.v1.insert(controller.to_owned(), folder);
                }
            }
        }
        group
    }

    /// The cgroup of this name under every hierarchy, for one whose processes are gone. Folders that are not there are left out.
    /// InvalidInput for a name with `..`.
    pub fn group_named(&self, name: &str) -> io::Result<Group> {
        if !name.starts_with('/') || name.split('/').any(|part| part == ".." || part == ".") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let there = |place: &Place| place.folder(name).filter(|folder| folder.is_dir());
        let v1 = self
            .v1
            .iter()
            .filter_map(|(controller, place)| Some((controller.clone(), there(place)?)))
            .collect();
        let unified = self.unified.as_ref().and_then(there);
        Ok(Group {
            version: self.version(),
            name: name.to_owned(),
            v1,
            unified,
        })
    }
}

impl Group {
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder for a controller, such as `memory`; under v2 the one folder.
    #[must_use]
    pub fn folder(&self, controller: &str) -> Option<&Path> {
        match self.version {
            Version::V2 => self.unified.as_deref(),
            Version::V1 | Version::Hybrid => self.v1.get(controller).map(PathBuf::as_path),
        }
    }

    /// Its folder in the unified hierarchy, if there is one (also in hybrid mode).
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// All its folders, each once.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        let mut folders: Vec<&Path> = self.v1.values().chain(&self.unified).map(PathBuf::as_path).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// The folder whose membership counts: processes are listed, frozen and killed there.
    fn main_folder(&self) -> io::Result<&Path> {
        let controllers = ["memory", "pids", "freezer"];
        let folder = controllers
            .iter()
            .find_map(|controller| self.folder(controller))
            .or(self.unified.as_deref());
        folder.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup"))
    }
}

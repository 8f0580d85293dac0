//! cgroup v1 (also the controllers of a hybrid machine): one folder a controller, one write a process and controller.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_sys::file::read_text;
use oci_spec::runtime::LinuxResources;
use serde::Serialize;
use serde_json::Value;

use super::tree::{collect, open, put, put_open};
use super::values::{self, Setting};
use super::{ROOT, tree};
use crate::error::{Context, OciError};

/// Where one controller's hierarchy is, and this container's folder in it.
#[derive(Debug, Serialize)]
struct Group {
    /// As /proc/PID/cgroup names it: "cpu,cpuacct", "name=systemd".
    controllers: String,
    folder: PathBuf,
    /// It was there before: an undo leaves it.
    existed: bool,
}

/// The container's folders in all mounted hierarchies. Written down as a list of them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct V1 {
    groups: Vec<Group>,
}

impl V1 {
    pub(crate) fn plan(path: &str, id: &str) -> Result<V1, OciError> {
        let mut groups = Vec::new();
        let own = read_text("/proc/self/cgroup").step("read", "/proc/self/cgroup")?;
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(own)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            let mount = Path::new(ROOT).join(if name.is_empty() { "unified" } else { name });
            if !mount.is_dir() {
                continue;
            }
            let folder = match path {
                "" => mount.join(own.trim_start_matches('/')).join(id),
                absolute if absolute.starts_with('/') => mount.join(&absolute[1..]),
                relative => mount.join(own.trim_start_matches('/')).join(relative),
            };
            groups.push(Group {
                controllers: controllers.to_owned(),
                folder,
                existed: false,
            });
        }
        if groups.is_empty() {
            return Err(OciError::Unsupported {
                what: "a container without cgroup v1 (it needs cgroups that this runtime can make)".into(),
            });
        }
        Ok(V1 { groups })
    }

    pub(crate) fn make(&mut self, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        let settings = values::for_new(resources, self.folder("devices").is_some());
        let done = self
            .make_folders()
            .and_then(|()| self.check_empty())
            .and_then(|()| self.apply(&settings));
        if done.is_err() {
            self.undo();
        }
        done
    }

    fn make_folders(&mut self) -> Result<(), OciError> {
        // One that was not reached is not ours to remove either.
        self.groups.iter_mut().for_each(|group| group.existed = true);
        for group in &mut self.groups {
            let cpuset = group.controllers.split(',').any(|name| name == "cpuset");
            let made = make_folder(&group.folder).step("make cgroup", group.folder.display())?;
            group.existed = !made;
            if cpuset {
                inherit_cpuset(&group.folder, made).step("make cgroup", group.folder.display())?;
            }
        }
        Ok(())
    }

    /// What is in it already would be frozen, limited and killed with the container.
    fn check_empty(&self) -> Result<(), OciError> {
        if self.groups.iter().all(|group| !group.existed) {
            return Ok(());
        }
        let there = self.processes().step("list processes of", "linux.cgroupsPath")?;
        match there.first() {
            None => Ok(()),
            Some(pid) => {
                let value = format!("process {pid} is in it");
                Err(OciError::field(
                    "linux.cgroupsPath",
                    value,
                    "a cgroup without processes",
                ))
            }
        }
    }

    /// Whether the group that counts what the OOM killer does was made for this container.
    pub(crate) fn has_new_memory_group(&self) -> bool {
        let mut all = self.groups.iter();
        all.any(|group| !group.existed && group.controllers.split(',').any(|name| name == "memory"))
    }

    /// Writes settings in order.
    ///
    /// # Errors
    /// A controller that is not mounted, or a value that the kernel refuses.
    pub(crate) fn apply(&self, settings: &[Setting]) -> Result<(), OciError> {
        // Rules of the devices controller go one by one into the same file.
        let mut last: Option<(PathBuf, File)> = None;
        for setting in settings {
            let folder = self.folder(setting.controller).ok_or_else(|| OciError::Unsupported {
                what: format!(
                    "cgroup controller {} (for {}={})",
                    setting.controller, setting.file, setting.value
                ),
            })?;
            let path = folder.join(&setting.file);
            let written = match &last {
                Some((same, file)) if *same == path => put_open(file, &setting.value),
                _ => open(&path).and_then(|file| put_open(&last.insert((path.clone(), file)).1, &setting.value)),
            };
            written.step("set", format!("{} to {}", path.display(), setting.value))?;
        }
        Ok(())
    }

    pub(super) fn folder(&self, controller: &str) -> Option<&Path> {
        let has = |group: &&Group| group.controllers.split(',').any(|name| name == controller);
        self.groups.iter().find(has).map(|group| group.folder.as_path())
    }

    pub(crate) fn folders(&self) -> Vec<(String, PathBuf)> {
        let one = |group: &Group| (group.controllers.clone(), group.folder.clone());
        self.groups.iter().map(one).collect()
    }

    pub(crate) fn join(&self, pid: u32) -> Result<(), OciError> {
        let pid = pid.to_string();
        for group in &self.groups {
            let file = group.folder.join("cgroup.procs");
            put(&file, &pid).step("join cgroup", file.display())?;
        }
        Ok(())
    }

    pub(crate) fn undo(&self) {
        for group in self.groups.iter().filter(|group| !group.existed) {
            // What was put into it meanwhile is somebody else's, and then so is the folder.
            let _ = fs::remove_dir(&group.folder);
        }
    }

    pub(crate) fn doors(&self) -> Result<Vec<(String, File)>, OciError> {
        let open = |group: &Group| {
            let path = group.folder.join("cgroup.procs");
            let opened = File::options().write(true).open(&path).step("open", path.display())?;
            Ok((path.display().to_string(), opened))
        };
        self.groups.iter().map(open).collect()
    }

    /// The hierarchy whose membership stands for all: the freezer's if there is one.
    fn main(&self) -> Option<&Path> {
        self.folder("freezer")
            .or_else(|| self.groups.first().map(|group| group.folder.as_path()))
    }

    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        if let Some(folder) = self.main() {
            collect(folder, &mut all)?;
        }
        Ok(all)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let state = self
            .folder("freezer")
            .map(|folder| read_text(folder.join("freezer.state")));
        // FREEZING is a pause that was asked for and is under way.
        matches!(state, Some(Ok(state)) if state.trim() != "THAWED")
    }

    pub(crate) fn freeze(&self, frozen: bool, patience: Duration) -> Result<(), OciError> {
        let folder = self.folder("freezer").ok_or_else(|| OciError::Unsupported {
            what: "cgroup controller freezer (for pause)".into(),
        })?;
        let file = folder.join("freezer.state");
        let (word, opposite) = if frozen {
            ("FROZEN", "THAWED")
        } else {
            ("THAWED", "FROZEN")
        };
        let deadline = Instant::now() + patience;
        loop {
            // v1 has no notification of this; a write also moves a freeze on that a fork has upset.
            put(&file, word).step("set", format!("{} to {word}", file.display()))?;
            let state = read_text(&file).step("read", file.display())?;
            if state.trim() == word {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = put(&file, opposite);
                return Err(io::Error::from(io::ErrorKind::TimedOut))
                    .step("set", format!("{} to {word}", file.display()));
            }
            // The v1 freezer tells nobody when it is done.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), OciError> {
        let settings = values::settings(resources);
        // The kernel holds memory ≤ memory+swap at every moment: which of the two must go first depends on the old values.
        let (memory, rest): (Vec<Setting>, Vec<Setting>) = settings
            .into_iter()
            .partition(|setting| setting.file.ends_with("limit_in_bytes") && !setting.file.contains("soft"));
        self.apply(&rest)?;
        if self.apply(&memory).is_err() {
            let reversed: Vec<Setting> = memory.into_iter().rev().collect();
            self.apply(&reversed)?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), OciError> {
        for group in &self.groups {
            tree::remove(&group.folder).step("remove cgroup", group.folder.display())?;
        }
        Ok(())
    }

    pub(crate) fn from_json(value: &Value) -> Option<V1> {
        let group = |value: &Value| {
            Some(Group {
                controllers: value["controllers"].as_str()?.to_owned(),
                folder: tree::stored(&value["folder"])?,
                existed: value["existed"].as_bool()?,
            })
        };
        Some(V1 {
            groups: value.as_array()?.iter().map(group).collect::<Option<_>>()?,
        })
    }
}

/// Makes a folder and what is missing above it; answers whether it was not there. Parents stay when the container goes, as runc
/// leaves them: another container may be on its way into them.
fn make_folder(folder: &Path) -> io::Result<bool> {
    let made = match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(folder.parent().ok_or(error)?)?;
            fs::create_dir(folder)
        }
        other => other,
    };
    match made {
        Ok(()) => Ok(true),
        // It was there, or another start makes a common parent at the same moment.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// A new cpuset is empty, and no process may enter it before it has cpus and memory nodes. Whoever comes first gives them; a parent
/// that another start has just made may have none yet. `new`: nobody has given it any.
fn inherit_cpuset(folder: &Path, new: bool) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |folder: &Path| read_text(folder.join(file));
        if !new && !read(folder)?.trim().is_empty() {
            continue;
        }
        let parent = folder.parent().ok_or(io::ErrorKind::NotFound)?;
        let mut value = read(parent)?;
        if value.trim().is_empty() {
            inherit_cpuset(parent, false)?;
            value = read(parent)?;
        }
        put(&folder.join(file), value.trim())?;
    }
    Ok(())
}

//! cgroup v2: one folder, whose processes are born in it; the controllers are enabled on the way down to it.
//!
//! Invariants: a process is never in a group above a container's (the kernel's rule of leaves), so relative paths are taken
//! beside the caller's own group and not below it; a file that is not there is told with the controller that it needs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::cgroup::events;
use berth_sys::file::read_text;
use berth_sys::{bpf, dir};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use serde_json::{Value, json};

use super::tree::{collect, is_gone, put};
use super::values_v2::{self, Now};
use super::{ROOT, devices, stats, tree};
use crate::error::{Context, OciError};

/// How long the last process may take to leave.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct V2 {
    folder: PathBuf,
    /// It was there before: an undo leaves it.
    existed: bool,
}

impl V2 {
    pub(super) fn plan(path: &str, id: &str) -> Result<V2, OciError> {
        let below = match path.strip_prefix('/') {
            Some(absolute) => PathBuf::from(absolute),
            // The caller sits in its own group, and that must stay a leaf. As runc: beside it.
            None => {
                let own = own_group()?;
                let parent = own.parent().unwrap_or(Path::new("")).to_owned();
                parent.join(if path.is_empty() { id } else { path })
            }
        };
        Ok(V2::at(Path::new(ROOT).join(below)))
    }

    pub(super) fn at(folder: PathBuf) -> V2 {
        let existed = folder.is_dir();
        V2 { folder, existed }
    }

    /// Whether it was made for this container.
    pub(super) fn is_new(&self) -> bool {
        !self.existed
    }

    pub(super) fn make(&self, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        self.refuse_processes()?;
        let done = self.make_folder().and_then(|()| self.limit_new(resources));
        if done.is_err() {
            self.undo();
        }
        done
    }

    pub(super) fn is_there(&self) -> bool {
        self.folder.is_dir()
    }

    /// They would be frozen, limited and killed with the container.
    pub(super) fn refuse_processes(&self) -> Result<(), OciError> {
        let there = self.processes().step("list processes of", "linux.cgroupsPath")?;
        if let Some(pid) = there.first() {
            let value = format!("process {pid} is in it");
            return Err(OciError::field(
                "linux.cgroupsPath",
                value,
                "a cgroup without processes",
            ));
        }
        Ok(())
    }

    /// Makes the folder and what is missing above it, with all controllers that there are enabled on the way.
    pub(super) fn make_folder(&self) -> Result<(), OciError> {
        let below = self.folder.strip_prefix(ROOT).unwrap_or(Path::new(""));
        let mut folder = PathBuf::from(ROOT);
        for part in below {
            enable_all(&folder);
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.step("make cgroup", folder.display())?,
            }
        }
        Ok(())
    }

    /// The limits of a group that nobody has limited before: devices are forbidden but those named, also where none is named.
    pub(super) fn limit_new(&self, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        self.set_devices(rules.unwrap_or_default())?;
        resources.map_or(Ok(()), |resources| self.set(resources))
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> Result<(), OciError> {
        if let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) {
            self.set_devices(rules)?;
        }
        self.set(resources)
    }

    fn set(&self, resources: &LinuxResources) -> Result<(), OciError> {
        for write in values_v2::writes(resources, self)? {
            let path = self.folder.join(&write.file);
            match put(&path, &write.value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && write.optional => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(self.missing(&write.file, &write.value));
                }
                other => other.step("set", format!("{} to {}", path.display(), write.value))?,
            }
        }
        Ok(())
    }

    /// Why a file is not there.
    fn missing(&self, file: &str, value: &str) -> OciError {
        let controller = file.split('.').next().unwrap_or(file);
        let enabled = self.read("cgroup.controllers").unwrap_or_default();
        let what = if enabled.split_whitespace().any(|name| name == controller) {
            format!("{file} of cgroup v2 (for the value {value})")
        } else {
            let folder = self.folder.display();
            format!("{file}={value}: cgroup controller {controller}, which is not available in {folder},")
        };
        OciError::Unsupported { what }
    }

    fn set_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), OciError> {
        let program = bpf::load_device_program(&devices::program(rules)).step("load", "the program of device rules")?;
        let group = self.open()?;
        bpf::set_device_program(group.as_fd(), program.as_fd()).step("set device rules of", self.folder.display())
    }

    /// The folder for CLONE_INTO_CGROUP.
    pub(super) fn open(&self) -> Result<OwnedFd, OciError> {
        dir::open(&self.folder).step("open cgroup", self.folder.display())
    }

    pub(super) fn stats(&self) -> Value {
        stats::v2(&self.folder)
    }

    pub(super) fn join(&self, pid: u32) -> Result<(), OciError> {
        let file = self.folder.join("cgroup.procs");
        put(&file, &pid.to_string()).step("join cgroup", file.display())
    }

    pub(super) fn undo(&self) {
        if !self.existed {
            // What was put into it meanwhile is somebody else's, and then so is the folder.
            let _ = fs::remove_dir(&self.folder);
        }
    }

    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        collect(&self.folder, &mut all)?;
        Ok(all)
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.read("cgroup.freeze").is_ok_and(|text| text.trim() == "1")
    }

    pub(super) fn freeze(&self, frozen: bool, patience: Duration) -> Result<(), OciError> {
        let file = self.folder.join("cgroup.freeze");
        let word = |frozen| if frozen { "1" } else { "0" };
        let what = || format!("{} to {}", file.display(), word(frozen));
        put(&file, word(frozen)).step("set", what())?;
        let done = events::wait(&self.folder, "frozen", frozen.into(), patience);
        if done.is_err() {
            let _ = put(&file, word(!frozen));
        }
        done.step("set", what())
    }

    /// SIGKILL to all at once, those that are frozen or being forked among them.
    pub(super) fn kill(&self) -> io::Result<()> {
        match put(&self.folder.join("cgroup.kill"), "1") {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    pub(super) fn remove(&self) -> Result<(), OciError> {
        // A process that has just been reaped may still count for a moment.
        let _ = events::wait(&self.folder, "populated", 0, PATIENCE);
        tree::remove(&self.folder).step("remove cgroup", self.folder.display())
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"folder": self.folder, "existed": self.existed})
    }

    pub(super) fn from_json(value: &Value) -> Option<V2> {
        Some(V2 {
            folder: tree::stored(&value["folder"])?,
            existed: value["existed"].as_bool()?,
        })
    }
}

impl Now for V2 {
    fn read(&self, file: &str) -> io::Result<String> {
        read_text(self.folder.join(file))
    }
}

/// The caller's own group, below the mount.
pub(super) fn own_group() -> Result<PathBuf, OciError> {
    group_of("self")
}

/// The group of a process, below the mount.
pub(super) fn group_of(pid: &str) -> Result<PathBuf, OciError> {
    let path = format!("/proc/{pid}/cgroup");
    let text = read_text(&path).step("read", &path)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Ok(PathBuf::from(own.trim_start_matches('/')))
}

/// Enables all controllers for the groups below. One that can't be is missed only by who asks for it, and told then.
fn enable_all(folder: &Path) {
    let read = |file: &str| read_text(folder.join(file)).unwrap_or_default();
    let (there, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let missing: Vec<&str> = there
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|known| known == *name))
        .collect();
    if missing.is_empty() {
        return;
    }
    let file = folder.join("cgroup.subtree_control");
    let all = missing
        .iter()
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ");
    if put(&file, &all).is_err() {
        for name in missing {
            let _ = put(&file, &format!("+{name}"));
        }
    }
}

/// The folder of the group that the init process has moved itself into, for when the container's own has become an inner one.
pub(super) fn open_group_of(pid: u32) -> Result<OwnedFd, OciError> {
    let folder = Path::new(ROOT).join(group_of(&pid.to_string())?);
    File::open(&folder)
        .map(OwnedFd::from)
        .step("open cgroup", folder.display())
}

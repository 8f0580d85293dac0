//! cgroup v1 (also the controllers of a hybrid machine): one folder a controller, one write a process and controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::values::{self, Setting};
use crate::error::{Context, OciError};

/// Where one controller's hierarchy is, and this container's folder in it.
#[derive(Debug)]
struct Group {
    /// As /proc/PID/cgroup names it: "cpu,cpuacct", "name=systemd".
    controllers: String,
    folder: PathBuf,
    /// Folders that did not exist before, topmost first.
    made: Vec<PathBuf>,
}

/// The container's folders in all mounted hierarchies.
#[derive(Debug)]
pub struct V1 {
    groups: Vec<Group>,
}

const ROOT: &str = "/sys/fs/cgroup";

impl V1 {
    pub(crate) fn create(path: &str, id: &str, resources: Option<&LinuxResources>) -> Result<V1, OciError> {
        let mut this = V1 { groups: Vec::new() };
        let done = this.make_folders(path, id).and_then(|()| match resources {
            Some(resources) => this.apply(&values::settings(resources)),
            None => Ok(()),
        });
        match done {
            Ok(()) => Ok(this),
            Err(error) => {
                this.undo();
                Err(error)
            }
        }
    }

    fn make_folders(&mut self, path: &str, id: &str) -> Result<(), OciError> {
        let own = fs::read_to_string("/proc/self/cgroup").step("read", "/proc/self/cgroup")?;
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
            let made = make_path(&mount, &folder, controllers).step("make cgroup", folder.display())?;
            self.groups.push(Group {
                controllers: controllers.to_owned(),
                folder,
                made,
            });
        }
        Ok(())
    }

    /// Writes settings in order.
    ///
    /// # Errors
    /// A controller that is not mounted, or a value that the kernel refuses.
    pub(crate) fn apply(&self, settings: &[Setting]) -> Result<(), OciError> {
        for setting in settings {
            let folder = self.folder(setting.controller).ok_or_else(|| OciError::Unsupported {
                what: format!(
                    "cgroup controller {} (for {}={})",
                    setting.controller, setting.file, setting.value
                ),
            })?;
            let file = folder.join(&setting.file);
            write(&file, &setting.value).step("set", format!("{} to {}", file.display(), setting.value))?;
        }
        Ok(())
    }

    fn folder(&self, controller: &str) -> Option<&Path> {
        let has = |group: &&Group| group.controllers.split(',').any(|name| name == controller);
        self.groups.iter().find(has).map(|group| group.folder.as_path())
    }

    pub(crate) fn join(&self, pid: u32) -> Result<(), OciError> {
        let pid = pid.to_string();
        for group in &self.groups {
            let file = group.folder.join("cgroup.procs");
            write(&file, &pid).step("join cgroup", file.display())?;
        }
        Ok(())
    }

    pub(crate) fn undo(&self) {
        for folder in self.groups.iter().flat_map(|group| group.made.iter().rev()) {
            // Somebody else may have put a cgroup into one that we made: then it is theirs now.
            let _ = fs::remove_dir(folder);
        }
    }

    pub(crate) fn paths(&self) -> Vec<(String, String)> {
        let pair = |group: &Group| (group.controllers.clone(), group.folder.display().to_string());
        self.groups.iter().map(pair).collect()
    }
}

/// Makes every missing folder down to `folder`. A new cpuset must be given cpus and memory nodes before a process may enter.
fn make_path(mount: &Path, folder: &Path, controllers: &str) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let cpuset = controllers.split(',').any(|name| name == "cpuset");
    // The common case: only the last one is missing.
    let parent_is_there = folder.parent().is_some_and(Path::is_dir);
    let steps: Vec<&Path> = if parent_is_there {
        vec![folder]
    } else {
        let mut steps: Vec<&Path> = folder.ancestors().take_while(|step| *step != mount).collect();
        steps.reverse();
        steps
    };
    for step in steps {
        match fs::create_dir(step) {
            Ok(()) => made.push(step.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        if cpuset {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = step.parent().unwrap_or(mount).join(file);
                write(&step.join(file), fs::read_to_string(parent)?.trim())?;
            }
        }
    }
    Ok(made)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    // One write(2): a cgroup file takes a value whole or not at all; O_CREAT would hide a missing file.
    fs::OpenOptions::new()
        .write(true)
        .open(file)?
        .write_all(value.as_bytes())
}

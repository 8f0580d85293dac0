//! What is done to a cgroup: listing, freezing, killing, making and removing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Group, Hierarchies, Version, parse};
use crate::process;

/// How often killing looks for processes that were forked meanwhile.
const PASSES: usize = 50;
/// Between two looks at a group that somebody is still in.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Group {
    /// All processes of this group and of those below it, in no order. Empty if the group is gone.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for folder in tree(self.main_folder()?) {
            match std::fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => found.extend(parse::pids(&text)),
                Err(error) if is_gone(&error) => {}
                // A threaded group of v2 lists its processes in the group above it.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Whether its processes are frozen, or about to be.
    pub fn is_frozen(&self) -> io::Result<bool> {
        match self.version {
            Version::V2 => {
                let folder = self.main_folder()?;
                let text = std::fs::read_to_string(folder.join("cgroup.freeze"))?;
                Ok(parse::number(&text) == Some(1))
            }
            Version::V1 | Version::Hybrid => match self.folder("freezer") {
                Some(folder) => Ok(std::fs::read_to_string(folder.join("freezer.state"))?.trim() != "THAWED"),
                None => Ok(false),
            },
        }
    }

    /// Freezes or thaws; does not wait for it.
    pub fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        self.refuse_own()?;
        match self.version {
            Version::V2 => write(
                &self.main_folder()?.join("cgroup.freeze"),
                if frozen { "1" } else { "0" },
            ),
            Version::V1 | Version::Hybrid => {
                let folder = self
                    .folder("freezer")
                    .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
                write(&folder.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
            }
        }
    }

    /// Signals every process of this group and below it; each is held by pidfd and looked at again before. Answers how many there
    /// were. Processes that are forked meanwhile may be missed.
    pub fn signal_all(&self, hierarchies: &Hierarchies, signal: i32) -> io::Result<usize> {
        self.refuse_own()?;
        let mut count = 0;
        for pid in self.pids()? {
            let Ok(pidfd) = process::pidfd_open(pid) else { continue };
            // Between the list and the pidfd the number may have become another's.
            let ours = hierarchies.group_of(pid).is_ok_and(|group| self.holds(&group));
            if ours && process::pidfd_send_signal(&pidfd, signal).is_ok() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// SIGKILL to every process, those that are forked meanwhile among them, and thaws so that it is received. Does not wait for the
    /// ends. Can be repeated.
    pub fn kill(&self, hierarchies: &Hierarchies) -> io::Result<()> {
        self.refuse_own()?;
        if let Some(folder) = self.unified.as_deref().filter(|_| self.version == Version::V2) {
            match write(&folder.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // Linux before 5.14, or a threaded group: one by one.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        // A frozen process of v1 dies when it is thawed; freezing first keeps others from forking away, but may wait for a process in
        // the D state. So they are signalled until a pass finds nobody new.
        let mut known: Vec<u32> = Vec::new();
        for _ in 0..PASSES {
            let mut pids = self.pids()?;
            pids.retain(|pid| !known.contains(pid));
            if pids.is_empty() {
                break;
            }
            self.signal_all(hierarchies, libc::SIGKILL)?;
            known.append(&mut pids);
        }
        if self.is_frozen().unwrap_or(false) {
            self.set_frozen(false)
        } else {
            Ok(())
        }
    }

    /// Removes the group and those below it under every hierarchy. ResourceBusy (EBUSY) while a process is in it. Nothing there =
    /// done; the first failure is told after all were tried.
    pub fn remove(&self) -> io::Result<()> {
        self.refuse_own()?;
        let mut result = Ok(());
        for folder in self.folders() {
            // Deepest first.
            for folder in tree(folder).iter().rev() {
                match std::fs::remove_dir(folder) {
                    Err(error) if !is_gone(&error) && result.is_ok() => result = Err(error),
                    _ => {}
                }
            }
        }
        result
    }

    /// Removes its own folders where neither a process nor another group is in them; those that a dying process is still in are tried
    /// again until then.
    pub fn remove_empty(&self, until: Instant) -> io::Result<()> {
        self.refuse_own()?;
        let busy = |folder: &&Path| {
            std::fs::remove_dir(folder).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        };
        while self.folders().into_iter().filter(busy).count() > 0 && Instant::now() < until {
            // cgroup v1 tells nobody when the last process has left a group.
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// [`Group::remove`], tried again until then while a dying process is in it.
    pub fn remove_by(&self, until: Instant) -> io::Result<()> {
        loop {
            match self.remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                    // cgroup v1 tells nobody when the last process has left a group.
                    std::thread::sleep(LOOK_AGAIN);
                }
                done => return done,
            }
        }
    }

    /// Makes a group below this one under every hierarchy. One that is there is used.
    pub fn make_below(&self, name: &str) -> io::Result<Self> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let make = |folder: &PathBuf| -> io::Result<PathBuf> {
            let new = folder.join(name);
            match std::fs::create_dir(&new) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(new),
            }
        };
        let mut v1 = std::collections::BTreeMap::new();
        for (controller, folder) in &self.v1 {
            let new = make(folder)?;
            if controller == "cpuset" {
                inherit_cpuset(folder, &new)?;
            }
            v1.insert(controller.clone(), new);
        }
        let unified = self.unified.as_ref().map(make).transpose()?;
        let name = format!("{}/{name}", self.name.trim_end_matches('/'));
        Ok(Self {
            version: self.version,
            name,
            v1,
            unified,
        })
    }

    /// Moves a process into it, under every hierarchy.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.folders()
            .iter()
            .try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    /// Whether the other one is this one or below it.
    #[must_use]
    pub fn holds(&self, other: &Group) -> bool {
        match (self.main_folder(), other.main_folder()) {
            (Ok(ours), Ok(theirs)) => theirs.starts_with(ours),
            _ => false,
        }
    }

    /// Whether it is a container's alone: no root of a hierarchy, and neither the caller's own nor above it.
    #[must_use]
    pub fn is_its_own(&self) -> bool {
        self.refuse_own().is_ok()
    }

    /// Nobody shall freeze, kill or remove what the caller itself is in, nor a hierarchy's root.
    fn refuse_own(&self) -> io::Result<()> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let prefix = self.name.trim_end_matches('/');
        let above = |path: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let counts = |controllers: &str| match self.version {
            Version::V2 => controllers.is_empty(),
            Version::V1 | Version::Hybrid => controllers.split(',').any(|controller| controller == "memory"),
        };
        if prefix.is_empty() || parse::membership(&own).any(|(controllers, path)| counts(controllers) && above(path)) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the cgroup is not a container's alone",
            ));
        }
        Ok(())
    }
}

/// A folder and those below it, each before what is in it. What vanishes meanwhile is left out.
pub(super) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        next += 1;
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let folders = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|entry| entry.path()).collect::<Vec<_>>());
    }
    found
}

/// A new v1 cpuset is empty, and no process may join it.
fn inherit_cpuset(parent: &Path, new: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if std::fs::read_to_string(new.join(name))?.trim().is_empty() {
            write(&new.join(name), std::fs::read_to_string(parent.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// One write(2), as cgroup files want it; the file is never made.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

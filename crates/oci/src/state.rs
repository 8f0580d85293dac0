//! What the runtime keeps of a container between two calls: a folder `ROOT/ID` with `state.json` (readable by outside
//! programs, in the form of the specification's state plus our own part), `config.json` (the spec it was made from, for
//! `exec`), and `start` (the socket where the init process waits for its start).
//!
//! Invariants: the folder is made before anything else and removed after everything else, so that what a crash left can be
//! found; a stored pid is used only after its start time was compared.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::{dir, file, process};
use oci_spec::runtime::Spec;
use serde::Serialize;
use serde_json::Value;

use crate::cgroup::Cgroups;
use crate::error::{Context, OciError};

/// A container that this runtime knows.
#[derive(Debug)]
pub struct Container {
    folder: PathBuf,
    pub id: String,
    pub bundle: PathBuf,
    pub pid: u32,
    pub start_time: u64,
    pub cgroups: Cgroups,
}

/// The states of the specification, and `Paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// As state.json says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// state.json; [`Container::load`] reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateFile<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: u32,
    bundle: &'a Path,
    berth: OwnPart<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnPart<'a> {
    version: u32,
    start_time: u64,
    cgroups: &'a Cgroups,
}

const SOCKET: &str = "start";
const LIMIT: u64 = 16 << 20;

/// Claims an id below `root`: the folder is the lock.
///
/// # Errors
/// An id that is in use, or one that is no single path component.
pub(crate) fn claim(root: &Path, id: &str) -> Result<PathBuf, OciError> {
    check_id(id)?;
    dir::make_all(root, 0o711).step("make", root.display())?;
    let folder = root.join(id);
    match fs::create_dir(&folder) {
        Ok(()) => Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(OciError::Exists { id: id.to_owned() }),
        Err(error) => Err(error).step("make", folder.display()),
    }
}

pub(crate) fn check_id(id: &str) -> Result<(), OciError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_+-.:".contains(c);
    if id.is_empty() || id.len() > 255 || matches!(id, "." | "..") || !id.chars().all(legal) {
        return Err(OciError::field(
            "id",
            format!("{id:?}"),
            "1 to 255 letters, digits, or _ + - . :",
        ));
    }
    Ok(())
}

/// The listening socket of a claimed folder.
pub(crate) fn listen(folder: &Path) -> Result<OwnedFd, OciError> {
    use std::os::fd::AsFd;
    let opened = dir::open(folder).step("open", folder.display())?;
    berth_sys::socket::listen_at(opened.as_fd(), SOCKET, 0o600).step("listen in", folder.display())
}

impl Container {
    /// One that has no process yet.
    pub(crate) fn new(folder: PathBuf, id: &str, bundle: &Path, cgroups: Cgroups) -> Self {
        Container {
            folder,
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            pid: 0,
            start_time: 0,
            cgroups,
        }
    }

    pub(crate) fn save(&self, spec: &[u8]) -> Result<(), OciError> {
        let opened = dir::open(&self.folder).step("open", self.folder.display())?;
        file::write_aside(&opened, "config.json", spec, 0o600).step("write", "config.json")?;
        self.save_state(&opened)
    }

    fn save_state(&self, opened: &OwnedFd) -> Result<(), OciError> {
        let state = StateFile {
            oci_version: crate::SPEC_VERSION,
            id: &self.id,
            pid: self.pid,
            bundle: &self.bundle,
            berth: OwnPart {
                version: 1,
                start_time: self.start_time,
                cgroups: &self.cgroups,
            },
        };
        let text = serde_json::to_vec_pretty(&state).map(|mut text| {
            text.push(b'\n');
            text
        });
        text.map_err(io::Error::from)
            .and_then(|text| file::write_aside(opened, "state.json", &text, 0o600))
            .step("write", "state.json")
    }

    pub(crate) fn has_init(&mut self, pid: u32, start_time: u64) -> Result<(), OciError> {
        (self.pid, self.start_time) = (pid, start_time);
        self.save_state(&dir::open(&self.folder).step("open", self.folder.display())?)
    }

    /// Finds a container below `root`.
    ///
    /// # Errors
    /// [`OciError::NotFound`]; a state.json that is damaged or from a later version.
    pub fn load(root: &Path, id: &str) -> Result<Container, OciError> {
        check_id(id)?;
        let folder = root.join(id);
        let path = folder.join("state.json");
        let text = match file::read(&path, LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OciError::NotFound { id: id.to_owned() });
            }
            Err(error) => return Err(error).step("read", path.display()),
        };
        let state: Value = serde_json::from_slice(&text).map_err(|source| OciError::Json {
            path: path.display().to_string(),
            source,
        })?;
        let damaged = || OciError::field(path.display().to_string(), "damaged", "a state.json of this runtime");
        let ours = &state["berth"];
        if ours["version"] != 1 {
            return Err(damaged());
        }
        Ok(Container {
            id: id.to_owned(),
            bundle: state["bundle"].as_str().map(PathBuf::from).ok_or_else(damaged)?,
            pid: state["pid"]
                .as_u64()
                .and_then(|pid| u32::try_from(pid).ok())
                .ok_or_else(damaged)?,
            start_time: ours["startTime"].as_u64().ok_or_else(damaged)?,
            cgroups: Cgroups::from_json(&ours["cgroups"]).ok_or_else(damaged)?,
            folder,
        })
    }

    /// The spec that the container was made from.
    ///
    /// # Errors
    /// The copy is missing or damaged.
    pub fn spec(&self) -> Result<Spec, OciError> {
        let path = self.folder.join("config.json");
        let text = file::read(&path, LIMIT).step("read", path.display())?;
        // What is left out was told at the making.
        crate::parse::parse(&text, &path.display().to_string(), &mut |_| {})
    }

    /// When it was made.
    pub(crate) fn created(&self) -> Result<std::time::SystemTime, OciError> {
        // Written once.
        let path = self.folder.join("config.json");
        let found = fs::metadata(&path).and_then(|metadata| metadata.modified());
        found.step("look at", path.display())
    }

    /// The init process, if it still is the one that was made.
    ///
    /// # Errors
    /// As pidfd_open(2).
    pub fn init(&self) -> Result<Option<OwnedFd>, OciError> {
        if self.pid == 0 {
            return Ok(None);
        }
        let opened = process::open_known(self.pid, self.start_time).step("open init process", self.pid)?;
        match opened {
            Some(pidfd) if process::has_ended(&pidfd).step("look at init process", self.pid)? => Ok(None),
            other => Ok(other),
        }
    }

    /// # Errors
    /// As [`Container::init`].
    pub fn status(&self) -> Result<Status, OciError> {
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.cgroups.is_frozen() {
            return Ok(Status::Paused);
        }
        Ok(if self.folder.join(SOCKET).exists() {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// The waiting init process's ear.
    pub(crate) fn connect(&self) -> Result<OwnedFd, OciError> {
        use std::os::fd::AsFd;
        let opened = dir::open(&self.folder).step("open", self.folder.display())?;
        berth_sys::socket::connect_at(opened.as_fd(), SOCKET, false).step("start", &self.id)
    }

    /// After the start: nobody listens any more.
    pub(crate) fn started(&self) -> Result<(), OciError> {
        let opened = dir::open(&self.folder).step("open", self.folder.display())?;
        file::unlink_at(&opened, SOCKET).step("remove", SOCKET)
    }
}

/// Removes a container's folder, known or half made.
pub(crate) fn forget(root: &Path, id: &str) -> Result<(), OciError> {
    let opened = match dir::open(root) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).step("open", root.display()),
    };
    match dir::remove_tree(&opened, id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.step("remove", root.join(id).display()),
    }
}

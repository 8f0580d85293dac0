//! One container's folder, by descriptor: its records are read bounded and replaced whole.
//!
//! An exit can't be lost to a full disk: its space is kept from the creation on (`*.reserve`), written over and renamed into place. The
//! number that the daemon gave it is written into a small file (`*.seq`) that is kept blank from the beginning, likewise.
//! The daemon writes `container.json` and `*.seq`, the shim the rest; each name has one writer, so no lock is needed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_core::ContainerKey;
use berth_sys::{dir, file};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::layout::folder_name;
use crate::types::{ContainerRecord, ExecRecord, ExitRecord, ShimRecord};
use crate::{Error, Layout, envelope};

/// The shim's listening socket in the folder.
pub const SOCKET: &str = "shim.sock";

const CONTAINER: &str = "container.json";
const SHIM: &str = "shim.json";
const EXIT: &str = "exit";
const MODE: u32 = 0o600;
/// A record with the longest message fits.
const RESERVED: usize = 4096;
/// A number and a newline fit.
const SEQ_RESERVED: usize = 32;

#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Only for messages.
    path: PathBuf,
}

impl Folder {
    /// Makes the folder of a new container; AlreadyExists if the id is in use.
    pub fn create(layout: &Layout, key: &ContainerKey) -> Result<Self, Error> {
        let path = layout.container(key);
        let parent = dir::open_path(&layout.containers()).map_err(Error::io("open folder", layout.containers()))?;
        let fd = dir::make_new_at(parent, folder_name(key), 0o700).map_err(Error::io("make folder", &path))?;
        Ok(Self { fd, path })
    }

    pub fn open(layout: &Layout, key: &ContainerKey) -> Result<Self, Error> {
        let path = layout.container(key);
        let parent = dir::open_path(&layout.containers()).map_err(Error::io("open folder", layout.containers()))?;
        let fd = dir::open_at(parent, folder_name(key)).map_err(Error::io("open folder", &path))?;
        Ok(Self { fd, path })
    }

    /// The shim's way: it was given the descriptor. `name` is for messages.
    #[must_use]
    pub fn from_fd(fd: OwnedFd, name: impl Into<PathBuf>) -> Self {
        Self { fd, path: name.into() }
    }

    /// Removes a container's folder with all that is in it, following no link. Nothing there = done.
    pub fn remove(layout: &Layout, key: &ContainerKey) -> Result<(), Error> {
        let containers = layout.containers();
        let parent = dir::open_path(&containers).map_err(Error::io("open folder", &containers))?;
        dir::remove_tree(parent, folder_name(key)).map_err(Error::io("remove folder", layout.container(key)))
    }

    /// `None` if it was never written: a folder that is half made.
    pub fn container(&self) -> Result<Option<ContainerRecord>, Error> {
        self.read(CONTAINER)
    }

    pub fn write_container(&self, record: &ContainerRecord) -> Result<(), Error> {
        self.write(CONTAINER, record)
    }

    /// `None` if no shim has served yet.
    pub fn shim(&self) -> Result<Option<ShimRecord>, Error> {
        self.read(SHIM)
    }

    pub fn write_shim(&self, record: &ShimRecord) -> Result<(), Error> {
        self.write(SHIM, record)
    }

    /// Keeps the space of the init's exit. Before the container is made. Can be repeated.
    pub fn reserve_exit(&self) -> Result<(), Error> {
        self.reserve(EXIT)
    }

    /// Once; needs no space if it was reserved.
    pub fn write_exit(&self, record: &ExitRecord) -> Result<(), Error> {
        self.finish(EXIT, record)
    }

    /// `None` = it has not ended, or nobody saw it.
    pub fn exit(&self) -> Result<Option<ExitRecord>, Error> {
        self.read(&format!("{EXIT}.json"))
    }

    /// Notes the number under which the init's exit is in the journal.
    pub fn write_exit_seq(&self, number: u64) -> Result<(), Error> {
        self.write_seq(EXIT, number)
    }

    /// `None` = its exit is not in the journal yet, as far as this file knows.
    pub fn exit_seq(&self) -> Result<Option<u64>, Error> {
        self.seq(EXIT)
    }

    /// Keeps the space of an exec's exit. Before its process is made.
    pub fn reserve_exec(&self, exec_id: &str) -> Result<(), Error> {
        self.reserve(&exec_stem(exec_id))
    }

    /// A running exec.
    pub fn write_exec(&self, record: &ExecRecord) -> Result<(), Error> {
        self.write(&format!("{}.json", exec_stem(&record.exec_id)), record)
    }

    /// An ended exec, with its exit; needs no space if it was reserved.
    pub fn write_exec_exit(&self, record: &ExecRecord) -> Result<(), Error> {
        self.finish(&exec_stem(&record.exec_id), record)
    }

    pub fn exec(&self, exec_id: &str) -> Result<Option<ExecRecord>, Error> {
        self.read(&format!("{}.json", exec_stem(exec_id)))
    }

    pub fn write_exec_seq(&self, exec_id: &str, number: u64) -> Result<(), Error> {
        self.write_seq(&exec_stem(exec_id), number)
    }

    pub fn exec_seq(&self, exec_id: &str) -> Result<Option<u64>, Error> {
        self.seq(&exec_stem(exec_id))
    }

    /// Removes all that is kept of an exec. Nothing there = done.
    pub fn remove_exec(&self, exec_id: &str) -> Result<(), Error> {
        let stem = exec_stem(exec_id);
        for suffix in ["json", "reserve", "seq"] {
            let name = format!("{stem}.{suffix}");
            file::unlink_at(&self.fd, &name).map_err(Error::io("remove", self.path.join(&name)))?;
        }
        Ok(())
    }

    /// Ids of the execs that have a record, in order.
    pub fn exec_ids(&self) -> Result<Vec<String>, Error> {
        let entries = dir::entries(&self.fd).map_err(Error::io("list", &self.path))?;
        let id = |entry: dir::Entry| {
            let name = entry.name.to_str()?;
            name.strip_prefix("exec-")?.strip_suffix(".json").map(str::to_owned)
        };
        let mut ids: Vec<String> = entries.into_iter().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        let bytes = match file::read_at(&self.fd, name, envelope::MAX_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read record", path)(error)),
        };
        envelope::decode(&bytes)
            .map(Some)
            .map_err(|source| Error::Broken { path, source })
    }

    fn encode(&self, name: &str, record: &impl Serialize) -> Result<Vec<u8>, Error> {
        let content = |problem: String| Error::Content {
            path: self.path.join(name),
            problem,
        };
        let bytes = envelope::encode(record).map_err(|error| content(error.to_string()))?;
        if bytes.len() as u64 > envelope::MAX_LEN {
            return Err(content(format!(
                "it would be {} bytes long, at most {}",
                bytes.len(),
                envelope::MAX_LEN
            )));
        }
        Ok(bytes)
    }

    fn write(&self, name: &str, record: &impl Serialize) -> Result<(), Error> {
        let bytes = self.encode(name, record)?;
        file::write_aside(&self.fd, name, &bytes, MODE).map_err(Error::io("write record", self.path.join(name)))
    }

    fn reserve(&self, stem: &str) -> Result<(), Error> {
        for (suffix, size) in [("reserve", RESERVED), ("seq", SEQ_RESERVED)] {
            let name = format!("{stem}.{suffix}");
            file::reserve(&self.fd, &name, size, MODE).map_err(Error::io("reserve", self.path.join(&name)))?;
        }
        Ok(())
    }

    /// Over the reserved file, then into place: at every moment there is the old record or the whole new one. Can be repeated: the
    /// second time there is nothing reserved any more and the plain way is tried.
    fn finish(&self, stem: &str, record: &impl Serialize) -> Result<(), Error> {
        let (reserved, name) = (format!("{stem}.reserve"), format!("{stem}.json"));
        let bytes = self.encode(&name, record)?;
        let done = match file::overwrite(&self.fd, &reserved, &bytes) {
            Ok(()) => file::rename_at(&self.fd, &reserved, &name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                file::write_aside(&self.fd, &name, &bytes, MODE)
            }
            Err(error) => Err(error),
        };
        done.map_err(Error::io("write record", self.path.join(name)))
    }

    fn write_seq(&self, stem: &str, number: u64) -> Result<(), Error> {
        let name = format!("{stem}.seq");
        // As long as the blanks: one write over one block, which a SIGKILL can't cut, and no space is needed.
        let text = format!("{number:<width$}\n", width = SEQ_RESERVED - 1);
        let done = match file::overwrite(&self.fd, &name, text.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                file::write_aside(&self.fd, &name, text.as_bytes(), MODE)
            }
            other => other,
        };
        done.map_err(Error::io("write", self.path.join(name)))
    }

    fn seq(&self, stem: &str) -> Result<Option<u64>, Error> {
        let name = format!("{stem}.seq");
        match file::read_at(&self.fd, &name, 4096) {
            Ok(bytes) => Ok(std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", self.path.join(name))(error)),
        }
    }
}

fn exec_stem(exec_id: &str) -> String {
    format!("exec-{exec_id}")
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

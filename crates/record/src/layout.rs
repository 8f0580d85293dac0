//! Where everything lies.
//!
//! ```text
//! STATE/ 0711      daemon.lock  berthd.sock  events/  c/NS:ID/ 0700  seccomp/ 0700
//!                  io.containerd.runtime.v2.task/NS/ID/ 0700   bundles made for containerd's API, where containerd has them
//! ROOT/  0711      logs/NS:ID/ 0700
//! ```
//!
//! Names follow containerd's rule (at most 76 letters, digits, `.`, `_`, `-`), so `:` joins two of them in one way only, and none of
//! them can lead out of its folder.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_core::ContainerKey;
use berth_sys::{dir, file};

use crate::Error;

/// Of compiled seccomp programs, in the state folder; whoever has a container's folder finds it two folders above.
pub const FILTERS: &str = "seccomp";

/// The two folders of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    root: PathBuf,
}

/// Held while a daemon runs; the lock goes with it.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

impl Layout {
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, root: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            root: root.into(),
        }
    }

    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Default of `--address`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join("berthd.sock")
    }

    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// The event journal's folder.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.state.join("events")
    }

    /// The folder of the containers' folders.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.state.join("c")
    }

    #[must_use]
    pub fn container(&self, key: &ContainerKey) -> PathBuf {
        self.containers().join(folder_name(key))
    }

    /// The folder of the bundles that the daemon makes itself.
    #[must_use]
    pub fn bundles(&self) -> PathBuf {
        self.state.join("io.containerd.runtime.v2.task")
    }

    /// The bundle that the daemon makes for a container of containerd's API.
    #[must_use]
    pub fn bundle(&self, key: &ContainerKey) -> PathBuf {
        self.bundles().join(key.namespace.as_str()).join(key.id.as_str())
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Folder of a container's log.
    #[must_use]
    pub fn log_dir(&self, key: &ContainerKey) -> PathBuf {
        self.logs().join(folder_name(key))
    }

    /// Makes the folders that are missing, with their modes whatever the umask.
    pub fn prepare(&self) -> Result<(), Error> {
        let make = |path: &Path, mode| dir::make_all(path, mode).map_err(Error::io("make folder", path));
        let inside = |parent: &OwnedFd, of: &Path, name: &str, mode| {
            dir::make_at(parent, name, mode).map_err(Error::io("make folder", of.join(name)))
        };
        let state = make(&self.state, 0o711)?;
        inside(&state, &self.state, "c", 0o711)?;
        inside(&state, &self.state, "events", 0o700)?;
        let root = make(&self.root, 0o711)?;
        inside(&root, &self.root, "logs", 0o711)?;
        Ok(())
    }

    /// Takes the state folder for this daemon; a second one gets [`Error::Locked`].
    pub fn lock(&self) -> Result<Lock, Error> {
        let state = dir::open(&self.state).map_err(Error::io("open folder", &self.state))?;
        let path = self.lock_file();
        let lock = file::create_at(&state, "daemon.lock", file::Open::ReadWrite, 0o600)
            .map_err(Error::io("open lock", &path))?;
        if !file::try_lock(&lock).map_err(Error::io("lock", &path))? {
            return Err(Error::Locked {
                path: self.state.clone(),
            });
        }
        Ok(Lock { _file: lock })
    }
}

/// `NS:ID`.
#[must_use]
pub fn folder_name(key: &ContainerKey) -> String {
    format!("{}:{}", key.namespace, key.id)
}

/// The key of a folder of ours; `None` for anything else that may lie there.
#[must_use]
pub fn parse_folder_name(name: &str) -> Option<ContainerKey> {
    let (namespace, id) = name.split_once(':')?;
    // An empty namespace would be taken for the default one.
    if namespace.is_empty() {
        None
    } else {
        ContainerKey::parse(namespace, id).ok()
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_round_trip(
            namespace in "[a-zA-Z0-9]{1,8}([._-][a-zA-Z0-9]{1,8}){0,4}",
            id in "[a-zA-Z0-9]{1,8}([._-][a-zA-Z0-9]{1,8}){0,4}",
        ) {
            let key = ContainerKey::parse(&namespace, &id).unwrap();
            prop_assert_eq!(parse_folder_name(&folder_name(&key)), Some(key));
        }

        #[test]
        fn any_name_parses_or_is_not_ours(name: String) {
            if let Some(key) = parse_folder_name(&name) {
                prop_assert_eq!(folder_name(&key), name);
            }
        }
    }
}

//! The container folders beyond what `berth_record` does with one: the way out.
//!
//! A folder that is to go is renamed first, from `NS:ID` to `NS:ID~INCARNATION`: one step that frees the id and marks the rest
//! as removable by whoever finds it. What can't be removed yet stays under that name until it can.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_core::ContainerKey;
use berth_record::{Folder, Layout, folder_name, parse_folder_name};
use berth_sys::{dir, file};

/// A folder on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tomb {
    pub(crate) key: ContainerKey,
    name: String,
}

impl Tomb {
    /// `None` for any other name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (folder, incarnation) = name.split_once('~')?;
        let digits = incarnation.len() == 32 && incarnation.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Self {
            key: parse_folder_name(folder).filter(|_| digits)?,
            name: name.to_owned(),
        })
    }

    pub(crate) fn path(&self, layout: &Layout) -> PathBuf {
        layout.containers().join(&self.name)
    }

    pub(crate) fn open(&self, layout: &Layout) -> io::Result<Arc<Folder>> {
        let fd = dir::open_at(parent(layout)?, &self.name)?;
        Ok(Arc::new(Folder::from_fd(fd, self.path(layout))))
    }

    /// Removes what is left in it, and it. Nothing there = done.
    pub(crate) fn remove(&self, layout: &Layout) -> io::Result<()> {
        match dir::remove_tree(parent(layout)?, &self.name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn parent(layout: &Layout) -> io::Result<OwnedFd> {
    dir::open_path(&layout.containers())
}

/// Frees the id. Nothing there = done.
pub(crate) fn bury(layout: &Layout, key: &ContainerKey, incarnation: &str) -> io::Result<Tomb> {
    let tomb = Tomb {
        key: key.clone(),
        name: format!("{}~{incarnation}", folder_name(key)),
    };
    match file::rename_at(parent(layout)?, folder_name(key), &tomb.name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(tomb),
    }
}

/// Makes the folder of a container's log. On a disk that may be slow.
pub(crate) fn make_log(layout: &Layout, key: &ContainerKey) -> io::Result<()> {
    let logs = dir::open_path(&layout.logs())?;
    dir::make_at(logs, folder_name(key), 0o700).map(drop)
}

/// Removes a container's log. On a disk that may be slow. Nothing there = done.
pub(crate) fn remove_log(layout: &Layout, key: &ContainerKey) -> io::Result<()> {
    match dir::remove_tree(dir::open_path(&layout.logs())?, folder_name(key)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names() {
        let name = format!("ns:a~{}", "0f".repeat(16));
        assert_eq!(Tomb::parse(&name).unwrap().key, ContainerKey::parse("ns", "a").unwrap());
        for bad in ["ns:a", "ns:a~", "ns:a~xyz", "~00", &format!("a~{}", "0f".repeat(16))] {
            assert_eq!(Tomb::parse(bad), None, "{bad}");
        }
    }
}

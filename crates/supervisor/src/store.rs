//! The container folders beyond what `berth_record` does with one: the way out.
//!
//! A folder that is to go is renamed first, from `NS:ID` to `NS:ID~INCARNATION`: one step that frees the id and marks the rest
//! as removable by whoever finds it. What can't be removed yet stays under that name until it can. Likewise a log's folder. Where
//! nothing is left that bears the container's name (its cgroup, its runtime's state, its bundle) the folder's ends in `.empty`: by
//! then they may be those of the next container of this id.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_core::{ContainerKey, Stdio, StdioTo};
use berth_record::{ContainerRecord, Folder, Layout, folder_name, parse_folder_name};
use berth_sys::{dir, file, mounts};

use crate::types::MadeBundle;

/// A folder on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tomb {
    pub(crate) key: ContainerKey,
    /// Nothing that bears the container's name is left.
    pub(crate) empty: bool,
    name: String,
}

const EMPTY: &str = ".empty";

impl Tomb {
    /// `None` for any other name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (folder, rest) = name.split_once('~')?;
        let incarnation = rest.strip_suffix(EMPTY).unwrap_or(rest);
        let digits = incarnation.len() == 32 && incarnation.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Self {
            key: parse_folder_name(folder).filter(|_| digits)?,
            empty: rest.ends_with(EMPTY),
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
        absent_is_done(dir::remove_tree(parent(layout)?, &self.name))
    }
}

fn parent(layout: &Layout) -> io::Result<OwnedFd> {
    dir::open_path(&layout.containers())
}

/// Frees the id; `empty` if nothing is left that bears the name. Nothing there = done.
pub(crate) fn bury(layout: &Layout, key: &ContainerKey, incarnation: &str, empty: bool) -> io::Result<Tomb> {
    let mut name = tomb_name(key, incarnation);
    if empty {
        name.push_str(EMPTY);
    }
    let tomb = Tomb {
        key: key.clone(),
        empty,
        name,
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

/// Frees the name of a container's log. On a disk that may be slow. Nothing there = done.
pub(crate) fn bury_log(layout: &Layout, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
    let logs = dir::open_path(&layout.logs())?;
    let (name, tomb) = (folder_name(key), tomb_name(key, incarnation));
    let done = match file::rename_at(&logs, &name, &tomb) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            dir::remove_tree(&logs, &tomb)?;
            file::rename_at(&logs, &name, &tomb)
        }
        done => done,
    };
    absent_is_done(done)
}

/// Removes a container's log that was buried. On a disk that may be slow. Nothing there = done.
pub(crate) fn remove_log(layout: &Layout, key: &ContainerKey, incarnation: &str) -> io::Result<()> {
    let logs = dir::open_path(&layout.logs())?;
    absent_is_done(dir::remove_tree(logs, tomb_name(key, incarnation)))
}

/// Whether a container's output is kept in a folder of its own.
pub(crate) fn keeps_log(record: &ContainerRecord) -> bool {
    matches!(&Stdio::from(&record.stdio).to, StdioTo::Log(log) if !log.discard)
}

fn tomb_name(key: &ContainerKey, incarnation: &str) -> String {
    format!("{}~{incarnation}", folder_name(key))
}

fn absent_is_done(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes the bundle of a container of containerd's API. What lies there is an earlier one's: the id is ours.
pub(crate) fn make_bundle(layout: &Layout, key: &ContainerKey, made: &MadeBundle) -> io::Result<()> {
    remove_bundle(layout, key)?;
    // Programs in a user namespace of their own pass through it.
    let namespace = dir::make_at(dir::make_all(&layout.bundles(), 0o711)?, key.namespace.as_str(), 0o711)?;
    let mode = if made.group.is_some() { 0o710 } else { 0o700 };
    let bundle = dir::make_new_at(namespace, key.id.as_str(), mode)?;
    if let Some(gid) = made.group {
        std::os::unix::fs::fchown(&bundle, None, Some(gid))?;
    }
    dir::make_at(&bundle, "rootfs", 0o711)?;
    file::write_aside(&bundle, "config.json", &made.config, 0o600)
}

/// Unmounts and removes it. Nothing there = done.
pub(crate) fn remove_bundle(layout: &Layout, key: &ContainerKey) -> io::Result<()> {
    let bundle = layout.bundle(key);
    if !bundle.exists() {
        return Ok(());
    }
    for point in mounts::below(&bundle)? {
        mounts::detach(&point)?;
    }
    let namespace = dir::open_path(&layout.bundles().join(key.namespace.as_str()))?;
    match dir::remove_tree(namespace, key.id.as_str()) {
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
        let tomb = Tomb::parse(&name).unwrap();
        assert_eq!((tomb.key, tomb.empty), (ContainerKey::parse("ns", "a").unwrap(), false));
        let tomb = Tomb::parse(&format!("{name}.empty")).unwrap();
        assert_eq!((tomb.key.id.as_str(), tomb.empty), ("a", true));
        for bad in [
            "ns:a",
            "ns:a~",
            "ns:a~xyz",
            "ns:a~.empty",
            "~00",
            &format!("a~{}", "0f".repeat(16)),
        ] {
            assert_eq!(Tomb::parse(bad), None, "{bad}");
        }
    }
}

//! What a daemon finds when it starts: all keys by one readdir, then each container on its own, and what its records mean.
//!
//! A broken record is an error of that container; the others are not touched by it.

use std::io;
use std::os::fd::OwnedFd;

use berth_core::ContainerKey;
use berth_sys::{dir, process};

use crate::layout::parse_folder_name;
use crate::types::{ContainerRecord, ExecRecord, ExitRecord, ProcessRecord, ShimRecord};
use crate::{Error, Folder, Layout};

/// What lies in the containers' folder.
#[derive(Debug, Default)]
pub struct Index {
    pub keys: Vec<ContainerKey>,
    /// Names that are not ours; they are left alone.
    pub strange: Vec<String>,
}

/// One readdir, nothing is opened. An absent folder is an empty one.
pub fn scan(layout: &Layout) -> Result<Index, Error> {
    let path = layout.containers();
    let folder = match dir::open(&path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(error) => return Err(Error::io("open folder", path)(error)),
    };
    let mut index = Index::default();
    for entry in dir::entries(&folder).map_err(Error::io("list", &path))? {
        match entry.name.to_str().and_then(parse_folder_name) {
            Some(key) if entry.is_dir => index.keys.push(key),
            _ => index.strange.push(entry.name.to_string_lossy().into_owned()),
        }
    }
    Ok(index)
}

/// All records of one container.
#[derive(Debug)]
pub struct Loaded {
    pub folder: Folder,
    pub container: Option<ContainerRecord>,
    pub shim: Option<ShimRecord>,
    pub exit: Option<ExitRecord>,
    pub exit_seq: Option<u64>,
    pub execs: Vec<ExecRecord>,
}

/// Reads a container's folder. Any broken record is an error, which names it.
pub fn load(layout: &Layout, key: &ContainerKey) -> Result<Loaded, Error> {
    let folder = Folder::open(layout, key)?;
    let container = folder.container()?;
    if let Some(record) = &container
        && record.key().as_ref() != Some(key)
    {
        let problem = format!("it is of {:?} in namespace {:?}", record.id, record.namespace);
        return Err(Error::Content {
            path: layout.container(key).join("container.json"),
            problem,
        });
    }
    let (shim, exit, exit_seq) = (folder.shim()?, folder.exit()?, folder.exit_seq()?);
    let mut execs = Vec::new();
    for id in folder.exec_ids()? {
        // One that was removed meanwhile is not there.
        execs.extend(folder.exec(&id)?);
    }
    Ok(Loaded {
        folder,
        container,
        shim,
        exit,
        exit_seq,
        execs,
    })
}

/// What the records of a container mean now.
#[derive(Debug)]
pub enum Verdict {
    /// Its shim lives: adopt it, it knows better than any record.
    Live { pid: u32, shim: OwnedFd },
    /// No shim, but the init's end is known.
    Ended { exit: ExitRecord },
    /// Its shim is gone and nobody saw the init's end. If it still runs, here it is.
    Lost { init: Option<(u32, OwnedFd)> },
    /// A creation that no shim has served, or that had not come as far as a process: undo it.
    HalfMade,
    /// The host was rebooted since.
    Rebooted,
}

/// Judges by pid, start time and boot id, checked after the pidfd is open. `boot_id` is this boot's.
pub fn judge(loaded: &Loaded, boot_id: &str) -> Result<Verdict, Error> {
    let Some(container) = &loaded.container else {
        return Ok(Verdict::HalfMade);
    };
    let exit = loaded
        .exit
        .as_ref()
        .filter(|exit| exit.incarnation == container.incarnation);
    if container.boot_id != boot_id {
        return Ok(exit.map_or(Verdict::Rebooted, |exit| Verdict::Ended { exit: exit.clone() }));
    }
    // One of an earlier life says nothing about this one.
    let ours = |shim: &&ShimRecord| {
        shim.boot_id == boot_id && (shim.incarnation.is_empty() || shim.incarnation == container.incarnation)
    };
    let shim = loaded.shim.as_ref().filter(ours);
    if let Some(shim) = shim
        && let Some(pidfd) = known(shim.shim)?
    {
        return Ok(Verdict::Live {
            pid: shim.shim.pid,
            shim: pidfd,
        });
    }
    if let Some(exit) = exit {
        return Ok(Verdict::Ended { exit: exit.clone() });
    }
    match shim.and_then(|shim| shim.init) {
        Some(init) => Ok(Verdict::Lost {
            init: known(init)?.map(|pidfd| (init.pid, pidfd)),
        }),
        None => Ok(Verdict::HalfMade),
    }
}

/// The pidfd of a process that was noted down in this boot, if it still runs.
pub fn known(process: ProcessRecord) -> Result<Option<OwnedFd>, Error> {
    if process.pid == 0 {
        return Ok(None);
    }
    process::open_known(process.pid, process.start_time)
        .map_err(Error::io("open process", format!("/proc/{}", process.pid)))
}

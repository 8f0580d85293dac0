//! What can be set right without asking anybody. Every step can be repeated, and none of them ends a container that its daemon knows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use berth_record::{Layout, Lock, folder_name, parse_folder_name};
use berth_sys::signal::SIGKILL;
use berth_sys::{dir, mounts, process};

use crate::{Error, Finding, shims};

/// How long a killed process may take to end.
const KILL: Duration = Duration::from_secs(5);

/// What became of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// In words.
    Done(String),
    /// Not safe now, or not at all: the finding's advice says what to do.
    Left,
}

/// Mends one finding. `alone` is the state folder's lock: without it a daemon is at work, and only what it can't have in hand is
/// touched.
///
/// # Errors
/// What the kernel refused, with the place.
pub fn mend(layout: &Layout, finding: &Finding, alone: Option<&Lock>) -> Result<Mended, Error> {
    match finding {
        Finding::Mode { path, mode, allowed } => {
            let right = mode & allowed;
            let permissions = fs::Permissions::from_mode(right);
            fs::set_permissions(path, permissions).map_err(Error::io("change the mode of", path))?;
            Ok(Mended::Done(format!("{} has mode {right:04o}", path.display())))
        }
        Finding::StrayShim {
            pid,
            start_time,
            container,
        } => stray_shim(layout, *pid, *start_time, container),
        _ if alone.is_none() => Ok(Mended::Left),
        Finding::StrayMount { point } => {
            mounts::detach(point).map_err(Error::io("unmount", point))?;
            Ok(Mended::Done(format!("{} is unmounted", point.display())))
        }
        Finding::Leftover { path } | Finding::StrayBundle { path } => remove(path),
        Finding::BrokenRecord { container, .. } => set_aside(layout, container),
        Finding::Foreign { .. }
        | Finding::HalfMade { .. }
        | Finding::Orphan { .. }
        | Finding::Unseen { .. }
        | Finding::SecondShim { .. }
        | Finding::Survivors { .. }
        | Finding::StrayLog { .. }
        | Finding::AlmostFull { .. }
        | Finding::Deaf { .. } => Ok(Mended::Left),
    }
}

/// Nobody can reach it any more: its socket and its records are gone. What it still holds ends with it.
fn stray_shim(layout: &Layout, pid: u32, start_time: u64, container: &str) -> Result<Mended, Error> {
    let proc = || format!("/proc/{pid}");
    let Some(shim) = process::open_known(pid, start_time).map_err(Error::io("open process", proc()))? else {
        return Ok(Mended::Done(format!("process {pid} has ended by itself")));
    };
    // It is looked at again with its pidfd open: the finding may be old.
    let containers = fs::canonicalize(layout.containers()).unwrap_or_else(|_| layout.containers());
    if !shims::all(&containers)?
        .iter()
        .any(|there| there.pid == pid && (there.gone || !containers.join(&there.folder).exists()))
    {
        return Ok(Mended::Left);
    }
    let below = process::descendants(pid).map_err(Error::io("list children of", proc()))?;
    for child in below.into_iter().filter(|child| *child != pid) {
        // One that has ended meanwhile needs nothing more.
        if let Ok(pidfd) = process::pidfd_open(child) {
            let _ = process::pidfd_send_signal(&pidfd, SIGKILL);
        }
    }
    process::pidfd_send_signal(&shim, SIGKILL).map_err(Error::io("kill", proc()))?;
    process::wait_until_ended(&shim, Some(KILL)).map_err(Error::io("wait for", proc()))?;
    Ok(Mended::Done(format!(
        "shim {pid} of {container} and what it held have been killed"
    )))
}

fn remove(path: &Path) -> Result<Mended, Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Mended::Left);
    };
    for point in mounts::below(path).map_err(Error::io("read", "/proc/self/mountinfo"))? {
        mounts::detach(&point).map_err(Error::io("unmount", &point))?;
    }
    let parent = dir::open(parent).map_err(Error::io("open folder", parent))?;
    dir::remove_tree(&parent, name).map_err(Error::io("remove", path))?;
    Ok(Mended::Done(format!("{} is removed", path.display())))
}

/// The folder is kept for whoever wants to know why, and its id is free again.
fn set_aside(layout: &Layout, container: &str) -> Result<Mended, Error> {
    let Some(name) = container
        .split_once('/')
        .and_then(|(namespace, id)| parse_folder_name(&format!("{namespace}:{id}")))
        .map(|key| folder_name(&key))
    else {
        return Ok(Mended::Left);
    };
    let containers = fs::canonicalize(layout.containers()).unwrap_or_else(|_| layout.containers());
    if shims::all(&containers)?
        .iter()
        .any(|shim| shim.folder == name && !shim.gone)
    {
        return Ok(Mended::Left);
    }
    let aside = layout.state().join("aside");
    dir::make_all(&aside, 0o700).map_err(Error::io("make folder", &aside))?;
    let from = layout.containers().join(&name);
    let to = (0..)
        .map(|number: u32| aside.join(format!("{name}.{number}")))
        .find(|to| !to.exists())
        .unwrap_or_else(|| aside.join(&name));
    fs::rename(&from, &to).map_err(Error::io("set aside", &from))?;
    Ok(Mended::Done(format!(
        "{} is set aside as {}",
        from.display(),
        to.display()
    )))
}

//! The examination. Everything is read; nothing is written, opened for writing, or waited for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_core::ContainerKey;
use berth_record::{Layout, Loaded, Verdict, folder_name, judge, load, parse_folder_name, scan};
use berth_sys::cgroup::Hierarchies;
use berth_sys::{dir, file, mounts, process};

use crate::shims::{self, ShimProcess};
use crate::{Error, Finding};

/// What is wrong with this daemon's state on this machine. Beside a daemon at work it also shows what is only passing: look twice and
/// keep what both looks have.
///
/// # Errors
/// If the folders or /proc can't be read. An absent state folder is an empty one.
pub fn examine(layout: &Layout) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    modes(layout, &mut found);
    space(layout, &mut found);
    let index = scan(layout)?;
    for name in &index.strange {
        let path = layout.containers().join(name);
        found.push(if is_leftover(name) {
            Finding::Leftover { path }
        } else {
            Finding::Foreign { path }
        });
    }
    // Descriptors show real paths: the state folder may have been named through a link.
    let containers = fs::canonicalize(layout.containers()).unwrap_or_else(|_| layout.containers());
    let shims = shims::all(&containers)?;
    let boot_id = process::boot_id().map_err(Error::io("read", "/proc/sys/kernel/random/boot_id"))?;
    let hierarchies = Hierarchies::detect().ok();
    for key in &index.keys {
        match load(layout, key) {
            Ok(loaded) => container(key, &loaded, &boot_id, hierarchies.as_ref(), &shims, &mut found)?,
            // Deleted since the folder was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => found.push(Finding::BrokenRecord {
                container: key.to_string(),
                problem: error.to_string(),
            }),
        }
    }
    let known: BTreeSet<String> = index.keys.iter().map(folder_name).collect();
    found.extend(
        shims
            .iter()
            .filter(|shim| shim.gone || !known.contains(&shim.folder))
            .map(|shim| Finding::StrayShim {
                pid: shim.pid,
                start_time: shim.start_time,
                container: shim.folder.clone(),
            }),
    );
    logs(layout, &known, &mut found)?;
    bundles(layout, &known, &mut found)?;
    stray_mounts(layout, &known, &mut found)?;
    Ok(found)
}

fn container(
    key: &ContainerKey,
    loaded: &Loaded,
    boot_id: &str,
    hierarchies: Option<&Hierarchies>,
    shims: &[ShimProcess],
    found: &mut Vec<Finding>,
) -> Result<(), Error> {
    let name = key.to_string();
    let serving = match judge(loaded, boot_id)? {
        Verdict::Live { pid, .. } => Some(pid),
        Verdict::Ended { .. } => None,
        // The daemon tells it as ended by the reboot, once.
        Verdict::Rebooted => return Ok(()),
        Verdict::HalfMade => {
            found.push(Finding::HalfMade {
                container: name.clone(),
            });
            None
        }
        Verdict::Lost { init: Some((pid, _)) } => {
            found.push(Finding::Orphan {
                container: name.clone(),
                pid,
            });
            None
        }
        Verdict::Lost { init: None } => {
            found.push(Finding::Unseen {
                container: name.clone(),
            });
            None
        }
    };
    let folder = folder_name(key);
    let others = shims
        .iter()
        .filter(|shim| !shim.gone && shim.folder == folder && Some(shim.pid) != serving);
    found.extend(others.map(|shim| Finding::SecondShim {
        pid: shim.pid,
        container: name.clone(),
    }));
    // The same container's exit only: one of an earlier life says nothing.
    let ended = loaded.exit.as_ref().zip(loaded.container.as_ref());
    let ended = ended.is_some_and(|(exit, container)| exit.incarnation == container.incarnation);
    if let (true, Some(shim), Some(hierarchies)) = (ended, &loaded.shim, hierarchies) {
        let group = hierarchies.group_named(&shim.cgroup);
        let pids = group.and_then(|group| group.pids()).unwrap_or_default();
        if !pids.is_empty() {
            found.push(Finding::Survivors {
                container: name,
                cgroup: shim.cgroup.clone(),
                pids,
            });
        }
    }
    Ok(())
}

/// `NS:ID~…`: what a removal renames before it takes it apart.
pub fn is_leftover(name: &str) -> bool {
    name.split_once('~')
        .is_some_and(|(before, _)| parse_folder_name(before).is_some())
}

fn modes(layout: &Layout, found: &mut Vec<Finding>) {
    let folders = [
        (layout.state().to_owned(), 0o711),
        (layout.containers(), 0o711),
        (layout.events(), 0o700),
        (layout.root().to_owned(), 0o711),
        (layout.logs(), 0o711),
    ];
    for (path, allowed) in folders {
        let Ok(there) = fs::symlink_metadata(&path) else {
            continue;
        };
        let mode = there.permissions().mode() & 0o7777;
        if there.is_dir() && mode & !allowed != 0 {
            found.push(Finding::Mode { path, mode, allowed });
        }
    }
}

/// In bytes: a twentieth of a large disk is still much.
const LITTLE: u64 = 1 << 30;

fn space(layout: &Layout, found: &mut Vec<Finding>) {
    for path in [layout.state(), layout.root()] {
        let Ok(space) = dir::open_path(path).and_then(file::space) else {
            continue;
        };
        if space.free < space.total / 20 && space.free < LITTLE {
            found.push(Finding::AlmostFull {
                path: path.to_owned(),
                free: space.free,
                total: space.total,
            });
        }
    }
}

fn logs(layout: &Layout, known: &BTreeSet<String>, found: &mut Vec<Finding>) -> Result<(), Error> {
    for name in names(&layout.logs())? {
        let path = layout.logs().join(&name);
        if is_leftover(&name) {
            found.push(Finding::Leftover { path });
        } else if parse_folder_name(&name).is_some() && !known.contains(&name) {
            found.push(Finding::StrayLog { path });
        }
    }
    Ok(())
}

fn bundles(layout: &Layout, known: &BTreeSet<String>, found: &mut Vec<Finding>) -> Result<(), Error> {
    for namespace in names(&layout.bundles())? {
        let folder = layout.bundles().join(&namespace);
        for id in names(&folder)? {
            if !known.contains(&format!("{namespace}:{id}")) {
                found.push(Finding::StrayBundle { path: folder.join(id) });
            }
        }
    }
    Ok(())
}

fn stray_mounts(layout: &Layout, known: &BTreeSet<String>, found: &mut Vec<Finding>) -> Result<(), Error> {
    let state = fs::canonicalize(layout.state()).unwrap_or_else(|_| layout.state().to_owned());
    let real = Layout::new(&state, layout.root());
    for point in mounts::below(&state).map_err(Error::io("read", "/proc/self/mountinfo"))? {
        // The state folder may be a mount of its own.
        if point != state && owner(&real, &point).is_some_and(|owner| !known.contains(&owner)) {
            found.push(Finding::StrayMount { point });
        }
    }
    Ok(())
}

/// Whose place a mount point is; `None` for what is no container's.
fn owner(layout: &Layout, point: &Path) -> Option<String> {
    let first = |path: &Path, depth: usize| -> Option<Vec<String>> {
        let parts: Vec<String> = path
            .components()
            .take(depth)
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        (parts.len() == depth).then_some(parts)
    };
    if let Ok(inside) = point.strip_prefix(layout.containers()) {
        return Some(first(inside, 1)?.concat());
    }
    let inside = point.strip_prefix(layout.bundles()).ok()?;
    Some(first(inside, 2)?.join(":"))
}

/// Names of the folders in a folder, sorted; none if it is not there.
fn names(path: &Path) -> Result<Vec<String>, Error> {
    let folder = match dir::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("open folder", PathBuf::from(path))(error)),
    };
    let mut names: Vec<String> = dir::entries(&folder)
        .map_err(Error::io("list", path))?
        .into_iter()
        .filter(|entry| entry.is_dir)
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

//! The shims of one state folder, found by what they hold open: a shim keeps its container's folder, whatever became of the folder.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::process;

use crate::Error;

const GONE: &[u8] = b" (deleted)";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimProcess {
    pub pid: u32,
    pub start_time: u64,
    /// The folder's name below the containers' folder.
    pub folder: String,
    /// The folder was removed.
    pub gone: bool,
}

/// All that run now. A process that ends meanwhile is left out; so are a shim's own helpers.
pub fn all(containers: &Path) -> Result<Vec<ShimProcess>, Error> {
    let mut found: Vec<(u32, ShimProcess)> = Vec::new();
    for entry in fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(shim) = look(pid, &entry.path(), containers) {
            found.push(shim);
        }
    }
    let pids: Vec<u32> = found.iter().map(|(_, shim)| shim.pid).collect();
    found.retain(|(parent, _)| !pids.contains(parent));
    Ok(found.into_iter().map(|(_, shim)| shim).collect())
}

/// With its parent.
fn look(pid: u32, place: &Path, containers: &Path) -> Option<(u32, ShimProcess)> {
    // Forked by the template it runs from a sealed memfd, else from the program's file; both bear the name.
    let program = fs::read_link(place.join("exe")).ok()?;
    if !program.to_string_lossy().contains("berth-shim") {
        return None;
    }
    let (folder, gone) = fs::read_dir(place.join("fd"))
        .ok()?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .find_map(|target| folder_of(&target, containers))?;
    let stat = process::stat(pid).ok()?;
    let shim = ShimProcess {
        pid,
        start_time: stat.start_time,
        folder,
        gone,
    };
    Some((stat.parent, shim))
}

fn folder_of(target: &Path, containers: &Path) -> Option<(String, bool)> {
    let bytes = target.as_os_str().as_bytes();
    let (bytes, gone) = bytes.strip_suffix(GONE).map_or((bytes, false), |there| (there, true));
    let inside = bytes
        .strip_prefix(containers.as_os_str().as_bytes())?
        .strip_prefix(b"/")?;
    // The folder itself: a file in it says less about the folder.
    if inside.is_empty() || inside.contains(&b'/') {
        return None;
    }
    Some((String::from_utf8_lossy(inside).into_owned(), gone))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_descriptor_names_its_folder() {
        let of = |target: &str| folder_of(Path::new(target), Path::new("/run/berth/c"));
        assert_eq!(of("/run/berth/c/default:web"), Some(("default:web".into(), false)));
        assert_eq!(
            of("/run/berth/c/default:web (deleted)"),
            Some(("default:web".into(), true))
        );
        for other in [
            "/run/berth/c",
            "/run/berth/c/",
            "/run/berth/c/default:web/x",
            "/run/berth/cc/a",
            "socket:[1]",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}

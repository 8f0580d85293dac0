//! Folders of cgroups, in every version: who is in them, writing a value, removing them with all below.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_sys::file::read_text;
use serde_json::Value;

use super::ROOT;

/// How long the last process may take to leave.
const PATIENCE: Duration = Duration::from_secs(5);

const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// Not there, or being removed right now.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

/// The processes of a folder and of those below it.
pub(super) fn collect(folder: &Path, into: &mut Vec<u32>) -> io::Result<()> {
    let text = match read_text(folder.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(()),
        // A threaded group of v2 lists its processes in the group above it.
        Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => String::new(),
        Err(error) => return Err(error),
    };
    into.extend(
        text.lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), into)?;
        }
    }
    Ok(())
}

/// Removes a folder with all below it. Can be repeated.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    // The common case first: nothing is below it.
    match fs::remove_dir(folder) {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(_) => {}
    }
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    // A process that has just been reaped may still count for a moment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(folder) {
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(EBUSY) && Instant::now() < deadline => {
                // cgroup v1 tells nobody when the last process has left a group.
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// A path of a state file, if it is one of a cgroup.
pub(super) fn stored(value: &Value) -> Option<PathBuf> {
    let path = PathBuf::from(value.as_str()?);
    let plain = path.starts_with(ROOT) && !path.components().any(|part| part == std::path::Component::ParentDir);
    plain.then_some(path)
}

/// One write(2) into a file that is there.
pub(super) fn put(file: &Path, value: &str) -> io::Result<()> {
    put_open(&open(file)?, value)
}

/// O_CREAT would hide a missing file.
pub(super) fn open(file: &Path) -> io::Result<File> {
    File::options().write(true).open(file)
}

/// One write(2): a cgroup file takes a value whole or not at all.
pub(super) fn put_open(mut file: &File, value: &str) -> io::Result<()> {
    use std::io::Write;
    file.write_all(value.as_bytes())
}

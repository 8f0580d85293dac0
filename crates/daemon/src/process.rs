//! What the daemon sets about its own process before anything else, and finds beside itself.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::error::Error;

/// Before the first thread is started.
pub fn prepare() {
    // A relative path means nothing to a daemon, and its folder must not keep a file system busy.
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "the working directory can't be changed to /");
    }
}

/// The soft limit is low for the sake of programs that use select(2), and each container costs us some descriptors. Only after the
/// template of the shims was started: a container must not inherit it.
pub fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

/// The shim that was named, the one beside berthd, or one in PATH.
pub fn find_shim(named: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).filter(|dir| dir.is_absolute()))
        .map(|dir| dir.join("berth-shim"))
        .find(|shim| shim.is_file())
        .ok_or(Error::NoShim)
}

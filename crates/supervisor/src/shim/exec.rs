//! Exec'ing a shim's binary: the template once, and every shim where there is no template.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use berth_record::Folder;
use berth_sys::process::{self, Exec, Limit, Program};
use tokio::io::Interest;

use crate::deps::{ShimProcess, watched};

/// Starts the program with nothing but these descriptors; 0 to 2 are /dev/null, so that no shim holds a pipe of ours open.
///
/// Its limit of open files is `nofile` before it is asked for the first container, which inherits it: ours is raised.
pub(super) fn spawn(
    program: BorrowedFd<'_>,
    args: &[&OsStr],
    fds: &[(BorrowedFd<'_>, RawFd)],
    nofile: Limit,
) -> io::Result<u32> {
    let null = berth_sys::file::dev_null()?;
    let mut all = vec![(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2)];
    all.extend_from_slice(fds);
    let mut argv = vec![OsStr::new("berth-shim")];
    argv.extend_from_slice(args);
    let mut path = OsString::from("PATH=");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| crate::runtimes::PATH.into()));
    let mut env = vec![path.as_os_str()];
    let kill_at = kill_at();
    env.extend(kill_at.as_deref());
    let pid = process::spawn(&Exec {
        program: Program::Fd(program),
        args: &argv,
        env: &env,
        fds: &all,
    })?;
    if let Err(error) = process::set_limit_nofile_of(pid, nofile) {
        tracing::warn!(%error, pid, "a shim has our limit of open files");
    }
    Ok(pid)
}

/// Where a shim is to end itself, in builds for such tests.
fn kill_at() -> Option<OsString> {
    let at = cfg!(feature = "failpoints")
        .then(|| std::env::var_os("BERTH_SHIM_KILL_AT"))
        .flatten()?;
    let mut entry = OsString::from("BERTH_SHIM_KILL_AT=");
    entry.push(at);
    Some(entry)
}

/// The way without a template.
pub(super) async fn shim(
    program: Arc<OwnedFd>,
    folder: Arc<Folder>,
    theirs: OwnedFd,
    name: String,
    nofile: Limit,
) -> io::Result<ShimProcess> {
    // A fork of a large process takes its time.
    let (pid, pidfd) = tokio::task::spawn_blocking(move || {
        let args = ["serve", "--name", &name].map(OsStr::new);
        let pid = spawn(
            program.as_fd(),
            &args,
            &[(folder.as_fd(), 3), (theirs.as_fd(), 4)],
            nofile,
        )?;
        // It is our child, so the number can't be another's.
        io::Result::Ok((pid, process::pidfd_open(pid)?))
    })
    .await
    .map_err(io::Error::other)??;
    tokio::spawn(reap(pid));
    ShimProcess::new(pid, pidfd)
}

/// Waits for a child of ours and takes it off the table.
pub(super) async fn reap(pid: u32) {
    let ended = async {
        let pidfd = watched(process::pidfd_open(pid)?, Interest::READABLE)?;
        drop(pidfd.readable().await?);
        process::reap(pid).map(drop)
    };
    if let Err(error) = ended.await {
        tracing::debug!(%error, pid, "a shim's process could not be reaped");
    }
}

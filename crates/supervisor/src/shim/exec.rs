//! Exec'ing a shim's binary: the template once, and every shim where there is no template.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use berth_record::Folder;
use berth_sys::process::{self, Exec, Program};
use tokio::io::Interest;

use crate::deps::{ShimProcess, watched};

/// Starts the program with nothing but these descriptors; 0 to 2 are /dev/null, so that no shim holds a pipe of ours open.
pub(super) fn spawn(program: BorrowedFd<'_>, args: &[&OsStr], fds: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<u32> {
    let null = berth_sys::file::dev_null()?;
    let mut all = vec![(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2)];
    all.extend_from_slice(fds);
    let mut argv = vec![OsStr::new("berth-shim")];
    argv.extend_from_slice(args);
    let path = std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut env = std::ffi::OsString::from("PATH=");
    env.push(path);
    #[cfg_attr(not(feature = "failpoints"), expect(unused_mut))]
    let mut envs = vec![env];
    #[cfg(feature = "failpoints")]
    if let Ok(at) = std::env::var("BERTH_SHIM_KILL_AT") {
        envs.push(format!("BERTH_SHIM_KILL_AT={at}").into());
    }
    let env: Vec<&OsStr> = envs.iter().map(|e| e.as_os_str()).collect();
    process::spawn(&Exec {
        program: Program::Fd(program),
        args: &argv,
        env: &env,
        fds: &all,
    })
}

/// The way without a template.
pub(super) async fn shim(
    program: Arc<OwnedFd>,
    folder: Arc<Folder>,
    theirs: OwnedFd,
    name: String,
) -> io::Result<ShimProcess> {
    // A fork of a large process takes its time.
    let (pid, pidfd) = tokio::task::spawn_blocking(move || {
        let args = ["serve", "--name", &name].map(OsStr::new);
        let pid = spawn(program.as_fd(), &args, &[(folder.as_fd(), 3), (theirs.as_fd(), 4)])?;
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

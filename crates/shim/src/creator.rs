//! Creators: children of the shim, forked for one call of the runtime each. What may block happens here, never in the loop.
//!
//! A creator keeps nothing of the shim's but the few fds it needs, has defaults where the shim has its own settings (signals, umask,
//! OOM score), answers on a socketpair whose messages have bounds, and may be killed with its process group at any instruction.

mod first;
mod job;
mod process_json;
mod report;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use berth_sys::process::{self, Fork};
use berth_sys::{file, heap, socket};
use berth_wire::shim::{Driver, Mount};

use crate::stdio::Ends;
pub use job::{Delete, Exec, Job, Victim};
pub use process_json::PROCESS_FILE;
pub use report::{Created, Failed, Received, Report, StageTime};

/// What every job of one container needs.
#[derive(Debug, Clone)]
pub struct Setting {
    /// As the daemon names it; a logger is told.
    pub namespace: String,
    pub id: String,
    pub bundle: PathBuf,
    pub driver: Driver,
    /// For each call of the runtime.
    pub timeout: Duration,
    pub folder: Rc<OwnedFd>,
    /// Mounted before the create.
    pub rootfs: Vec<Mount>,
    /// Our init, the container's first process.
    pub init: Option<PathBuf>,
}

/// A creator at work.
#[derive(Debug)]
pub struct Creator {
    pub pid: u32,
}

/// Forks one. `ends` are closed here when the fork is done: from then on only the creator and the new process have them. Its
/// reports come message by message, non-blocking; end of file when it is gone.
pub fn fork(setting: &Setting, job: Job, ends: Option<Ends>) -> io::Result<(Creator, OwnedFd)> {
    let (ours, theirs) = socket::seqpacket_pair(false)?;
    file::set_nonblocking(&ours, true)?;
    let shim = process::getpid();
    match process::fork()? {
        Fork::Parent { pid } => Ok((Creator { pid }, ours)),
        Fork::Child => {
            heap::live_briefly();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                prepare(shim, setting, &job, ends.as_ref(), &theirs)?;
                job::run(setting, &job, ends.as_ref(), &theirs);
                Ok::<_, io::Error>(())
            }));
            process::exit_now(if matches!(done, Ok(Ok(()))) { 0 } else { 1 })
        }
    }
}

fn prepare(shim: u32, setting: &Setting, job: &Job, ends: Option<&Ends>, report: &OwnedFd) -> io::Result<()> {
    process::start_process_group()?;
    process::die_with_parent()?;
    if process::getppid() != shim {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut keep: Vec<RawFd> = vec![0, 1, 2, setting.folder.as_raw_fd(), report.as_raw_fd()];
    if let Some(Ends::Fds { stdin, stdout, stderr }) = ends {
        keep.extend([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()]);
    }
    keep.extend(job.fds());
    process::close_except(&keep)?;
    process::reset_signals()?;
    process::umask(0o022);
    // Raising it needs nothing; where the shim could not lower its own there is nothing to undo.
    let _ = process::set_oom_score_adj(0);
    Ok(())
}

/// The loop has taken note of the process that was made: what waits for it may go on.
pub fn go_on(reports: impl AsFd) {
    // A creator that has ended waits for nothing.
    let _ = socket::send(reports, b"go");
}

impl Creator {
    /// Ends it, and all that is in its process group. Its runtime dies with it.
    pub fn kill(&self) {
        // It fails only if the creator has ended, which is what is wanted.
        let _ = process::kill_group(self.pid);
    }
}

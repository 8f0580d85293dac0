//! What a process must not bring along into a container, and what the container must not reach through it.
//!
//! From the moment that it is in the container's pid namespace until its execve, processes of the container can see it. So it
//! gives up first what leads to the host (CVE-2016-9962, CVE-2024-21626), and its program is no file that could be
//! written (CVE-2019-5736).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use berth_sys::unguarded::without;
use berth_sys::{credentials, execve, inroot, memfd, process};

use crate::error::{Context, OciError};

/// Defaults for signals, no way in through /proc, and no descriptor open but 0 to 2, those before `first_closed`, and `keep`. For a
/// process that was just made and that ends by an execve or an exit.
pub(crate) fn shield(first_closed: u32, keep: &[BorrowedFd<'_>]) -> Result<(), OciError> {
    process::reset_signals().step("reset", "signals")?;
    // Not for ptrace nor for /proc/PID/fd, until the execve.
    credentials::set_dumpable(without("hidden")).step("hide", "process")?;
    if without("descriptors") {
        return Ok(());
    }
    let kept = (0..first_closed.max(3)).filter_map(|number| RawFd::try_from(number).ok());
    let kept: Vec<RawFd> = kept.chain(keep.iter().map(AsRawFd::as_raw_fd)).collect();
    process::close_except(&kept).step("close", "file descriptors")
}

/// A null device among the standard descriptors becomes the container's own: the mode and owner of the host's could be changed
/// through it. Anything else stays what it is (CVE-2026-88265).
pub(crate) fn own_null(root: BorrowedFd<'_>) -> Result<(), OciError> {
    if without("own-null") {
        return Ok(());
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let is_null = standard.map(|fd| matches!(inroot::kind_of(fd), Ok(inroot::NULL)));
    if !is_null.contains(&true) {
        return Ok(());
    }
    let null = inroot::open_null(root).step("open", "/dev/null in the container")?;
    let pick = |index: usize| if is_null[index] { null.as_fd() } else { standard[index] };
    execve::set_stdio([pick(0), pick(1), pick(2)]).step("set", "standard descriptors")
}

/// Goes on as a copy of this program in sealed memory, once. To be called first: it starts the program anew.
///
/// # Errors
/// /proc is not there, or the copy can't be executed.
pub fn leave_own_file() -> Result<(), OciError> {
    const OWN: &str = "/proc/self/exe";
    let own = File::open(OWN).step("open", OWN)?;
    if without("own-file") || memfd::is_sealed(&own).step("look at", OWN)? {
        return Ok(());
    }
    let copy = memfd::sealed_copy("berth-oci", &own).step("copy", OWN)?;
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other).step("copy", "arguments");
    let path = c_string(format!("/proc/self/fd/{}", copy.as_raw_fd()).as_bytes())?;
    let args = std::env::args_os().map(|arg| c_string(arg.as_bytes()));
    let env = std::env::vars_os().map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
    let (args, env) = (
        args.collect::<Result<Vec<_>, _>>()?,
        env.collect::<Result<Vec<_>, _>>()?,
    );
    Err(execve::replace(&path, &args, &env)).step("execute", "copy of this program")
}

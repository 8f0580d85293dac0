//! The container's terminal: a pseudo-terminal of its own devpts, its master sent out, its other end stdin, stdout, stderr
//! and /dev/console.
//!
//! Invariant (CVE-2025-52565, CVE-2026-88264): the other end comes from the master by ioctl, never by a path, and it is
//! bound on a file that no link can stand for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::{execve, inroot, newmount, pty, socket};
use oci_spec::runtime::Process;

use crate::error::{Context, OciError};

/// For one more process: a terminal of the container's devpts, without a /dev/console.
pub(crate) fn set_up_exec(socket: BorrowedFd<'_>, process: &Process) -> Result<(), OciError> {
    let root = inroot::open_host_dir(Path::new("/")).step("open", "/")?;
    let (master, peer) = open(root.as_fd(), process)?;
    socket::send_fds(socket, b"/dev/pts/ptmx", &[master.as_fd()]).step("send", "terminal")?;
    execve::take_terminal(peer.as_fd()).step("take", "terminal")
}

fn open(root: BorrowedFd<'_>, process: &Process) -> Result<(OwnedFd, OwnedFd), OciError> {
    let master = execve::open_terminal(root, Path::new("/dev/pts/ptmx")).step("open", "/dev/pts/ptmx")?;
    let peer = execve::terminal_peer(master.as_fd()).step("open", "terminal")?;
    if let Some(size) = process.console_size() {
        let cells = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        pty::set_size(master.as_fd(), cells(size.width()), cells(size.height())).step("size", "terminal")?;
    }
    Ok((master, peer))
}

/// For the init process: also /dev/console.
pub(crate) fn set_up(root: BorrowedFd<'_>, socket: BorrowedFd<'_>, process: &Process) -> Result<(), OciError> {
    let (master, peer) = open(root, process)?;
    let dev = inroot::open_path(root, Path::new("/dev")).step("open", "/dev")?;
    let place = inroot::ensure_own_file(dev.as_fd(), "console".as_ref()).step("make", "/dev/console")?;
    let tree = newmount::clone_tree(peer.as_fd(), false).step("mount", "/dev/console")?;
    newmount::attach(tree.as_fd(), place.as_fd()).step("mount", "/dev/console")?;
    socket::send_fds(socket, b"/dev/pts/ptmx", &[master.as_fd()]).step("send", "terminal")?;
    execve::take_terminal(peer.as_fd()).step("take", "terminal")
}

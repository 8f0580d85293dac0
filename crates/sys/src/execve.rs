//! The last steps before a container's program runs: its standard descriptors, its terminal, the execve itself.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use crate::check;
use crate::unguarded::without;

/// Replaces the program. Returns only if that failed.
pub fn replace(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        let mut all: Vec<*const libc::c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        all.push(std::ptr::null());
        all
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: path and all strings are NUL-terminated and outlive the call; both arrays end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes these three the standard descriptors, which stay open over an execve.
///
/// # Errors
/// As dup3(2).
pub fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // First out of the way: a source may have the number of another's target.
    let lifted: Vec<OwnedFd> = stdio
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3))
        .collect::<Result<_, _>>()?;
    for (number, fd) in lifted.iter().enumerate() {
        // SAFETY: the target is 0, 1 or 2, which this process gives away on purpose.
        check(unsafe { libc::dup2(fd.as_raw_fd(), number as i32) })?;
    }
    Ok(())
}

/// Gives the standard descriptors to a user, so that it can open /dev/stdout and its like. Not a null device: it is everybody's.
///
/// # Errors
/// As fstat(2), fchown(2); what can't have another owner keeps its own.
pub fn give_stdio(uid: u32) -> io::Result<()> {
    if uid == u32::MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "4294967295 is no id"));
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_null = crate::inroot::kind_of(fd)? == crate::inroot::NULL;
        if is_null || rustix::fs::fstat(fd)?.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens a terminal's master below `root` and unlocks it. It must be on a devpts, whatever the root filesystem says.
///
/// # Errors
/// As openat2(2); `InvalidData` if the file is not on a devpts.
pub fn open_terminal(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let master = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    if crate::newmount::filesystem_magic(master.as_fd())? != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not on a devpts"));
    }
    unlockpt(&master)?;
    Ok(master)
}

/// The other end of a master, by ioctl and not by path.
///
/// # Errors
/// As ioctl_tty(2) TIOCGPTPEER.
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(ioctl_tiocgptpeer(
        master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?)
}

/// Makes a terminal the controlling one of this session, and its three standard descriptors.
///
/// # Errors
/// As ioctl_tty(2) TIOCSCTTY, dup2(2).
pub fn take_terminal(peer: BorrowedFd<'_>) -> io::Result<()> {
    set_stdio([peer; 3])?;
    crate::pty::make_controlling(peer)
}

/// Writes to a file of /proc below `root`: it must be on procfs, whatever the root filesystem put there.
///
/// # Errors
/// As openat2(2), write(2); `InvalidData` if the file is not on a procfs.
pub fn write_proc(root: BorrowedFd<'_>, path: &Path, value: &str) -> io::Result<()> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    if without("procfs") {
        resolve = ResolveFlags::IN_ROOT;
    }
    let file = rustix::fs::openat2(root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if !without("procfs") && crate::newmount::filesystem_magic(file.as_fd())? != PROC_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not on a procfs"));
    }
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Accepts one connection of a peer that is root or the same user, ignoring others. Waits for it. To a process in a user namespace
/// whoever is outside of it has the overflow id: then the mode of the socket file alone says who may connect.
///
/// # Errors
/// As accept4(2).
pub fn accept_root(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let own = rustix::process::geteuid().as_raw();
    rustix::io::ioctl_fionbio(listener, false)?;
    loop {
        let peer = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC)?;
        let uid = peer_uid(peer.as_fd())?;
        if uid == 0 || uid == own || uid == OVERFLOW_UID {
            return Ok(peer);
        }
    }
}

/// What the kernel shows for an id that is not in the user namespace, unless a sysctl says otherwise.
const OVERFLOW_UID: u32 = 65534;

/// SO_PEERCRED by hand: a peer outside of this pid namespace has pid 0, which rustix's type for it can't hold.
fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the buffer and its size describe `credentials`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut size,
        )
    })?;
    Ok(credentials.uid)
}

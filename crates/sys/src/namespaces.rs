//! Namespaces: making a process in new ones with clone3(2), joining old ones with setns(2), id maps.
//!
//! Invariant: [`clone_process`] may be called by a single-threaded process only; the child goes on with a copy of the
//! whole memory, as after fork(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

/// A set of namespaces, as CLONE_NEW* flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u64);
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u64);
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u64);
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u64);
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u64);
    pub const NET: Namespaces = Namespaces(libc::CLONE_NEWNET as u64);
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u64);
    pub const TIME: Namespaces = Namespaces(0x80);

    pub const ALL: Namespaces = Namespaces(
        Self::MOUNT.0
            | Self::UTS.0
            | Self::IPC.0
            | Self::USER.0
            | Self::PID.0
            | Self::NET.0
            | Self::CGROUP.0
            | Self::TIME.0,
    );

    #[must_use]
    pub const fn empty() -> Namespaces {
        Namespaces(0)
    }

    #[must_use]
    pub const fn union(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & !other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: u32, pidfd: OwnedFd },
}

/// How [`clone_process`] makes the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions<'a> {
    pub namespaces: Namespaces,
    /// The new process becomes a child of the caller's parent (CLONE_PARENT).
    pub sibling: bool,
    /// A cgroup v2 folder to be born in (CLONE_INTO_CGROUP).
    pub cgroup: Option<BorrowedFd<'a>>,
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a process as fork(2) does, in new namespaces.
///
/// # Errors
/// As clone3(2).
pub fn clone_process(options: CloneOptions<'_>) -> io::Result<Cloned> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: options.namespaces.0 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let tid_address = crate::process::tid_address();
    if tid_address != 0 {
        // Or abort and raise in the child mean its maker's thread.
        args.flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
        args.child_tid = tid_address as u64;
    }
    if options.sibling {
        args.flags |= libc::CLONE_PARENT as u64;
        // A sibling's exit signal is the caller's own; the kernel refuses another.
        args.exit_signal = 0;
    }
    if let Some(cgroup) = options.cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork(2); the caller promises to be
    // single-threaded, so no lock is held by a thread that is missing in the child. `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel made this descriptor for us and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: pid as u32, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Joins the namespace behind a descriptor (/proc/PID/ns/…), or several at once with a pidfd.
///
/// # Errors
/// As setns(2).
pub fn join(namespace: BorrowedFd<'_>, kind: Namespaces) -> io::Result<()> {
    // SAFETY: a descriptor and an integer.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind.0 as i32) })
}

/// Leaves namespaces for new ones.
///
/// # Errors
/// As unshare(2).
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: integers only; no thread shares anything with this process.
    check(unsafe { libc::unshare(kinds.0 as i32) })
}

/// # Errors
/// As sethostname(2).
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

/// # Errors
/// As setdomainname(2).
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })
}

/// Brings the loopback interface of the current network namespace up.
///
/// # Errors
/// As netdevice(7) SIOCGIFFLAGS, SIOCSIFFLAGS.
pub fn loopback_up() -> io::Result<()> {
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        flags: i16,
        pad: [u8; 22],
    }
    // SAFETY: integers only; the result is a new descriptor.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(socket)?;
    // SAFETY: just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut request = IfReq {
        name: [0; 16],
        flags: 0,
        pad: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: `request` has the size and form of struct ifreq and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    request.flags |= libc::IFF_UP as i16;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

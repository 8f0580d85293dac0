//! The file-descriptor mount API: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), and what
//! pivoting a root needs.
//!
//! Invariant: nothing here takes a mount target by path where a descriptor will do, so that a target that was checked
//! once can't be swapped before it is used.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// Attributes of a mount, as mount_setattr(2) knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr(u64);

impl Attr {
    pub const RDONLY: Attr = Attr(0x1);
    pub const NOSUID: Attr = Attr(0x2);
    pub const NODEV: Attr = Attr(0x4);
    pub const NOEXEC: Attr = Attr(0x8);
    /// The mask of all access-time modes: must be cleared when one of them is set.
    pub const ATIME_MASK: Attr = Attr(0x70);
    pub const RELATIME: Attr = Attr(0x0);
    pub const NOATIME: Attr = Attr(0x10);
    pub const STRICTATIME: Attr = Attr(0x20);
    pub const NODIRATIME: Attr = Attr(0x80);
    pub const IDMAP: Attr = Attr(0x0010_0000);
    pub const NOSYMFOLLOW: Attr = Attr(0x0020_0000);

    #[must_use]
    pub const fn empty() -> Attr {
        Attr(0)
    }

    #[must_use]
    pub const fn union(self, other: Attr) -> Attr {
        Attr(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Attr) -> Attr {
        Attr(self.0 & !other.0)
    }

    #[must_use]
    pub const fn contains(self, other: Attr) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Propagation of a mount, as mount_setattr(2) takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// One mount_setattr(2) call.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr<'a> {
    pub set: Attr,
    pub clear: Attr,
    pub propagation: Option<Propagation>,
    /// User namespace of an id-mapped mount; needs [`Attr::IDMAP`] in `set`.
    pub userns: Option<BorrowedFd<'a>>,
    pub recursive: bool,
}

#[repr(C)]
struct RawAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes a mount by a descriptor of its root.
///
/// # Errors
/// As mount_setattr(2); `ENOSYS` before Linux 5.12.
pub fn set_attr(mount: BorrowedFd<'_>, change: SetAttr<'_>) -> io::Result<()> {
    let raw = RawAttr {
        attr_set: change.set.0,
        attr_clr: change.clear.0,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: change.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant and `raw` outlives the call; its size is passed with it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            std::mem::size_of::<RawAttr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Changes the propagation of the mount at `path` and of all below it: only for `/`, which nobody else can swap.
///
/// # Errors
/// As mount(2).
pub fn set_root_propagation(propagation: Propagation, recursive: bool) -> io::Result<()> {
    let flags = propagation.bits() | if recursive { libc::MS_REC } else { 0 };
    // SAFETY: all strings are NUL-terminated constants or null, as a change of propagation allows.
    let done = unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A new file system that is not attached anywhere: fsopen, its parameters, fsmount.
///
/// `options` are `key` or `key=value` as in mount(8)'s `-o`, without the per-mount flags.
///
/// # Errors
/// As fsopen(2), fsconfig(2) and fsmount(2); the message of the kernel's log of that file system is added where there is one.
pub fn new_filesystem(kind: &str, source: Option<&str>, options: &[&str], attr: Attr) -> io::Result<OwnedFd> {
    let fs = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = (|| {
        if let Some(source) = source {
            mount::fsconfig_set_string(fs.as_fd(), "source", source)?;
        }
        for option in options {
            match option.split_once('=') {
                Some((key, value)) => mount::fsconfig_set_string(fs.as_fd(), key, value)?,
                None => mount::fsconfig_set_flag(fs.as_fd(), *option)?,
            }
        }
        mount::fsconfig_create(fs.as_fd())
    })();
    if let Err(error) = configured {
        return Err(with_kernel_log(fs.as_fd(), error.into()));
    }
    Ok(mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attr.0 as _),
    )?)
}

/// Adds what the file system said about a failed fsconfig(2): the errno alone does not tell which option was wrong.
fn with_kernel_log(fs: BorrowedFd<'_>, error: io::Error) -> io::Error {
    let mut line = [0u8; 512];
    match rustix::io::read(fs, &mut line) {
        Ok(length) if length > 2 => {
            let said = String::from_utf8_lossy(&line[2..length]);
            io::Error::new(error.kind(), format!("{error}: {}", said.trim_end()))
        }
        _ => error,
    }
}

/// A detached copy of the mount at a descriptor (a bind mount in the making).
///
/// # Errors
/// As open_tree(2).
pub fn clone_tree(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(mount::open_tree(source, "", flags)?)
}

/// Attaches a detached mount on a target that was opened before.
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(mount::move_mount(mount, "", target, "", flags)?)
}

/// Makes the folder behind `root` the root of this mount namespace and takes the old root away.
///
/// The old root is stacked below the new one and detached there, so no folder for it is needed inside the container.
///
/// # Errors
/// As pivot_root(2), fchdir(2) and umount2(2).
pub fn pivot_into(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    let old = rustix::fs::openat(
        rustix::fs::CWD,
        "/",
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    // The old root must not carry the detachment to the host.
    // SAFETY: constants and nulls, as a change of propagation allows.
    let done = unsafe {
        libc::mount(
            std::ptr::null(),
            c".".as_ptr(),
            std::ptr::null(),
            libc::MS_SLAVE | libc::MS_REC,
            std::ptr::null(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Moves the mount at the working folder over `/` and makes it the root with chroot(2): for roots that can't be pivoted (initramfs).
///
/// # Errors
/// As mount(2), chroot(2).
pub fn move_root(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // SAFETY: all strings are NUL-terminated constants or null.
    let done = unsafe {
        libc::mount(
            c".".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_MOVE,
            std::ptr::null(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// [`filesystem_magic`] of a procfs.
pub const PROC_MAGIC: i64 = 0x9fa0;

/// The id of the file system at `path` by statfs(2)'s magic number.
///
/// # Errors
/// As fstatfs(2).
pub fn filesystem_magic(file: BorrowedFd<'_>) -> io::Result<i64> {
    #[allow(clippy::unnecessary_cast, reason = "its type differs by architecture")]
    Ok(rustix::fs::fstatfs(file)?.f_type as i64)
}

/// A path as a C string.
///
/// # Errors
/// A NUL byte inside.
pub fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

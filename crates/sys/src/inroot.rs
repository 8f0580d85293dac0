//! Paths inside a root filesystem that somebody hostile may have made: openat2(2) with RESOLVE_IN_ROOT and no magic links.
//!
//! Invariants: no function follows a link out of the root; what was opened once is used by descriptor; what is missing is
//! made one component at a time below a descriptor of its parent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::unguarded::without;

/// Opens `path` below `root` with O_PATH: the descriptor is a place, not a permission.
///
/// # Errors
/// As openat2(2).
pub fn open_path(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens `path` below `root` for reading, never waiting for the other end of a FIFO.
///
/// # Errors
/// As openat2(2).
pub fn open_read(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let (mut how, mut path) = (how, path);
    if without("in-root") {
        how = ResolveFlags::empty();
        path = path.strip_prefix("/").unwrap_or(path);
    }
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename anywhere in the tree while it resolved; the kernel asks to try again.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Something below a root that was opened with O_PATH.
#[derive(Debug)]
pub struct Place {
    pub fd: OwnedFd,
    /// No link led there: it is where its path says.
    pub straight: bool,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    /// Without a link if that goes, which hardly anybody has in such a place.
    fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<Place> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        match resolve(root, path, flags, how) {
            Ok(fd) => Ok(Place {
                fd,
                straight: !without("in-root"),
            }),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(Place {
                fd: open(root, path, flags)?,
                straight: false,
            }),
            Err(error) => Err(error),
        }
    }
}

/// Opens the folder `path` below `root` and makes what is missing of it, mode 0755.
///
/// # Errors
/// As openat2(2), mkdirat(2); `NotADirectory` if something else stands there.
pub fn ensure_dir(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    Ok(ensure_folder(root, path)?.fd)
}

/// As [`ensure_dir`]; also whether a link led there.
///
/// # Errors
/// As [`ensure_dir`].
pub fn ensure_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<Place> {
    match Place::open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let make = |folder: BorrowedFd<'_>, name: &std::ffi::OsStr| {
        match fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        open(folder, Path::new(name), flags)
    };
    let mut components = normal(path)?.into_iter().peekable();
    let mut so_far = PathBuf::new();
    let mut here: Option<Place> = None;
    while let Some(component) = components.next() {
        so_far.push(component);
        // Always from the root, so that a link in the middle is resolved inside it. The last is known to be missing.
        let known = match components.peek() {
            Some(_) => Place::open(root, &so_far, OFlags::PATH | OFlags::DIRECTORY),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let next = match known {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = here.as_ref().map_or(root, AsFd::as_fd);
                make(parent, component).map(|fd| Place {
                    fd,
                    straight: here.as_ref().is_none_or(|here| here.straight),
                })
            }
            other => other,
        };
        here = Some(next?);
    }
    match here {
        Some(here) => Ok(here),
        None => Place::open(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY),
    }
}

/// Opens the file `path` below `root` with O_PATH and makes it, empty and 0644, if it is missing, with the folders above it.
///
/// # Errors
/// As openat2(2), mknodat(2).
pub fn ensure_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<Place> {
    match Place::open(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = ensure_folder(root, parent)?;
    match fs::mknodat(&parent, name, fs::FileType::RegularFile, Mode::from_raw_mode(0o644), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Place {
        fd: open(parent.as_fd(), Path::new(name), OFlags::PATH | OFlags::NOFOLLOW)?,
        straight: parent.straight,
    })
}

/// The folder that holds `path`'s last component, made if it is missing, and that component.
///
/// # Errors
/// As [`ensure_dir`]; `InvalidInput` for a path without a last component.
pub fn parent_of<'p>(root: BorrowedFd<'_>, path: &'p Path) -> io::Result<(OwnedFd, &'p std::ffi::OsStr)> {
    let (parent, name) = split(path)?;
    Ok((ensure_dir(root, parent)?, name))
}

fn split(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")), name))
}

fn normal(path: &Path) -> io::Result<Vec<&std::ffi::OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::RootDir | Component::CurDir => {}
            // A link may be missing behind it; to make folders along `..` is never needed.
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(parts)
}

/// Makes a device node, FIFO or socket below `folder` with exactly this mode.
///
/// # Errors
/// As mknodat(2), fchmodat(2).
pub fn make_node(folder: BorrowedFd<'_>, name: &std::ffi::OsStr, kind: NodeKind, mode: u32) -> io::Result<()> {
    let (file_type, device) = match kind {
        NodeKind::Char(major, minor) => (fs::FileType::CharacterDevice, fs::makedev(major, minor)),
        NodeKind::Block(major, minor) => (fs::FileType::BlockDevice, fs::makedev(major, minor)),
        NodeKind::Fifo => (fs::FileType::Fifo, 0),
    };
    Ok(fs::mknodat(folder, name, file_type, Mode::from_raw_mode(mode), device)?)
}

/// What [`make_node`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// # Errors
/// As symlinkat(2).
pub fn make_link(folder: BorrowedFd<'_>, name: &std::ffi::OsStr, target: &str) -> io::Result<()> {
    Ok(fs::symlinkat(target, folder, name)?)
}

/// # Errors
/// As fchownat(2); never follows a link.
pub fn own_node(folder: BorrowedFd<'_>, name: &std::ffi::OsStr, uid: u32, gid: u32) -> io::Result<()> {
    // "Unchanged" to the kernel, and no id to rustix.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "4294967295 is no id"));
    }
    let flags = fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(fs::chownat(
        folder,
        name,
        Some(fs::Uid::from_raw(uid)),
        Some(fs::Gid::from_raw(gid)),
        flags,
    )?)
}

/// Whether the file is a folder, and its device number if it is a device.
///
/// # Errors
/// As fstat(2).
pub fn kind_of(file: BorrowedFd<'_>) -> io::Result<FileKind> {
    let stat = fs::fstat(file)?;
    Ok(match fs::FileType::from_raw_mode(stat.st_mode) {
        fs::FileType::Directory => FileKind::Folder,
        fs::FileType::CharacterDevice => FileKind::Char(fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        _ => FileKind::Other,
    })
}

/// See [`kind_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Folder,
    Char(u32, u32),
    Other,
}

/// Opens the null device at `/dev/null` below `root` for reading and writing, and nothing else that may stand there.
///
/// # Errors
/// As openat2(2); `InvalidData` if it is something else.
pub fn open_null(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let check = |file: &OwnedFd| match kind_of(file.as_fd())? {
        NULL => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not the null device")),
    };
    // As a place first: to open another device may do something. Then again, for it may have been swapped.
    check(&open_path(root, path)?)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open(root, path, flags)?;
    check(&opened)?;
    crate::file::set_nonblocking(&opened, false)?;
    Ok(opened)
}

/// The null device by its number.
pub const NULL: FileKind = FileKind::Char(1, 3);

/// Where `place`, which was opened below `root`, is: from `root`'s own `/` on, with all links resolved.
///
/// # Errors
/// As readlink(2) in /proc/self/fd; `InvalidData` if it is not below.
pub fn path_below(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let path =
        |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
    let (root, place) = (path(root)?, path(place)?);
    let below = place
        .strip_prefix(&root)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not below the root"))?;
    Ok(Path::new("/").join(below))
}

/// Opens a folder of the host by a path that the caller trusts.
///
/// # Errors
/// As openat(2).
pub fn open_host_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::openat(
        fs::CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens whatever is at a host path that the caller trusts, as a place.
///
/// # Errors
/// As openat(2).
pub fn open_host_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::openat(
        fs::CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// As [`ensure_folder`], but no component may be a link.
///
/// # Errors
/// `ELOOP` for a link; else as [`ensure_dir`].
pub fn ensure_plain_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<Place> {
    if without("plain-proc") {
        return ensure_folder(root, path);
    }
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let open = || {
        fs::openat2(
            root,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )
    };
    let fd = match open() {
        Err(rustix::io::Errno::NOENT) => {
            ensure_dir(root, path)?;
            open()?
        }
        other => other?,
    };
    Ok(Place { fd, straight: true })
}

/// Makes the file `name` in `folder`, or takes one that is there if it is no link.
///
/// # Errors
/// As openat2(2); `ELOOP` for a link.
pub fn ensure_own_file(folder: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<OwnedFd> {
    match fs::mknodat(folder, name, fs::FileType::RegularFile, Mode::from_raw_mode(0o644), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let resolve = if without("console") {
        ResolveFlags::empty()
    } else {
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
    };
    Ok(fs::openat2(
        folder,
        name,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?)
}

/// Permission bits of a file.
///
/// # Errors
/// As fstat(2).
pub fn mode_of(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(fs::fstat(file)?.st_mode & 0o7777)
}

/// Succeeds if `name` is this kind of node with this number.
///
/// # Errors
/// `AlreadyExists` if it is something else.
pub fn check_node(folder: BorrowedFd<'_>, name: &std::ffi::OsStr, kind: NodeKind) -> io::Result<()> {
    check_stat(&fs::statat(folder, name, fs::AtFlags::SYMLINK_NOFOLLOW)?, kind)
}

fn check_stat(stat: &fs::Stat, kind: NodeKind) -> io::Result<()> {
    let number = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let same = match (fs::FileType::from_raw_mode(stat.st_mode), kind) {
        (fs::FileType::CharacterDevice, NodeKind::Char(major, minor)) => number == (major, minor),
        (fs::FileType::BlockDevice, NodeKind::Block(major, minor)) => number == (major, minor),
        (fs::FileType::Fifo, NodeKind::Fifo) => true,
        _ => false,
    };
    if same {
        Ok(())
    } else {
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Gives a node that is there mode and owner, if it is this kind of node with this number.
///
/// # Errors
/// `AlreadyExists` if it is something else; as chmod(2), fchownat(2).
pub fn change_node(
    folder: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    kind: NodeKind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Held by descriptor, so that what is looked at is what is changed.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = fs::openat(folder, name, flags, Mode::empty())?;
    check_stat(&fs::fstat(&node)?, kind)?;
    if let Some(mode) = mode {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&node));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    match owner {
        Some((uid, gid)) if uid == u32::MAX || gid == u32::MAX => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "4294967295 is no id"))
        }
        Some((uid, gid)) => {
            let (uid, gid) = (Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)));
            Ok(fs::chownat(&node, "", uid, gid, fs::AtFlags::EMPTY_PATH)?)
        }
        None => Ok(()),
    }
}

/// Copies folders, plain files and links from one tree into another, with modes and owners.
///
/// # Errors
/// The first that any call answers.
pub fn copy_tree(from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> io::Result<()> {
    let listed = open_read(from, Path::new("."))?;
    for entry in fs::Dir::read_from(&listed)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = fs::statat(from, name, fs::AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::FileType::from_raw_mode(stat.st_mode) {
            fs::FileType::Directory => {
                fs::mkdirat(into, name, mode)?;
                let source = fs::openat(from, name, nofollow | OFlags::DIRECTORY, Mode::empty())?;
                let target = fs::openat(into, name, nofollow | OFlags::DIRECTORY, Mode::empty())?;
                copy_tree(source.as_fd(), target.as_fd())?;
            }
            fs::FileType::RegularFile => {
                let source = fs::openat(from, name, nofollow | OFlags::NONBLOCK, Mode::empty())?;
                let target = fs::openat(
                    into,
                    name,
                    nofollow | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
                    mode,
                )?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            fs::FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(&target, into, name)?;
            }
            _ => continue,
        }
        let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
        fs::chownat(into, name, Some(uid), Some(gid), fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Gives a file its SELinux label.
///
/// # Errors
/// As setxattr(2).
pub fn set_label(file: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let flags = fs::XattrFlags::empty();
    Ok(fs::setxattr(path, "security.selinux", label.as_bytes(), flags)?)
}

/// Whether the caller, by its effective ids, may execute the file at `path`.
///
/// # Errors
/// As faccessat2(2).
pub fn may_execute(path: &Path) -> io::Result<()> {
    Ok(fs::accessat(fs::CWD, path, fs::Access::EXEC_OK, fs::AtFlags::EACCESS)?)
}

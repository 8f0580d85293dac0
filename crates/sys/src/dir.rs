//! Folders by descriptor: nothing below is found by a path that somebody could have changed meanwhile.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// A folder by path, to read and to work below.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, FOLDER | OFlags::RDONLY, Mode::empty())?)
}

/// A folder by path as a mere place (O_PATH).
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, FOLDER | OFlags::PATH, Mode::empty())?)
}

/// A folder in a folder; a symlink is refused.
pub fn open_at(parent: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    Ok(openat(
        parent,
        name.as_ref(),
        FOLDER | OFlags::RDONLY | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// A file or folder below `root` as a mere place (O_PATH), resolved as if `root` were `/`: no `..`, no symlink and no magic link
/// leads out of it.
pub fn open_in_root(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => return Ok(fd),
            // A rename somewhere made the kernel give up on proving it; the manual says to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a folder with exactly this mode, whatever the umask; one that is there is used and its mode set. Gives it opened.
pub fn make_at(parent: impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> io::Result<OwnedFd> {
    match mkdirat(&parent, name.as_ref(), Mode::from_raw_mode(mode & 0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = open_at(parent, name)?;
    fchmod(&folder, Mode::from_raw_mode(mode))?;
    Ok(folder)
}

/// Makes a folder that must not be there yet.
pub fn make_new_at(parent: impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> io::Result<OwnedFd> {
    mkdirat(&parent, name.as_ref(), Mode::from_raw_mode(mode & 0o700))?;
    let folder = open_at(parent, name)?;
    fchmod(&folder, Mode::from_raw_mode(mode))?;
    Ok(folder)
}

/// Makes a folder and those above it that are missing, each with this mode; those that are there are left as they are.
pub fn make_all(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        open(Path::new("."))?
    } else {
        make_all(parent, mode)?
    };
    make_at(parent, name, mode)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    pub is_dir: bool,
}

/// What is in a folder (also one opened as a mere place), without `.` and `..`, in no order.
pub fn entries(folder: impl AsFd) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    visit(folder.as_fd(), |name, is_dir| {
        found.push(Entry {
            name: OsStr::from_bytes(name.as_bytes()).to_owned(),
            is_dir,
        });
        Ok(())
    })?;
    Ok(found)
}

fn visit(folder: BorrowedFd<'_>, mut each: impl FnMut(CString, bool) -> io::Result<()>) -> io::Result<()> {
    // A descriptor of its own: the position in a folder is shared by copies, and an O_PATH one can't be read.
    let readable = openat(folder, ".", FOLDER | OFlags::RDONLY, Mode::empty())?;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        each(entry.file_name().to_owned(), is_dir)?;
    }
    Ok(())
}

/// Removes a file or a whole tree, following no link and crossing into no mount (EBUSY or EXDEV then). Nothing there = done.
pub fn remove_tree(parent: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = CString::new(name.as_ref().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    if matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().contains(&b'/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    remove(parent.as_fd(), &name, 0)
}

fn remove(parent: BorrowedFd<'_>, name: &CString, depth: usize) -> io::Result<()> {
    // Each level holds a descriptor or two.
    const MAX_DEPTH: usize = 200;
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) if depth < MAX_DEPTH => {}
        Err(error) => return Err(error.into()),
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    let folder = match openat2(parent, name, FOLDER | OFlags::RDONLY, Mode::empty(), resolve) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Names first: removing while reading may skip some.
    let mut names = Vec::new();
    visit(folder.as_fd(), |name, _| {
        names.push(name);
        Ok(())
    })?;
    for name in &names {
        remove(folder.as_fd(), name, depth + 1)?;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes an empty folder. Nothing there = done.
pub fn remove_empty_at(parent: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    match unlinkat(parent, name.as_ref(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

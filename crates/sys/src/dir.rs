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

#[cfg(test)]
mod test {
    use super::*;
    use crate::{fifo, file};
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder that goes with the test.
    struct Temp(std::path::PathBuf);

    impl Temp {
        fn new(name: &str) -> (Self, OwnedFd) {
            let path = std::env::temp_dir().join(format!("berth-{name}-{}", std::process::id()));
            let folder = make_all(&path, 0o700).unwrap();
            (Self(path), folder)
        }

        fn mode(&self, name: &str) -> u32 {
            std::fs::metadata(self.0.join(name)).unwrap().permissions().mode() & 0o7777
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn modes_are_exact() {
        let (temp, folder) = Temp::new("modes");
        make_at(&folder, "open", 0o777).unwrap();
        make_at(&folder, "open", 0o711).unwrap();
        file::write_aside(&folder, "file", b"x", 0o666).unwrap();
        fifo::make_at(&folder, "fifo", 0o622).unwrap();
        assert_eq!(
            [temp.mode("open"), temp.mode("file"), temp.mode("fifo")],
            [0o711, 0o666, 0o622]
        );
        assert_eq!(
            make_new_at(&folder, "open", 0o700).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn removing_a_tree_follows_no_link() {
        let (temp, folder) = Temp::new("remove");
        make_all(&temp.0.join("keep"), 0o700).unwrap();
        std::fs::write(temp.0.join("keep/file"), "x").unwrap();
        make_all(&temp.0.join("tree/a/b"), 0o700).unwrap();
        std::fs::write(temp.0.join("tree/a/b/file"), "x").unwrap();
        symlink(temp.0.join("keep"), temp.0.join("tree/a/link")).unwrap();
        symlink(temp.0.join("keep"), temp.0.join("link")).unwrap();
        remove_tree(&folder, "tree").unwrap();
        remove_tree(&folder, "link").unwrap();
        remove_tree(&folder, "not there").unwrap();
        assert!(remove_tree(&folder, "..").is_err() && remove_tree(&folder, "keep/file").is_err());
        let names: Vec<_> = entries(&folder).unwrap();
        assert_eq!(
            names,
            [Entry {
                name: "keep".into(),
                is_dir: true
            }]
        );
        assert!(temp.0.join("keep/file").exists());
    }

    #[test]
    fn nothing_leads_out_of_a_root() {
        let (temp, folder) = Temp::new("root");
        make_all(&temp.0.join("root/etc"), 0o700).unwrap();
        symlink("/etc", temp.0.join("root/abs")).unwrap();
        symlink("../../../../etc", temp.0.join("root/rel")).unwrap();
        symlink("/proc/self/root", temp.0.join("root/magic")).unwrap();
        let root = open_at(&folder, "root").unwrap();
        let inode = |path: &str| {
            rustix::fs::fstat(open_in_root(&root, Path::new(path)).unwrap())
                .unwrap()
                .st_ino
        };
        assert!(inode("/etc") == inode("abs") && inode("rel") == inode("etc") && inode("/..") == inode("/"));
        assert!(open_in_root(&root, Path::new("magic")).is_err());
    }

    #[test]
    fn a_file_is_read_bounded_and_never_blocks() {
        let (temp, folder) = Temp::new("read");
        file::write_aside(&folder, "file", b"12345", 0o600).unwrap();
        fifo::make_at(&folder, "fifo", 0o600).unwrap();
        symlink("file", temp.0.join("link")).unwrap();
        assert_eq!(file::read_at(&folder, "file", 5).unwrap(), b"12345");
        for name in ["file", "fifo"] {
            assert_eq!(
                file::read_at(&folder, name, 4).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{name}"
            );
        }
        assert!(file::read_at(&folder, "link", 5).is_err());
        assert_eq!(
            fifo::open(&temp.0.join("file"), fifo::End::Read).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let reader = fifo::open(&temp.0.join("fifo"), fifo::End::Both).unwrap();
        assert_eq!(file::read_some(reader, &mut [0]).unwrap(), None);
        let error = fifo::open(&temp.0.join("fifo"), fifo::End::Write).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn a_reserved_file_is_written_over_and_cut() {
        let (temp, folder) = Temp::new("reserve");
        file::reserve(&folder, "r", 4096, 0o600).unwrap();
        file::overwrite(&folder, "r", b"short").unwrap();
        file::rename_at(&folder, "r", "done").unwrap();
        assert_eq!(std::fs::read(temp.0.join("done")).unwrap(), b"short");
        assert!(file::exists_at(&folder, "done").unwrap() && !file::exists_at(&folder, "r").unwrap());
    }

    #[test]
    fn a_lock_is_had_once() {
        let (_temp, folder) = Temp::new("lock");
        let first = file::create_at(&folder, "l", file::Open::ReadWrite, 0o600).unwrap();
        let second = file::create_at(&folder, "l", file::Open::ReadWrite, 0o600).unwrap();
        assert!(file::try_lock(&first).unwrap() && !file::try_lock(&second).unwrap());
        drop(first);
        assert!(file::try_lock(&second).unwrap());
    }
}

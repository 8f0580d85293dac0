//! From a tar stream to files, whoever made the stream.
//!
//! Invariants, here (the stream may be a container's): every folder is opened below the destination without following a symbolic link,
//! every file is made anew, no hard link, no device, no set-user-id bit is taken over. Inside a container the root is the container's:
//! its own links are followed, to nowhere but itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::out::complain;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Where a copy goes, by the rules of cp(1).
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub path: PathBuf,
    /// What it is called in a folder that is there; none = only its contents are copied.
    pub name: Option<OsString>,
}

impl Target {
    pub fn new(path: &Path, source: &Path) -> Self {
        let bytes = source.as_os_str().as_bytes();
        let only_contents = bytes.ends_with(b"/.") || bytes == b".";
        Self {
            path: path.to_owned(),
            name: source.file_name().filter(|_| !only_contents).map(OsStr::to_owned),
        }
    }
}

pub fn outside(stream: impl Read, target: &Target, archive: bool) -> io::Result<()> {
    let rules = Rules {
        to_folder: ResolveFlags::empty(),
        below: ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS),
        trusted: false,
        archive,
    };
    unpack(stream, &target.path, Some(target), &rules)
}

/// Of somebody's stream without a target: as it is, into the folder `path`.
pub fn inside(stream: impl Read, path: &Path, target: Option<&Target>, archive: bool) -> io::Result<()> {
    let rules = Rules {
        to_folder: ResolveFlags::NO_MAGICLINKS,
        below: ResolveFlags::NO_MAGICLINKS,
        trusted: true,
        archive,
    };
    unpack(stream, path, target, &rules)
}

struct Rules {
    /// On the way to the destination, which somebody typed.
    to_folder: ResolveFlags,
    /// Below it.
    below: ResolveFlags,
    trusted: bool,
    archive: bool,
}

fn unpack(stream: impl Read, path: &Path, target: Option<&Target>, rules: &Rules) -> io::Result<()> {
    let mut archive = Archive::new(io::BufReader::with_capacity(1 << 16, stream));
    let mut tree = match target {
        None => Some(Tree {
            folder: open_folder(path, rules)?,
            top: None,
        }),
        Some(_) => None,
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let tree = match (&mut tree, target) {
            (Some(tree), _) => tree,
            (none, Some(target)) => none.insert(Tree::find(target, entry.header().entry_type(), rules)?),
            (None, None) => return Ok(()),
        };
        let path = entry.path()?.into_owned();
        tree.put(&mut entry, &path, rules)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    // To its end, or whoever writes it gets SIGPIPE.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

fn open_folder(path: &Path, rules: &Rules) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let opened = rustix::fs::openat2(CWD, path, FOLDER, Mode::empty(), rules.to_folder);
    opened.map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", path.display())))
}

/// A destination.
struct Tree {
    folder: OwnedFd,
    /// What the stream's first part is called here; empty = it is `folder` itself. None = as in the stream.
    top: Option<OsString>,
}

impl Tree {
    fn find(target: &Target, kind: EntryType, rules: &Rules) -> io::Result<Self> {
        let is_folder = kind == EntryType::Directory;
        let refuse = |kind, why: &str| Err(io::Error::new(kind, format!("{}: {why}", target.path.display())));
        match open_folder(&target.path, rules) {
            Ok(folder) => {
                let top = match &target.name {
                    Some(name) => name.clone(),
                    None if is_folder => OsString::new(),
                    None => return refuse(io::ErrorKind::InvalidInput, "the copy would have no name there"),
                };
                return Ok(Self { folder, top: Some(top) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && is_folder => {
                return refuse(error.kind(), "a folder can't be copied over a file");
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
        let wants_folder = target.path.as_os_str().as_bytes().ends_with(b"/");
        match (target.path.parent(), target.path.file_name()) {
            (Some(parent), Some(name)) if is_folder || !wants_folder => Ok(Self {
                folder: open_folder(parent, rules)?,
                top: Some(name.to_owned()),
            }),
            _ => refuse(io::ErrorKind::NotFound, "no such folder"),
        }
    }

    fn put<R: Read>(&self, entry: &mut Entry<'_, R>, path: &Path, rules: &Rules) -> io::Result<()> {
        let path = self.place(path)?;
        let (Some(name), kind) = (path.file_name(), entry.header().entry_type()) else {
            // The destination itself, which is there.
            return Ok(());
        };
        let parent = self.parent(path.parent().unwrap_or(Path::new("")), rules)?;
        let bits = if rules.trusted { 0o7777 } else { 0o777 };
        let mode = Mode::from_raw_mode(entry.header().mode()? & bits);
        match kind {
            EntryType::Directory => {
                let is_new = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(error) => return Err(error.into()),
                };
                // A link to a folder is one inside, and here is in the way.
                let made = rustix::fs::openat2(&parent, name, FOLDER, Mode::empty(), rules.below)?;
                // What was there stays as it was.
                if is_new {
                    if rules.archive {
                        own(&made, "", entry, AtFlags::EMPTY_PATH)?;
                    }
                    rustix::fs::fchmod(&made, mode)?;
                }
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(&parent, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(entry, &mut file)?;
                if rules.archive {
                    own(&file, "", entry, AtFlags::EMPTY_PATH)?;
                }
                rustix::fs::fchmod(&file, mode)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                clear(&parent, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)?;
                if rules.archive {
                    own(&parent, name, entry, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            EntryType::Link if rules.trusted => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                let target = self.place(&target)?;
                let folder = self.parent(target.parent().unwrap_or(Path::new("")), rules)?;
                clear(&parent, name)?;
                let of = target.file_name().unwrap_or_default();
                return Ok(rustix::fs::linkat(&folder, of, &parent, name, AtFlags::empty())?);
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block if rules.trusted || kind == EntryType::Fifo => {
                let (of, device) = match kind {
                    EntryType::Char => (FileType::CharacterDevice, device(entry)?),
                    EntryType::Block => (FileType::BlockDevice, device(entry)?),
                    _ => (FileType::Fifo, 0),
                };
                clear(&parent, name)?;
                rustix::fs::mknodat(&parent, name, of, mode, device)?;
                if rules.archive {
                    own(&parent, name, entry, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            EntryType::XGlobalHeader => return Ok(()),
            _ => {
                complain(&format!(
                    "cp: {} is left out: it is no file, folder or link",
                    path.display()
                ));
                return Ok(());
            }
        }
        let time = Timespec {
            tv_sec: entry
                .header()
                .mtime()
                .ok()
                .and_then(|time| i64::try_from(time).ok())
                .unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The path below the folder of what is called `path` in the stream.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a name that leads upwards"));
                }
            }
        }
        if let (Some(top), false) = (&self.top, parts.is_empty()) {
            parts.remove(0);
            if !top.is_empty() {
                parts.insert(0, top);
            }
        }
        Ok(parts.into_iter().collect())
    }

    /// Opens this folder, making what of it is not there.
    fn parent(&self, path: &Path, rules: &Rules) -> io::Result<OwnedFd> {
        let open = |path: &Path| {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            rustix::fs::openat2(&self.folder, path, FOLDER, Mode::empty(), rules.below)
        };
        match open(path) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let mut made = PathBuf::new();
        for part in path {
            let above = open(&made)?;
            match rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => made.push(part),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(open(path)?)
    }
}

/// What is in the way of a file goes; a folder does not.
fn clear(folder: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn own<R: Read>(folder: impl AsFd, name: impl AsRef<OsStr>, entry: &Entry<'_, R>, flags: AtFlags) -> io::Result<()> {
    let number = |number: u64| u32::try_from(number).ok().filter(|number| *number != u32::MAX);
    let uid = number(entry.header().uid()?).map(rustix::fs::Uid::from_raw);
    let gid = number(entry.header().gid()?).map(rustix::fs::Gid::from_raw);
    Ok(rustix::fs::chownat(folder, name.as_ref(), uid, gid, flags)?)
}

fn device<R: Read>(entry: &Entry<'_, R>) -> io::Result<rustix::fs::Dev> {
    let header = entry.header();
    let (major, minor) = (header.device_major()?, header.device_minor()?);
    Ok(rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0)))
}

#[cfg(test)]
mod test {
    use super::*;
    use tar::{Builder, Header};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("berth-cp-{name}.{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("to")).expect("a folder");
            Self(path)
        }

        fn to(&self) -> Target {
            Target::new(&self.0.join("to"), Path::new("/x/."))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("removed");
        }
    }

    fn stream(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (path, kind, of) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6777);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1);
            // By hand: the library refuses to write what is to be refused.
            header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if *kind == EntryType::Regular {
                of.as_bytes()
            } else {
                &[]
            };
            if data.is_empty() && !of.is_empty() {
                header.as_gnu_mut().expect("gnu").linkname[..of.len()].copy_from_slice(of.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, data).expect("an entry");
        }
        tar.into_inner().expect("a stream")
    }

    const DIR: (&str, EntryType, &str) = ("it", EntryType::Directory, "");

    #[test]
    fn a_stream_that_lies_gets_nothing_out_of_its_folder() {
        let folder = Folder::new("lies");
        let out = folder.0.join("outside");
        std::fs::write(&out, "untouched").expect("a file");
        let up = folder.0.to_string_lossy().into_owned();
        for lie in [
            vec![DIR, ("it/../../outside", EntryType::Regular, "x")],
            vec![
                DIR,
                ("it/link", EntryType::Symlink, &up),
                ("it/link/outside", EntryType::Regular, "x"),
            ],
            vec![
                DIR,
                ("it/link", EntryType::Symlink, &up),
                ("it/link", EntryType::Directory, ""),
            ],
            vec![
                DIR,
                ("it/link", EntryType::Symlink, &up),
                ("it/link/new/f", EntryType::Regular, "x"),
            ],
        ] {
            let error = outside(stream(&lie).as_slice(), &folder.to(), true);
            assert!(error.is_err(), "{lie:?}");
        }
        // Replaced, not written through; hard links and devices are left out.
        let file = out.to_string_lossy().into_owned();
        let entries = [
            DIR,
            ("it/f", EntryType::Symlink, file.as_str()),
            ("it/f", EntryType::Regular, "mine"),
            ("it/hard", EntryType::Link, file.as_str()),
            ("it/disk", EntryType::Block, ""),
        ];
        outside(stream(&entries).as_slice(), &folder.to(), true).expect("unpacked");
        assert_eq!(std::fs::read_to_string(&out).expect("read"), "untouched");
        let made = folder.0.join("to/f");
        assert_eq!(std::fs::read_to_string(&made).expect("read"), "mine");
        assert_eq!(
            rustix::fs::stat(&made).expect("stat").st_mode & 0o7777,
            0o777,
            "no set-user-id"
        );
        for left_out in ["hard", "disk"] {
            assert!(!folder.0.join("to").join(left_out).exists(), "{left_out}");
        }
        assert!(!folder.0.join("new").exists());
    }

    #[test]
    fn destinations_are_those_of_cp() {
        let folder = Folder::new("rules");
        let it = |path: &str, source: &str| Target::new(&folder.0.join(path), Path::new(source));
        let file = stream(&[("it", EntryType::Regular, "text")]);
        let tree = stream(&[DIR, ("it/f", EntryType::Regular, "text")]);
        let put = |stream: &[u8], target: Target| outside(stream, &target, false);
        let read = |path: &str| std::fs::read_to_string(folder.0.join(path)).unwrap_or_default();
        put(&file, it("to", "/a/name")).expect("into a folder");
        assert_eq!(read("to/name"), "text");
        put(&file, it("other", "/a/name")).expect("under another name");
        put(&file, it("other", "/a/name")).expect("over what is there");
        assert_eq!(read("other"), "text");
        put(&tree, it("to", "/a/tree")).expect("a folder into a folder");
        put(&tree, it("to", "/a/tree/.")).expect("its contents");
        put(&tree, it("new", "/a/tree")).expect("under another name");
        for path in ["to/tree/f", "to/f", "new/f"] {
            assert_eq!(read(path), "text", "{path}");
        }
        assert!(put(&tree, it("other", "/a/tree")).is_err(), "over a file");
        assert!(
            put(&file, it("no/such", "/a/name")).is_err(),
            "a folder that is not there"
        );
        assert!(
            put(&file, it("missing/", "/a/name")).is_err(),
            "a folder that is not there"
        );
    }
}

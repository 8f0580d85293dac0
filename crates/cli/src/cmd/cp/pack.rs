//! From files to a tar stream. Each folder is read by its descriptor and nothing below the top is followed, so that what a hostile
//! owner of the files moves meanwhile changes what is read, but never leads elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use tar::{Builder, EntryType, Header};

use crate::out::complain;

/// The name at the top of a stream from one half to the other, which gives it its own.
pub const TOP: &str = "it";

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Kernel file systems: what lies in them is no data.
const KERNELS: [u64; 10] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
];

/// What is copied.
#[derive(Debug)]
pub enum Source {
    /// `name` in this folder, not followed.
    Entry { folder: OwnedFd, name: OsString },
    /// This folder itself, by a path that names none: `/`, `a/.`, `a/..`.
    Folder(OwnedFd),
}

impl Source {
    /// Of a path inside, where the root is the container's.
    pub fn inside(path: &Path, follow: bool) -> io::Result<Self> {
        Self::find(path, follow, ResolveFlags::NO_MAGICLINKS)
    }

    pub fn outside(path: &Path, follow: bool) -> io::Result<Self> {
        Self::find(path, follow, ResolveFlags::empty())
    }

    fn find(path: &Path, follow: bool, rules: ResolveFlags) -> io::Result<Self> {
        let folder =
            |path: &Path| -> io::Result<OwnedFd> { Ok(rustix::fs::openat2(CWD, path, FOLDER, Mode::empty(), rules)?) };
        let mut path = path.to_owned();
        for _ in 0..40 {
            let Some(Component::Normal(name)) = path.components().next_back().filter(|_| !names_a_folder(&path)) else {
                return folder(&path).map(Self::Folder);
            };
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => folder(parent)?,
                _ => folder(Path::new("."))?,
            };
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !follow || FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok(Self::Entry {
                    name: name.to_owned(),
                    folder: parent,
                });
            }
            let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        Err(rustix::io::Errno::LOOP.into())
    }

    /// As the last part of its path gives it.
    pub fn name(&self) -> Option<&OsStr> {
        match self {
            Self::Entry { name, .. } => Some(name),
            Self::Folder(_) => None,
        }
    }
}

/// `a/` and `a/.` are what `a` points to.
fn names_a_folder(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}

pub fn pack(source: &Source, top: &Path, stream: impl Write) -> io::Result<()> {
    let mut packer = Packer(Builder::new(io::BufWriter::with_capacity(1 << 16, stream)));
    match source {
        Source::Entry { folder, name } => packer.add(folder.as_fd(), name, top, None)?,
        Source::Folder(folder) => packer.add_folder(folder.as_fd(), top, None)?,
    }
    packer.0.into_inner()?.flush()
}

struct Packer<W: Write>(Builder<W>);

impl<W: Write> Packer<W> {
    /// `device` is that of the folder above.
    fn add(&mut self, folder: BorrowedFd<'_>, name: &OsStr, path: &Path, device: Option<u64>) -> io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let within = |error: rustix::io::Errno| named(path, error.into());
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(within)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = rustix::fs::openat(folder, name, flags | FOLDER, Mode::empty()).map_err(within)?;
                self.add_folder(inner.as_fd(), path, device)
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(within)?;
                let stat = rustix::fs::fstat(&file).map_err(within)?;
                // Something else was put in its place.
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(());
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let mut header = header(&stat, EntryType::Regular, size);
                // Exactly so many bytes, though it grows or shrinks.
                let bytes = File::from(file).chain(io::repeat(0)).take(size);
                self.0.append_data(&mut header, path, bytes)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(within)?;
                let mut header = header(&stat, EntryType::Symlink, 0);
                self.0
                    .append_link(&mut header, path, OsStr::from_bytes(target.as_bytes()))
            }
            FileType::Fifo => self.empty(&stat, EntryType::Fifo, path),
            FileType::CharacterDevice => self.empty(&stat, EntryType::Char, path),
            FileType::BlockDevice => self.empty(&stat, EntryType::Block, path),
            FileType::Socket | FileType::Unknown => {
                complain(&format!("cp: {} is left out: a socket is no file", path.display()));
                Ok(())
            }
        }
    }

    fn empty(&mut self, stat: &Stat, kind: EntryType, path: &Path) -> io::Result<()> {
        let mut header = header(stat, kind, 0);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        self.0.append_data(&mut header, path, io::empty())
    }

    fn add_folder(&mut self, folder: BorrowedFd<'_>, path: &Path, device: Option<u64>) -> io::Result<()> {
        let within = |error: rustix::io::Errno| named(path, error.into());
        let stat = rustix::fs::fstat(folder).map_err(within)?;
        let mut header = header(&stat, EntryType::Directory, 0);
        self.0.append_data(&mut header, path, io::empty())?;
        if device.is_some_and(|device| device != stat.st_dev) {
            let kind = rustix::fs::fstatfs(folder).map_err(within)?.f_type;
            if KERNELS
                .iter()
                .any(|kernel| i128::from(*kernel) == i128::from(kind) & 0xffff_ffff)
            {
                return Ok(());
            }
        }
        for entry in Dir::read_from(folder).map_err(within)? {
            let entry = entry.map_err(within)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                match self.add(folder, name, &path.join(name), Some(stat.st_dev)) {
                    // It went away meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    let below = path.components().skip(1).collect::<PathBuf>();
    if below.as_os_str().is_empty() {
        return error;
    }
    io::Error::new(error.kind(), format!("{}: {error}", below.display()))
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

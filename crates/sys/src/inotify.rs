//! inotify(7): who changed something in a folder.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// A watched folder. One folder has one number, however often it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch(i32);

/// What [`Inotify::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Changed(Watch),
    /// The folder is gone, and its watch with it.
    Removed(Watch),
    /// The kernel's queue overflowed: anything may have changed.
    Overflow,
}

/// An instance; the kernel allows a user only few (128), with many watches each.
#[derive(Debug)]
pub struct Inotify {
    fd: OwnedFd,
}

impl Inotify {
    /// inotify_init1(2), non-blocking.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Inotify { fd })
    }

    /// inotify_add_watch(2) for files written, made, moved or removed in this folder.
    pub fn add_folder(&self, path: &Path) -> io::Result<Watch> {
        let flags =
            WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        Ok(Watch(inotify::add_watch(&self.fd, path, flags)?))
    }

    /// inotify_rm_watch(2); the kernel then says [`Notice::Removed`].
    pub fn remove(&self, watch: Watch) -> io::Result<()> {
        Ok(inotify::remove_watch(&self.fd, watch.0)?)
    }

    /// Reads all that is there now.
    pub fn read(&self, mut each: impl FnMut(Notice)) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let watch = Watch(event.wd());
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                each(Notice::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                each(Notice::Removed(watch));
            } else {
                each(Notice::Changed(watch));
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An instance for one file: readable (non-blocking) when something has written to it.
pub fn watch_changes(path: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, path, WatchFlags::MODIFY)?;
    Ok(fd)
}

/// An instance for some open files, by whatever name: readable (non-blocking) when somebody has opened or read one of them.
pub fn watch_use<'a>(files: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    for file in files {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&fd, path, WatchFlags::OPEN | WatchFlags::ACCESS)?;
    }
    Ok(fd)
}

/// For event loops that take raw descriptors.
impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_folder_tells_what_happens_in_it() {
        let dir = std::env::temp_dir().join(format!("berth-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let inotify = Inotify::new().expect("an instance");
        let watch = inotify.add_folder(&dir).expect("a watch");
        assert_eq!(inotify.add_folder(&dir).expect("the same"), watch);
        let seen = || {
            let mut seen = Vec::new();
            inotify.read(|notice| seen.push(notice)).expect("readable");
            seen
        };
        assert_eq!(seen(), []);
        std::fs::write(dir.join("a"), "x").expect("a file");
        assert!(seen().contains(&Notice::Changed(watch)));
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(seen().last(), Some(&Notice::Removed(watch)));
    }
}

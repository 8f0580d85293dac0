//! OOM kills of a cgroup: how many there were, and a descriptor that wakes when there may be more.
//!
//! v1 and hybrid: an eventfd that is registered with the group. v2: `memory.events` itself, which the kernel calls exceptional
//! (POLLPRI) after each change until it is read again. No inotify: a user has few instances of it (128), and there may be thousands
//! of containers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Group, Version, parse};
use crate::eventfd::EventFd;

/// The group's own counter, held open.
#[derive(Debug)]
pub struct OomKills {
    /// v1's registration lives as long as this, too.
    file: File,
    /// v1, if it could be registered.
    event: Option<EventFd>,
    version: Version,
    last: u64,
}

impl OomKills {
    /// Opens the counter and reads it. NotFound if there is no memory controller.
    pub fn of(group: &Group) -> io::Result<Self> {
        let folder = group.folder("memory").ok_or(io::ErrorKind::NotFound)?;
        let name = match group.version {
            Version::V2 => "memory.events",
            Version::V1 | Version::Hybrid => "memory.oom_control",
        };
        Self::of_file(&folder.join(name), group.version)
    }

    pub(super) fn of_file(path: &Path, version: Version) -> io::Result<Self> {
        let mut kills = Self {
            file: File::open(path)?,
            event: None,
            version,
            last: 0,
        };
        kills.read()?;
        Ok(kills)
    }

    /// Asks for notices: from now on [`AsFd`] is worth watching. Nothing to do under v2.
    pub fn watch(&mut self, group: &Group) -> io::Result<()> {
        if self.version == Version::V2 {
            return Ok(());
        }
        let folder = group.folder("memory").ok_or(io::ErrorKind::NotFound)?;
        let event = EventFd::new()?;
        // In one write, or the kernel takes its first piece for all of it.
        let line = format!("{} {}", event.as_fd().as_raw_fd(), self.file.as_raw_fd());
        super::control::write(&folder.join("cgroup.event_control"), &line)?;
        self.event = Some(event);
        Ok(())
    }

    /// To be watched for POLLPRI, not for POLLIN: a file can always be read.
    #[must_use]
    pub fn is_priority(&self) -> bool {
        self.version == Version::V2
    }

    /// Kills since the group was made, under v1 without those of groups below; takes the notice away. An error = the group is gone,
    /// and nothing will be told any more.
    pub fn read(&mut self) -> io::Result<u64> {
        if let Some(event) = &self.event {
            event.read()?;
        }
        let mut buffer = [0; 1024];
        let len = self.file.read_at(&mut buffer, 0)?;
        let text = std::str::from_utf8(&buffer[..len]).unwrap_or_default();
        self.last = parse::keyed(text, "oom_kill").unwrap_or(self.last);
        Ok(self.last)
    }

    /// As it was read last.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// What wakes.
impl AsFd for OomKills {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_ref().map_or(self.file.as_fd(), AsFd::as_fd)
    }
}

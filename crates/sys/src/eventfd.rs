//! A counter as a descriptor, non-blocking: wakes another process or tells of a cgroup's event.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;

#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Takes one that came from elsewhere.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Adds 1. A counter that is full is as good as told.
    pub fn notify(&self) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The count since the last read; 0 = none.
    pub fn read(&self) -> io::Result<u64> {
        read_counter(self.0.as_fd())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}

pub(crate) fn read_counter(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut bytes)) {
        Ok(_) => Ok(u64::from_ne_bytes(bytes)),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

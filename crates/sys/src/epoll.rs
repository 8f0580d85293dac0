//! epoll with tokens, level-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// What to be told of. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
    /// Exceptional conditions, such as POLLPRI of a pressure file.
    pub priority: bool,
}

impl Interest {
    pub const READ: Self = Self {
        read: true,
        write: false,
        priority: false,
    };
    pub const WRITE: Self = Self {
        read: false,
        write: true,
        priority: false,
    };
    pub const BOTH: Self = Self {
        read: true,
        write: true,
        priority: false,
    };
    /// Only errors and hang-ups.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        priority: false,
    };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN | EventFlags::RDHUP, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags.set(EventFlags::PRI, self.priority);
        flags
    }
}

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    pub priority: bool,
    /// The peer is gone (EPOLLHUP): there may still be bytes to read.
    pub hangup: bool,
    pub error: bool,
}

pub struct Epoll {
    fd: OwnedFd,
    /// Reused by each wait.
    events: Vec<epoll::Event>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        Self::with_capacity(32)
    }

    /// At most this many events come out of one wait.
    pub fn with_capacity(events: usize) -> io::Result<Self> {
        Ok(Self {
            fd: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(events.max(1)),
        })
    }

    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, EventData::new_u64(token), interest.flags())?)
    }

    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(
            &self.fd,
            fd,
            EventData::new_u64(token),
            interest.flags(),
        )?)
    }

    /// Call it before the descriptor is closed: a copy of it in another process would keep it registered.
    pub fn delete(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Appends what is ready to `out`; nothing if the timeout came first or a signal interrupted. No timeout = for ever.
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout.map(rustix::event::Timespec::try_from).transpose();
        let timeout = timeout.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.events.clear();
        match epoll::wait(&self.fd, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        out.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: flags.contains(EventFlags::OUT),
                priority: flags.contains(EventFlags::PRI),
                hangup: flags.contains(EventFlags::HUP),
                error: flags.contains(EventFlags::ERR),
            }
        }));
        Ok(())
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Epoll").field(&self.fd).finish()
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

//! What the loop watches: an fd, what it waits for, and whose it is.
//!
//! Invariants: an fd without a wish is not in the epoll set at all (a hung-up pipe that nobody may read now would spin the
//! loop); an fd leaves the set before it is closed, because a forked child may keep its description open.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use berth_sys::epoll::{Epoll, Interest, Ready as Kernel};

/// Whose fd is ready. Numbers are never used again, so that a late event finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Signals,
    Listener,
    Conn(u32),
    /// Reports of a creator.
    Task(u32),
    /// A part of a process's stdio.
    Io(u32, Part),
    Oom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A runtime connects to the console socket.
    Console,
    /// Output of the process: its pipe or terminal.
    Stdout,
    Stderr,
    /// The FIFO that a terminal's output goes to.
    Sink,
    /// The FIFO that a terminal's input comes from.
    Feed,
    /// The pipe or terminal that takes input.
    Inlet,
    /// The writer has made room.
    Room,
    /// Somebody reads what an ended process wrote.
    Unread,
}

const PARTS: [Part; 8] = [
    Part::Console,
    Part::Stdout,
    Part::Stderr,
    Part::Sink,
    Part::Feed,
    Part::Inlet,
    Part::Room,
    Part::Unread,
];

impl Token {
    fn number(self) -> u64 {
        let pack = |kind: u64, id: u32| kind << 32 | u64::from(id);
        match self {
            Token::Signals => pack(0, 0),
            Token::Listener => pack(1, 0),
            Token::Conn(id) => pack(2, id),
            Token::Task(id) => pack(3, id),
            Token::Oom => pack(4, 0),
            Token::Io(id, part) => pack(16 + part as u64, id),
        }
    }

    fn from_number(number: u64) -> Option<Token> {
        let id = number as u32;
        Some(match number >> 32 {
            0 => Token::Signals,
            1 => Token::Listener,
            2 => Token::Conn(id),
            3 => Token::Task(id),
            4 => Token::Oom,
            part => Token::Io(id, *PARTS.get(part.checked_sub(16)? as usize)?),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    pub read: bool,
    pub write: bool,
    /// Something exceptional, as files of cgroup v2 tell their changes.
    pub priority: bool,
}

impl Want {
    pub const NONE: Want = Want {
        read: false,
        write: false,
        priority: false,
    };
    pub const READ: Want = Want {
        read: true,
        ..Want::NONE
    };
    pub const WRITE: Want = Want {
        write: true,
        ..Want::NONE
    };
    pub const PRIORITY: Want = Want {
        priority: true,
        ..Want::NONE
    };

    fn interest(self) -> Interest {
        Interest {
            read: self.read,
            write: self.write,
            priority: self.priority,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Poll(Rc<RefCell<Epoll>>);

/// A ready fd. A hang-up or an error counts as readable: the read that follows tells. Writers just try.
#[derive(Debug)]
pub struct Ready {
    pub token: Token,
    pub read: bool,
}

impl Ready {
    fn of(kernel: &Kernel) -> Option<Ready> {
        let broken = kernel.hangup || kernel.error;
        let token = Token::from_number(kernel.token)?;
        Some(Ready {
            token,
            read: kernel.readable || broken,
        })
    }
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        Ok(Poll(Rc::new(RefCell::new(Epoll::with_capacity(16)?))))
    }

    /// Waits. None = for ever.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        let mut events = Vec::new();
        self.0.borrow_mut().wait(timeout, &mut events)?;
        Ok(events.iter().filter_map(Ready::of).collect())
    }

    pub fn watch(&self, fd: OwnedFd, token: Token, want: Want) -> io::Result<Watched> {
        let mut watched = Watched {
            poll: self.clone(),
            fd: fd.into(),
            token,
            now: Want::NONE,
        };
        watched.want(want)?;
        Ok(watched)
    }
}

/// An fd that belongs to the loop.
#[derive(Debug)]
pub struct Watched {
    poll: Poll,
    fd: File,
    token: Token,
    now: Want,
}

impl Watched {
    pub fn want(&mut self, want: Want) -> io::Result<()> {
        let epoll = self.poll.0.borrow();
        match (self.now == Want::NONE, want == Want::NONE) {
            _ if want == self.now => {}
            (true, _) => epoll.add(&self.fd, self.token.number(), want.interest())?,
            (false, true) => epoll.delete(&self.fd)?,
            (false, false) => epoll.modify(&self.fd, self.token.number(), want.interest())?,
        }
        self.now = want;
        Ok(())
    }

    /// read(2), whatever kind of fd it is.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.fd).read(buffer)
    }

    /// write(2).
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.fd).write(bytes)
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It fails only if it is not in the set.
        let _ = self.want(Want::NONE);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let parts = PARTS.into_iter().map(|part| Token::Io(7, part));
        let all = [
            Token::Signals,
            Token::Listener,
            Token::Conn(u32::MAX),
            Token::Task(9),
            Token::Oom,
        ];
        for token in all.into_iter().chain(parts) {
            assert_eq!(Token::from_number(token.number()), Some(token));
        }
        assert_eq!(Token::from_number(u64::MAX), None);
        assert_eq!(Token::from_number(5 << 32), None);
    }
}

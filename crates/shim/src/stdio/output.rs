//! Output that passes through the loop: from pipes or a terminal to a FIFO, to the ring, or nowhere.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::unread::Unread;
use super::{io as failed, nonblocking};
use crate::error::Error;
use crate::watch::{Part, Poll, Token, Want, Watched};
use crate::writer::{Fill, Ring, Stream};

/// What a terminal's relay holds, and what is read at once to be dropped.
const RELAY: usize = 4 << 10;
/// Reads of one source before others have a turn.
const TURN: usize = 16;
/// Writers that may die one after the other before output is no longer written.
const DEATHS: u32 = 5;

#[derive(Debug)]
pub struct Output {
    /// It had a source: that there is none now means the end.
    begun: bool,
    sources: Vec<Source>,
    sink: Sink,
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    fd: Watched,
}

#[derive(Debug)]
pub enum Sink {
    Nowhere,
    /// A creator is about to open it.
    Awaited,
    Fifo(Relay),
    /// Everything is written.
    Unread(Unread),
    Ring(Box<Kept>),
}

/// A terminal's output on its way to a FIFO.
#[derive(Debug)]
pub struct Relay {
    fd: Watched,
    pending: VecDeque<u8>,
    hold: OwnedFd,
    owner: u32,
    poll: Poll,
}

/// Output that Berth keeps.
pub struct Kept {
    pub ring: Ring,
    pub writer: Option<i32>,
    pub room: Option<Watched>,
    /// The ring was told that no more comes.
    pub finished: bool,
    /// Since a writer has written something.
    pub deaths: u32,
    /// What was written at the last death.
    pub written: u64,
    /// Its files are being removed.
    pub given_up: bool,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("writer", &self.writer)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

/// What became of one source in one turn.
enum Turn {
    Empty,
    /// There may be more.
    More,
    /// The sink takes no more now.
    Blocked,
    End,
}

impl Output {
    pub fn new(sink: Sink) -> Output {
        Output {
            begun: false,
            sources: Vec::new(),
            sink,
        }
    }

    pub fn set_sink(&mut self, sink: Sink) {
        self.sink = sink;
    }

    pub fn add(&mut self, stream: Stream, fd: OwnedFd, owner: u32, poll: &Poll) -> Result<(), Error> {
        let part = match stream {
            Stream::Stdout => Part::Stdout,
            Stream::Stderr => Part::Stderr,
        };
        let fd = nonblocking(fd).and_then(|fd| poll.watch(fd, Token::Io(owner, part), Want::READ));
        self.begun = true;
        self.sources.push(Source {
            stream,
            fd: fd.map_err(failed("output"))?,
        });
        Ok(())
    }

    /// Moves a turn's worth. True = there may be more at once.
    pub fn pump(&mut self) -> bool {
        if let Sink::Unread(unread) = &mut self.sink {
            unread.look();
            return false;
        }
        if let Sink::Ring(kept) = &mut self.sink
            && kept.room.is_some()
        {
            kept.ring.clear_room();
        }
        let mut more = false;
        let sink = &mut self.sink;
        self.sources.retain_mut(|source| {
            let turn = sink.take_from(source);
            more |= matches!(turn, Turn::More);
            let want = if matches!(turn, Turn::Blocked) {
                Want::NONE
            } else {
                Want::READ
            };
            !matches!(turn, Turn::End) && source.fd.want(want).is_ok()
        });
        if self.begun && self.sources.is_empty() {
            sink.end();
        }
        more
    }

    /// Nothing will come any more, or ever came.
    pub fn end_if_unused(&mut self) {
        if self.sources.is_empty() {
            self.sink.end();
        }
    }

    pub fn is_drained(&self) -> bool {
        let sunk = match &self.sink {
            Sink::Nowhere | Sink::Awaited | Sink::Unread(_) => true,
            Sink::Fifo(relay) => relay.pending.is_empty(),
            Sink::Ring(kept) => kept.writer.is_none(),
        };
        self.sources.is_empty() && sunk
    }

    /// When to pump if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.sink {
            Sink::Unread(unread) => unread.deadline(),
            Sink::Nowhere | Sink::Awaited | Sink::Fifo(_) | Sink::Ring(_) => None,
        }
    }

    pub fn ring(&self) -> Option<&Ring> {
        match &self.sink {
            Sink::Ring(kept) => Some(&kept.ring),
            Sink::Nowhere | Sink::Awaited | Sink::Fifo(_) | Sink::Unread(_) => None,
        }
    }

    pub fn writer(&self) -> Option<u32> {
        match &self.sink {
            Sink::Ring(kept) => kept.writer.map(i32::unsigned_abs),
            Sink::Nowhere | Sink::Awaited | Sink::Fifo(_) | Sink::Unread(_) => None,
        }
    }

    /// It is reaped like any child, and not made again.
    pub fn kill_writer(&mut self) {
        if let Sink::Ring(kept) = &mut self.sink
            && let Some(writer) = kept.writer
        {
            kept.given_up = true;
            // It leads a process group of its own.
            let _ = berth_sys::process::kill_group(writer.unsigned_abs());
        }
    }

    pub fn writer_ended(&mut self, ok: bool) {
        let Sink::Ring(kept) = &mut self.sink else { return };
        kept.writer = None;
        if ok && kept.finished {
            return;
        }
        let written = kept.ring.written();
        // A container may live for years: only those count that come one right after the other.
        kept.deaths = if written > kept.written { 1 } else { kept.deaths + 1 };
        kept.written = written;
        if !kept.given_up && kept.deaths < DEATHS {
            kept.writer = kept.ring.spawn().unwrap_or_default();
        }
        if kept.writer.is_none() {
            // The output is not written, but the container runs on.
            kept.ring.abandon();
            self.pump();
        }
    }
}

impl Sink {
    /// The writer is non-blocking.
    pub fn fifo(writer: OwnedFd, hold: OwnedFd, owner: u32, poll: &Poll) -> Result<Sink, Error> {
        let fd = poll.watch(writer, Token::Io(owner, Part::Sink), Want::NONE);
        Ok(Sink::Fifo(Relay {
            fd: fd.map_err(failed("FIFO"))?,
            pending: VecDeque::new(),
            hold,
            owner,
            poll: poll.clone(),
        }))
    }

    fn take_from(&mut self, source: &mut Source) -> Turn {
        match self {
            Sink::Nowhere => {
                let mut buffer = [0; RELAY];
                for _ in 0..TURN {
                    match read(&source.fd, &mut buffer) {
                        Ok(0) => return Turn::End,
                        Ok(_) => {}
                        Err(turn) => return turn,
                    }
                }
                Turn::More
            }
            Sink::Awaited => Turn::Blocked,
            Sink::Fifo(relay) => relay.take_from(source),
            Sink::Unread(_) => Turn::End,
            Sink::Ring(kept) => {
                for _ in 0..TURN {
                    let filled = kept.ring.fill(source.stream, source.fd.as_fd());
                    match filled {
                        Ok(Fill::Read(_)) => {}
                        Ok(Fill::Empty) => return Turn::Empty,
                        Ok(Fill::Full) => return Turn::Blocked,
                        Ok(Fill::Eof) | Err(_) => return Turn::End,
                    }
                }
                Turn::More
            }
        }
    }

    /// After the last byte.
    fn end(&mut self) {
        match std::mem::replace(self, Sink::Nowhere) {
            Sink::Fifo(mut relay) => {
                *self = if relay.flush() {
                    Sink::Unread(Unread::new(vec![relay.hold], relay.owner, &relay.poll))
                } else {
                    Sink::Fifo(relay)
                };
            }
            Sink::Ring(mut kept) => {
                if !kept.finished {
                    kept.ring.finish();
                    kept.finished = true;
                }
                *self = Sink::Ring(kept);
            }
            other @ (Sink::Nowhere | Sink::Awaited | Sink::Unread(_)) => *self = other,
        }
    }
}

impl Relay {
    fn take_from(&mut self, source: &Source) -> Turn {
        let mut buffer = [0; RELAY];
        for _ in 0..TURN {
            if !self.flush() {
                return Turn::Blocked;
            }
            match read(&source.fd, &mut buffer) {
                Ok(0) => return Turn::End,
                Ok(count) => self.pending.extend(&buffer[..count]),
                Err(turn) => return turn,
            }
        }
        if self.flush() { Turn::More } else { Turn::Blocked }
    }

    /// Writes on what waits for the FIFO's reader. True = nothing waits.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.fd.write(self.pending.as_slices().0) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.fd.want(Want::WRITE).is_err();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Can't be while the hold is open; losing the bytes is better than spinning.
                Err(_) => self.pending.clear(),
            }
        }
        self.pending = VecDeque::new();
        self.fd.want(Want::NONE).is_ok()
    }
}

/// A terminal whose last user has gone says EIO where a pipe says end of file.
fn read(fd: &Watched, buffer: &mut [u8]) -> Result<usize, Turn> {
    match fd.read(buffer) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Turn::Empty),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Turn::More),
        Err(_) => Ok(0),
    }
}

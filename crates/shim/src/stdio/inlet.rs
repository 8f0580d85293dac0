//! Input that passes through the loop: into a pipe or a terminal, from attached clients or from a FIFO.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::{io as failed, nonblocking};
use crate::error::Error;
use crate::watch::{Part, Poll, Token, Want, Watched};

/// Queued bytes from which on senders are held back.
const FULL: usize = 64 << 10;
/// What a terminal's relay holds.
const RELAY: usize = 4 << 10;
/// What a terminal's line discipline takes for end of file (VEOF's usual character, ^D).
const END_OF_FILE: u8 = 4;

#[derive(Debug)]
pub struct Inlet {
    fd: Watched,
    terminal: bool,
    queue: VecDeque<u8>,
    closing: bool,
}

impl Inlet {
    pub fn new(fd: OwnedFd, terminal: bool, owner: u32, poll: &Poll) -> Result<Inlet, Error> {
        let fd = nonblocking(fd).and_then(|fd| poll.watch(fd, Token::Io(owner, Part::Inlet), Want::NONE));
        Ok(Inlet {
            fd: fd.map_err(failed("stdin"))?,
            terminal,
            queue: VecDeque::new(),
            closing: false,
        })
    }

    pub fn has_room(&self) -> bool {
        self.queue.len() < FULL
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.queue.extend(bytes);
        }
    }

    /// True = it can be dropped at once.
    pub fn close(&mut self) -> bool {
        if self.terminal {
            self.push(&[END_OF_FILE]);
        } else {
            self.closing = true;
        }
        !self.flush()
    }

    /// Writes what is taken. False = it has no use any more.
    pub fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            match self.fd.write(self.queue.as_slices().0) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody will read it.
                Err(_) => return false,
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
            if self.closing {
                return false;
            }
        }
        let want = if self.queue.is_empty() { Want::NONE } else { Want::WRITE };
        self.fd.want(want).is_ok()
    }
}

/// A FIFO whose bytes go to a terminal.
#[derive(Debug)]
pub struct Feed {
    fd: Watched,
    /// A writer that comes and goes ends nothing, until CloseStdin.
    hold: Option<OwnedFd>,
}

impl Feed {
    /// The reader is non-blocking.
    pub fn new(reader: OwnedFd, hold: OwnedFd, owner: u32, poll: &Poll) -> Result<Feed, Error> {
        let fd = poll.watch(reader, Token::Io(owner, Part::Feed), Want::NONE);
        Ok(Feed {
            fd: fd.map_err(failed("FIFO"))?,
            hold: Some(hold),
        })
    }

    /// It ends with its last writer.
    pub fn let_go(&mut self) {
        self.hold = None;
    }

    /// Takes what is there as far as the inlet has room. False = it has ended, or is broken.
    pub fn pump(&mut self, inlet: &mut Inlet) -> bool {
        let mut buffer = [0; RELAY];
        while inlet.queue.is_empty() {
            match self.fd.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    inlet.push(&buffer[..count]);
                    if !inlet.flush() {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let want = if inlet.queue.is_empty() { Want::READ } else { Want::NONE };
        self.fd.want(want).is_ok()
    }
}

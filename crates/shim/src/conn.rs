//! One connection: greeting, frames in, frames out. Never blocks, and holds buffers only while something is in them.
//!
//! Bounds: while more than [`SOFT`] bytes wait for a peer that does not read, nothing is read from it and no stream adds to
//! them; so what is held is that and the answers of calls that were under way. Input holds one frame at most.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use berth_wire::hello::{self, Hello, Role, Verdict};
use berth_wire::ttrpc::{Decoder, Frame};

use crate::watch::{Poll, Token, Want, Watched};

/// Output that may wait before nothing more is asked of this peer or for it.
pub const SOFT: usize = 64 << 10;
/// Bytes taken from one peer before others have a turn.
const TURN: usize = 64 << 10;

#[derive(Debug)]
pub struct Conn {
    pub id: u32,
    fd: Watched,
    /// None until the greeting is done.
    peer: Option<Peer>,
    greeting: Vec<u8>,
    decoder: Decoder,
    out: VecDeque<u8>,
    /// Its stdin bytes wait for a process that does not read.
    pub held: bool,
    /// To be closed as soon as `out` is empty.
    closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub role: Role,
    pub epoch: u64,
}

/// What a peer's bytes came to.
#[derive(Debug, Default)]
pub struct Taken {
    pub frames: Vec<Frame>,
    /// It greeted as a daemon with this epoch, and was accepted.
    pub greeted: Option<u64>,
    /// End of file, an error, or bytes that are no frame.
    pub gone: bool,
}

impl Conn {
    pub fn new(id: u32, fd: OwnedFd, poll: &Poll) -> io::Result<Conn> {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        let fd = poll.watch(socket.into(), Token::Conn(id), Want::READ)?;
        Ok(Conn {
            id,
            fd,
            peer: None,
            greeting: Vec::new(),
            decoder: Decoder::new(),
            out: VecDeque::new(),
            held: false,
            closing: false,
        })
    }

    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// Whether a stream may add to what waits.
    pub fn has_room(&self) -> bool {
        self.out.len() < SOFT
    }

    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// True if it can be dropped now.
    pub fn is_done(&self) -> bool {
        self.closing && self.out.is_empty()
    }

    /// Reads what is there, up to one turn. `seen` is the highest epoch of any daemon so far.
    pub fn read(&mut self, seen: u64) -> Taken {
        let mut taken = Taken::default();
        let mut buffer = [0; 8 << 10];
        let mut turn = 0;
        while turn < TURN && !taken.gone && !self.closing {
            match self.fd.read(&mut buffer) {
                Ok(0) => taken.gone = true,
                Ok(count) => {
                    turn += count;
                    self.take(&buffer[..count], seen, &mut taken);
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => taken.gone = true,
            }
        }
        taken
    }

    fn take(&mut self, mut bytes: &[u8], seen: u64, taken: &mut Taken) {
        if self.peer.is_none() {
            let wanted = hello::LEN - self.greeting.len();
            let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.greeting.extend_from_slice(head);
            bytes = rest;
            let Ok(greeting) = <[u8; hello::LEN]>::try_from(self.greeting.as_slice()) else {
                return;
            };
            self.greeting = Vec::new();
            let Ok(hello) = Hello::decode(&greeting) else {
                taken.gone = true;
                return;
            };
            let answer = hello.answer(seen, u64::from(std::process::id()));
            self.send(&answer.encode());
            if answer.verdict != Verdict::Ok {
                self.closing = true;
                return;
            }
            self.peer = Some(Peer {
                role: hello.role,
                epoch: hello.epoch,
            });
            if hello.role == Role::Daemon {
                taken.greeted = Some(hello.epoch);
            }
        }
        self.decoder.push(bytes);
        loop {
            match self.decoder.pop() {
                Ok(Some(frame)) => taken.frames.push(frame),
                Ok(None) => break,
                // Nothing after a broken frame can be trusted.
                Err(_) => {
                    taken.gone = true;
                    break;
                }
            }
        }
    }

    /// Queues bytes and writes what the peer takes at once.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    /// Writes what the peer takes. False = it is gone.
    pub fn flush(&mut self) -> bool {
        while !self.out.is_empty() {
            let (head, _) = self.out.as_slices();
            match self.fd.write(head) {
                Ok(0) => return false,
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.out.is_empty() {
            self.out = VecDeque::new();
        }
        let want = Want {
            read: self.has_room() && !self.held && !self.closing,
            write: !self.out.is_empty(),
            priority: false,
        };
        self.fd.want(want).is_ok()
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

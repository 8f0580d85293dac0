//! Output that Berth keeps: a bounded ring that the shim's loop reads pipes and terminals straight into, and the writer
//! process that empties it into files, because a regular file can't be written without blocking.
//!
//! What the loop needs of it (nothing here ever blocks the caller):
//!   * `Ring::new` maps shared memory; pages that no output has touched cost nothing.
//!   * `Ring::spawn` forks the writer; a ring without a folder has none and is only a window for attach.
//!   * `Ring::fill` makes one read(2) from a non-blocking fd into the ring. Policy block: `Full` when the writer has not
//!     made room, and the loop stops watching the fd until `room` is readable. Policy drop, or no writer: never `Full`.
//!   * `Ring::read` is for attach: copies from the position on as far as one stream's run goes.
//!   * `Ring::finish` says that no more comes; the writer writes what is left and exits 0. The exit of the container is told
//!     when that has happened, or when the drain timeout is over.
//!   * A writer that dies is spawned again by the loop and goes on where the last one stopped.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Cri,
    Json,
    Plain,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Absolute path of the log's folder; None = no file, only the window.
    pub dir: Option<PathBuf>,
    pub format: Format,
    /// A full or slow disk: drop output and count it, rather than let the container wait.
    pub drop: bool,
    pub max_size: u64,
    pub max_files: u32,
}

/// What one [`Ring::fill`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Read(usize),
    /// The fd has nothing now.
    Empty,
    /// The ring has no room: wait for [`Ring::room`].
    Full,
    /// End of file (EIO from a terminal's master too).
    Eof,
}

/// A piece of output for an attached client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// So many bytes before `offset` have left the window.
    pub lost: u64,
    /// Position of the first byte in all output of the process, both streams counted together.
    pub offset: u64,
    pub stream: Stream,
    pub len: usize,
}

/// The shim's end.
pub struct Ring {}

impl Ring {
    pub fn new(_options: Options) -> io::Result<Ring> {
        Ok(Ring {})
    }

    /// Forks the writer, a child of the caller with a process group of its own, and answers its pid. None = this ring has no file.
    pub fn spawn(&mut self) -> io::Result<Option<i32>> {
        Ok(None)
    }

    /// Readable when the writer has made room; `clear_room` makes it unreadable again.
    pub fn room(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub fn clear_room(&mut self) {}

    pub fn fill(&mut self, _stream: Stream, _from: BorrowedFd<'_>) -> io::Result<Fill> {
        Ok(Fill::Empty)
    }

    /// Bytes of output ever, and the position of the oldest that is still here.
    pub fn end(&self) -> u64 {
        0
    }

    pub fn start(&self) -> u64 {
        0
    }

    /// Appends to `out` up to `max` bytes from `offset` on. None = nothing there yet.
    pub fn read(&self, _offset: u64, _max: usize, _out: &mut Vec<u8>) -> Option<Chunk> {
        None
    }

    pub fn finish(&mut self) {}

    /// Bytes that policy drop has dropped.
    pub fn dropped(&self) -> u64 {
        0
    }
}

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
//!   * A writer that dies is spawned again by the loop and goes on where the last one stopped: nothing is lost or doubled.

mod files;
mod process;
mod ring;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use berth_sys::eventfd::EventFd;
use berth_sys::process::{self as sys_process, Fork};
use berth_sys::{file, time};

pub use berth_core::{LogFormat as Format, Stream};
use ring::{Frame, HEADER, Shared};

/// Of a ring with a writer: four pipes full, so that a pause of the disk does not stop a container at once.
const CAPACITY: usize = 256 << 10;
/// Of a window only.
const WINDOW: usize = 64 << 10;
/// A read into less room than this is not worth a frame.
const LEAST: u64 = 4 << 10;

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
#[derive(Debug)]
pub struct Ring {
    shared: Shared,
    options: Options,
    /// Wakes the writer, wakes the loop.
    data: EventFd,
    room: EventFd,
    head: u64,
    /// Position of the oldest frame that is still whole.
    floor: u64,
    /// Bytes of output ever, dropped ones too.
    end: u64,
    dropped: u64,
    /// Where the last [`Ring::read`] found its frame: the next one is there or right behind it.
    hint: Cell<u64>,
    /// There is no writer and will be none: it is a window like one without a file.
    abandoned: bool,
}

impl Ring {
    pub fn new(options: Options) -> io::Result<Ring> {
        let capacity = if options.dir.is_some() { CAPACITY } else { WINDOW };
        Ok(Ring {
            shared: Shared::new(capacity)?,
            options,
            data: EventFd::new()?,
            room: EventFd::new()?,
            head: 0,
            floor: 0,
            end: 0,
            dropped: 0,
            hint: Cell::new(0),
            abandoned: false,
        })
    }

    /// Forks the writer, a child of the caller with a process group of its own, and answers its pid. None = this ring has no file.
    pub fn spawn(&mut self) -> io::Result<Option<i32>> {
        let Some(dir) = &self.options.dir else { return Ok(None) };
        // Before the fork: the writer must hear of the shim's end even if that comes before it has begun.
        let shim = sys_process::pidfd_open(sys_process::getpid())?;
        match sys_process::fork()? {
            Fork::Parent { pid } => Ok(i32::try_from(pid).ok()),
            Fork::Child => {
                let ends = process::Ends {
                    shared: &self.shared,
                    data: &self.data,
                    room: &self.room,
                };
                let run = std::panic::AssertUnwindSafe(|| process::run(shim, dir, &self.options, &ends));
                sys_process::exit_now(if matches!(std::panic::catch_unwind(run), Ok(Ok(()))) {
                    0
                } else {
                    1
                })
            }
        }
    }

    /// Readable when the writer has made room; `clear_room` makes it unreadable again.
    pub fn room(&self) -> Option<BorrowedFd<'_>> {
        self.options.dir.as_ref().map(|_| self.room.as_fd())
    }

    pub fn clear_room(&mut self) {
        // It can't fail on an eventfd of ours; at worst the loop looks once more.
        let _ = self.room.read();
    }

    pub fn fill(&mut self, stream: Stream, from: BorrowedFd<'_>) -> io::Result<Fill> {
        let most = self.shared.capacity / 4;
        let mut free = self.free();
        if free < HEADER + LEAST {
            if self.options.drop {
                return self.discard(from);
            }
            // Said first, then looked again: a writer that made room in between has seen it, or is seen.
            self.shared.shim_waits().store(1, SeqCst);
            free = self.free();
            if free < HEADER + LEAST {
                return Ok(Fill::Full);
            }
            self.shared.shim_waits().store(0, SeqCst);
        }
        let len = most.min(free - HEADER) & !7;
        self.forget_up_to((self.head + HEADER + len).saturating_sub(self.shared.capacity));
        let got = match self
            .shared
            .map
            .read_from(from, self.shared.pieces(self.head + HEADER, len))
        {
            Ok(0) => return Ok(Fill::Eof),
            Ok(got) => got,
            Err(error) => return not_read(error),
        };
        let frame = Frame {
            stream,
            len: got as u64,
            time: time::realtime(),
            offset: self.end,
        };
        self.shared.set_frame(self.head, &frame);
        self.head += frame.span();
        self.end += frame.len;
        if self.abandoned {
            self.dropped += frame.len;
        }
        self.shared.head().store(self.head, SeqCst);
        if self.shared.writer_sleeps().swap(0, SeqCst) == 1 {
            self.data.notify()?;
        }
        Ok(Fill::Read(got))
    }

    /// Room that the writer does not need any more.
    fn free(&self) -> u64 {
        match self.options.dir {
            Some(_) if !self.abandoned => self.shared.capacity - (self.head - self.shared.progress().tail),
            Some(_) | None => self.shared.capacity,
        }
    }

    /// Policy drop with a full ring: takes the output away and counts it, so that the container never waits.
    fn discard(&mut self, from: BorrowedFd<'_>) -> io::Result<Fill> {
        match file::read_some(from, &mut [0; 16 << 10]) {
            Ok(None) => Ok(Fill::Empty),
            Ok(Some(0)) => Ok(Fill::Eof),
            Ok(Some(got)) => {
                self.dropped += got as u64;
                self.end += got as u64;
                Ok(Fill::Read(got))
            }
            Err(error) => not_read(error),
        }
    }

    /// Gives up frames for attach that begin before `position`.
    fn forget_up_to(&mut self, position: u64) {
        while self.floor < position && self.floor < self.head {
            self.floor += self.shared.frame(self.floor).span();
        }
    }

    /// Bytes of output ever, and the position of the oldest that is still here.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn start(&self) -> u64 {
        if self.floor < self.head {
            self.shared.frame(self.floor).offset
        } else {
            self.end
        }
    }

    /// Appends to `out` up to `max` bytes from `offset` on. None = nothing there yet.
    pub fn read(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> Option<Chunk> {
        let mut at = self.hint.get();
        if at < self.floor || at >= self.head || self.shared.frame(at).offset > offset {
            at = self.floor;
        }
        while at < self.head {
            let frame = self.shared.frame(at);
            if frame.offset + frame.len > offset {
                self.hint.set(at);
                let from = offset.max(frame.offset);
                let len = (frame.offset + frame.len - from).min(max as u64);
                self.shared.copy_out(at + HEADER + (from - frame.offset), len, out);
                return Some(Chunk {
                    lost: from - offset,
                    offset: from,
                    stream: frame.stream,
                    len: len as usize,
                });
            }
            at += frame.span();
        }
        None
    }

    /// Nobody will write it any more: from now on it counts as dropped, and the container does not wait.
    pub fn abandon(&mut self) {
        if std::mem::replace(&mut self.abandoned, true) {
            return;
        }
        let progress = self.shared.progress();
        let mut at = progress.tail;
        let mut unwritten = 0;
        while at < self.head {
            let frame = self.shared.frame(at);
            unwritten += frame.len;
            at += frame.span();
        }
        self.dropped += unwritten.saturating_sub(progress.within);
    }

    /// Bytes of frames that the writer is done with.
    pub fn written(&self) -> u64 {
        self.shared.progress().tail
    }

    pub fn finish(&mut self) {
        self.shared.ended().store(1, SeqCst);
        // A full counter is as good as told, and nothing else can fail.
        let _ = self.data.notify();
    }

    /// Bytes that policy drop has dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.shared.progress().dropped
    }

    /// Why the writer could not write at its last try, as an errno.
    pub fn trouble(&self) -> Option<i32> {
        i32::try_from(self.shared.errno().load(SeqCst))
            .ok()
            .filter(|&errno| errno != 0)
    }
}

/// A terminal whose last user has gone says EIO where a pipe says end of file.
fn not_read(error: io::Error) -> io::Result<Fill> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Fill::Empty),
        _ if error.raw_os_error() == Some(EIO) => Ok(Fill::Eof),
        _ => Err(error),
    }
}

/// The same on every architecture.
const EIO: i32 = 5;

#[cfg(test)]
mod test;

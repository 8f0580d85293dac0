//! Output FIFOs of a process that has ended, until what it wrote is read: readers may come late.
//!
//! The kernel drops a pipe's bytes with its last end, and lets a reader that does not want to poll wait for a writer in its open.
//! So a writer is kept until somebody has opened the FIFO and nothing is left to read; then that reader sees its end of file.
//!
//! Invariants: nothing is written; the kernel's few inotify instances are used for [`WATCHED`] at most, after which a reader gets
//! the bytes at once and the end of file at the delete.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_sys::{fifo, inotify};

use crate::watch::{Part, Poll, Token, Want, Watched};

/// How long the end of file follows the last byte at once.
const WATCHED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Unread {
    writers: Vec<OwnedFd>,
    /// Says that one was opened or read.
    used: Option<(Watched, Instant)>,
    /// Where no writer could be had: they keep the bytes at least.
    _holds: Vec<OwnedFd>,
}

impl Unread {
    /// `holds` are the loop's readers. Those FIFOs that are read and empty are let go of.
    pub fn new(holds: Vec<OwnedFd>, owner: u32, poll: &Poll) -> Unread {
        let mut unread = Unread {
            writers: Vec::new(),
            used: None,
            _holds: Vec::new(),
        };
        for hold in holds {
            match fifo::open_writer(&hold) {
                Ok(writer) => unread.writers.push(writer),
                Err(_) => unread._holds.push(hold),
            }
        }
        unread.look();
        if unread.writers.is_empty() {
            return unread;
        }
        let watched = inotify::watch_use(unread.writers.iter().map(AsFd::as_fd))
            .and_then(|fd| poll.watch(fd, Token::Io(owner, Part::Unread), Want::READ));
        // Without an instance: as after its time.
        unread.used = watched.ok().map(|watched| (watched, Instant::now() + WATCHED));
        // Somebody may have come before the watch.
        unread.look();
        unread
    }

    /// Lets go of what is read to the end.
    pub fn look(&mut self) {
        if let Some((used, by)) = &self.used {
            // What it says is seen at the FIFOs themselves.
            let mut notices = [0; 4096];
            while used.read(&mut notices).is_ok_and(|count| count > 0) {}
            if *by <= Instant::now() {
                self.used = None;
            }
        }
        self.writers.retain(|writer| !is_over(writer));
        if self.writers.is_empty() {
            self.used = None;
        }
    }

    /// When [`Unread::look`] is due if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.used.as_ref().map(|(_, by)| *by)
    }
}

/// A creator that was forked a moment ago still has what was held here, and looks like a reader: so nobody counts as one before the
/// bytes are read.
fn is_over(writer: &OwnedFd) -> bool {
    fifo::has_reader(writer).unwrap_or(true) && fifo::unread(writer).unwrap_or(0) == 0
}

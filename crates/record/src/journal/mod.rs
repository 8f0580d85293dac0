//! The journal of events: append-only segments in STATE/events, opaque payloads, one number each.
//!
//! ```text
//! events/epoch                         16 hexadecimal digits: which numbering this is
//! events/00000000000000000001.seg     frames from number 1 on
//! events/00000000000000005003.seg     the last one is appended to
//!
//! frame   len u32le | crc32 u32le (of number and payload) | number u64le | payload
//! ```
//!
//! Invariants: numbers grow by one within an epoch and are never given twice. What `append` answered for is there after a SIGKILL. A
//! frame that was cut is dropped at the next open: nobody was told its number. A journal with any other damage is lost as a whole: a
//! new epoch begins, so that no cursor means two things. The oldest segments are dropped to stay in the limits; the active one never.

mod segment;
#[cfg(test)]
mod test;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::{dir, file};

use crate::Error;
use segment::{Scan, Segment};

/// The longest payload.
pub const MAX_PAYLOAD: usize = 1 << 20;

const EPOCH: &str = "epoch";
const MODE: u32 = 0o600;
/// A segment is closed when it has passed this.
const SEGMENT_BYTES: u64 = 1 << 20;

/// What the journal keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least this many events, where `bytes` allows it.
    pub events: u64,
    /// At most this many bytes, but for one segment.
    pub bytes: u64,
}

/// What had to be repaired at the open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// A numbering has begun: there was no journal.
    pub new: bool,
    /// There was one, but it was damaged: its events are gone.
    pub lost: bool,
    /// Bytes of a cut frame that were dropped.
    pub dropped_bytes: u64,
}

#[derive(Debug)]
pub struct Journal {
    folder: OwnedFd,
    path: PathBuf,
    epoch: u64,
    limits: Limits,
    /// In order and without gaps; the last one is open for appending.
    segments: VecDeque<Segment>,
    active: Option<OwnedFd>,
    next: u64,
}

impl Journal {
    /// Opens or makes the journal in this folder. One daemon at a time: the state folder's lock guards it.
    pub fn open(path: &Path, limits: Limits) -> Result<(Self, Opened), Error> {
        let folder = dir::make_all(path, 0o700).map_err(Error::io("make folder", path))?;
        let mut journal = Self {
            folder,
            path: path.to_owned(),
            epoch: 0,
            limits,
            segments: VecDeque::new(),
            active: None,
            next: 1,
        };
        let opened = journal.load()?;
        journal.trim()?;
        Ok((journal, opened))
    }

    /// Names this numbering.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of the oldest event that is kept; `next()` if there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    /// Number that the next event will get.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Adds an event and answers its number. On an error (a full disk, see [`Error::is_full`]) nothing was added and the number is not
    /// used up: the caller tries again.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, Error> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::TooLong {
                len: payload.len(),
                max: MAX_PAYLOAD,
            });
        }
        if self.must_roll() {
            self.roll()?;
        }
        let number = self.next;
        let frame = segment::encode(number, payload);
        let path = self.path.clone();
        let (Some(active), Some(segment)) = (&self.active, self.segments.back_mut()) else {
            // `roll` has just made both.
            return Err(Error::io("append", path)(io::ErrorKind::NotFound.into()));
        };
        if let Err(error) = write_whole(active, &frame) {
            // A part may be there; without this the next frame would follow it.
            let cut = file::set_len(active, segment.bytes);
            if cut.is_err() {
                // Never append to it again: the next open finds the cut frame at the end of this segment.
                self.active = None;
            }
            return Err(Error::io("append to", path.join(segment::name(segment.first)))(error));
        }
        segment.added(number, frame.len() as u64);
        self.next += 1;
        // What could not be dropped is tried again at the next one: the event itself is safe.
        let _ = self.trim();
        Ok(number)
    }

    /// At most `max` events from number `from` on, in order; empty from `next()` on. [`Error::TooOld`] if `from` was dropped.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let oldest = self.first();
        if from < oldest {
            return Err(Error::TooOld { asked: from, oldest });
        }
        let mut found = Vec::new();
        let start = self.segments.partition_point(|segment| segment.end() <= from);
        for segment in self.segments.range(start..) {
            if found.len() >= max {
                break;
            }
            let at = from.saturating_add(found.len() as u64);
            let path = self.path.join(segment::name(segment.first));
            segment
                .read(&self.folder, at, max, &mut found)
                .map_err(Error::io("read", path))?;
        }
        Ok(found)
    }

    fn must_roll(&self) -> bool {
        let size = (self.limits.bytes / 8).clamp(4096, SEGMENT_BYTES);
        let count = (self.limits.events / 8).max(1);
        match self.segments.back() {
            Some(segment) if self.active.is_some() => segment.bytes >= size || segment.count >= count,
            _ => true,
        }
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.active = None;
        // One that nothing was written to (a full disk) is used again under its name.
        if self.segments.back().is_some_and(|segment| segment.count == 0) {
            self.segments.pop_back();
        }
        // A cut frame that could not be taken back would be damage in the middle at the next open.
        if let Some(last) = self.segments.back() {
            let name = segment::name(last.first);
            file::open_at(&self.folder, &name, file::Open::Write)
                .and_then(|fd| file::set_len(&fd, last.bytes))
                .map_err(Error::io("cut segment", self.path.join(&name)))?;
        }
        let name = segment::name(self.next);
        let fd = file::create_at(&self.folder, &name, file::Open::Append, MODE)
            .and_then(|fd| file::set_len(&fd, 0).map(|()| fd))
            .map_err(Error::io("make segment", self.path.join(&name)))?;
        self.active = Some(fd);
        self.segments.push_back(Segment::new(self.next));
        Ok(())
    }

    fn trim(&mut self) -> Result<(), Error> {
        while self.segments.len() > 1 {
            let events: u64 = self.segments.iter().map(|segment| segment.count).sum();
            let Some(oldest) = self.segments.front() else { break };
            if self.bytes() <= self.limits.bytes && events - oldest.count < self.limits.events {
                break;
            }
            let name = segment::name(oldest.first);
            file::unlink_at(&self.folder, &name).map_err(Error::io("drop segment", self.path.join(&name)))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn load(&mut self) -> Result<Opened, Error> {
        let names = self.names()?;
        let epoch = file::read_at(&self.folder, EPOCH, 64)
            .ok()
            .and_then(|bytes| parse_epoch(&bytes));
        let Some(epoch) = epoch else {
            let lost = !names.is_empty();
            self.begin(&names)?;
            return Ok(Opened {
                new: !lost,
                lost,
                dropped_bytes: 0,
            });
        };
        self.epoch = epoch;
        let mut dropped_bytes = 0;
        for (index, first) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let name = segment::name(*first);
            let path = self.path.join(&name);
            let scan = Segment::scan(&self.folder, *first).map_err(Error::io("read", &path))?;
            let follows = self.segments.back().is_none_or(|before| before.end() == *first);
            let segment = match scan {
                Scan::Whole(segment) if follows => segment,
                Scan::Cut { segment, extra } if follows && last => {
                    file::open_at(&self.folder, &name, file::Open::Write)
                        .and_then(|fd| file::set_len(&fd, segment.bytes))
                        .map_err(Error::io("cut", &path))?;
                    dropped_bytes += extra;
                    segment
                }
                _ => {
                    self.begin(&names)?;
                    return Ok(Opened {
                        new: false,
                        lost: true,
                        dropped_bytes: 0,
                    });
                }
            };
            self.segments.push_back(segment);
        }
        if let Some(last) = self.segments.back() {
            self.next = last.end();
            let name = segment::name(last.first);
            let fd = file::open_at(&self.folder, &name, file::Open::Append)
                .map_err(Error::io("open", self.path.join(&name)))?;
            self.active = Some(fd);
        }
        Ok(Opened {
            new: false,
            lost: false,
            dropped_bytes,
        })
    }

    /// First numbers of the segments that are there, in order.
    fn names(&self) -> Result<Vec<u64>, Error> {
        let entries = dir::entries(&self.folder).map_err(Error::io("list", &self.path))?;
        let mut names: Vec<u64> = entries
            .iter()
            .filter_map(|entry| entry.name.to_str().and_then(segment::parse_name))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// A new epoch, with number 1 next. The old one's name goes first and the new one's comes last: killed in between, the next open
    /// begins again, and no epoch ever gives a number twice.
    fn begin(&mut self, names: &[u64]) -> Result<(), Error> {
        file::unlink_at(&self.folder, EPOCH).map_err(Error::io("drop", self.path.join(EPOCH)))?;
        for first in names {
            let name = segment::name(*first);
            file::unlink_at(&self.folder, &name).map_err(Error::io("drop segment", self.path.join(&name)))?;
        }
        self.segments.clear();
        self.active = None;
        self.next = 1;
        self.epoch = u64::from_be_bytes(crate::random::bytes()?);
        file::write_aside(&self.folder, EPOCH, format!("{:016x}\n", self.epoch).as_bytes(), MODE)
            .map_err(Error::io("write", self.path.join(EPOCH)))
    }
}

fn parse_epoch(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    if text.len() == 16 {
        u64::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// A regular file takes less than all only if it is full: the rest then says why.
fn write_whole(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file::write_some(fd, bytes)? {
            Some(0) | None => return Err(io::ErrorKind::WriteZero.into()),
            Some(len) => bytes = &bytes[len..],
        }
    }
    Ok(())
}

//! Reads a log from a place to its end, file by file. Knows nothing of tasks and does not wait: at the end it says so.
//!
//! Memory is bounded by one block, one line and one batch of entries. What is not a line of the log's format (a cut tail, bytes
//! that somebody else wrote) is left out and breaks nothing.

use std::io;
use std::path::PathBuf;

use berth_core::{LogFormat, Stream};
use berth_record::log::ENTRY_LIMIT;

use super::decode::decode;
use super::files::{End, LogCursor, LogFile};
use crate::types::LogEntry;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

/// Entries and bytes in one batch.
const BATCH_ENTRIES: usize = 1024;
const BATCH_BYTES: usize = 256 << 10;

/// A plain line that is longer is told in parts.
const PLAIN_PART: usize = 32 << 10;

/// What is asked of every entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// Nanoseconds since the Unix epoch; 0 = no limit.
    pub since: i64,
    pub until: i64,
    /// Empty = all.
    pub streams: Vec<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to read now.
    More,
    /// All that is there was read.
    AtEnd,
    /// Everything that follows is too new.
    Until,
}

#[derive(Debug)]
pub(super) enum From {
    Oldest,
    /// Before the last so many lines.
    Tail(u64),
    /// Behind the entry with this cursor.
    Cursor(LogCursor),
}

#[derive(Debug)]
pub(super) struct Reader {
    dir: PathBuf,
    format: LogFormat,
    filter: Filter,
    /// `None` until there is a file.
    place: Option<Place>,
    /// The next entry follows a gap.
    gap: bool,
    /// Nothing behind it is read.
    end: Option<End>,
}

#[derive(Debug)]
struct Place {
    file: LogFile,
    /// Where `buffer[start..]` lies in the file.
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    /// Inside a line that is too long for its format: left out up to its newline.
    skipping: bool,
}

impl Place {
    fn new(file: LogFile, offset: u64) -> Self {
        Place {
            file,
            offset,
            buffer: Vec::new(),
            start: 0,
            skipping: false,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn rewind(&mut self) {
        self.offset = 0;
        self.start = 0;
        self.buffer.clear();
    }

    /// False at the end of the file, or at `end` if that lies in it.
    fn fill(&mut self, end: Option<End>) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let held = self.buffer.len();
        let room = match end {
            Some(end) if self.file.ends_at(&end) => end.offset().saturating_sub(self.offset + held as u64),
            _ => BLOCK as u64,
        };
        self.buffer.resize(held + BLOCK.min(room as usize), 0);
        let read = self.file.read_at(&mut self.buffer[held..], self.offset + held as u64);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

impl Reader {
    pub(super) fn open(dir: PathBuf, format: LogFormat, filter: Filter, from: From) -> io::Result<Self> {
        let mut reader = Reader {
            dir,
            format,
            filter,
            place: None,
            gap: false,
            end: None,
        };
        match from {
            From::Oldest => reader.place = reader.oldest_since()?,
            From::Tail(count) => {
                let found = super::tail::find(&reader.dir, format, &reader.filter.streams, count)?;
                reader.place = found.map(|(file, offset)| Place::new(file, offset));
            }
            From::Cursor(cursor) => reader.resume(&cursor)?,
        }
        Ok(reader)
    }

    fn resume(&mut self, cursor: &LogCursor) -> io::Result<()> {
        let mut index = 0;
        while let Some(mut file) = LogFile::open(&self.dir, index)? {
            if file.is(cursor)? {
                self.place = Some(Place::new(file, cursor.offset()));
                return Ok(());
            }
            index += 1;
        }
        self.gap = true;
        self.place = LogFile::oldest(&self.dir)?.map(|(file, _)| Place::new(file, 0));
        Ok(())
    }

    /// The oldest file, but those are passed over that were written to for the last time before anything is asked for.
    fn oldest_since(&self) -> io::Result<Option<Place>> {
        let Some((mut file, _)) = LogFile::oldest(&self.dir)? else {
            return Ok(None);
        };
        while self.filter.since != 0 && file.modified()? < self.filter.since {
            match after(&self.dir, &file)? {
                After::Next(next) => file = next,
                After::Current | After::Removed => break,
            }
        }
        Ok(Some(Place::new(file, 0)))
    }

    /// Reads no further than what is there now.
    pub(super) fn up_to_now(mut self) -> io::Result<Self> {
        self.end = super::files::end(&self.dir)?;
        Ok(self)
    }

    /// Entries from here on, and how it goes on. An empty batch may be followed by a full one.
    pub(super) fn read(&mut self) -> io::Result<(Vec<LogEntry>, Progress)> {
        let mut batch = Batch::default();
        loop {
            let Some(place) = &mut self.place else {
                match LogFile::oldest(&self.dir)? {
                    Some((file, _)) => self.place = Some(Place::new(file, 0)),
                    None => return Ok((batch.entries, Progress::AtEnd)),
                }
                continue;
            };
            if let Some(length) = next_line(place, self.format) {
                if !self.take(length, &mut batch)? {
                    return Ok((batch.entries, Progress::Until));
                }
                if batch.is_full() {
                    return Ok((batch.entries, Progress::More));
                }
            } else if place.fill(self.end)? {
                // A line may be whole now.
            } else if place.file.len()? < place.offset {
                // Somebody has cut the file.
                self.gap = true;
                place.rewind();
            } else if !self.at_end_of_file(&mut batch)? {
                return Ok((batch.entries, Progress::AtEnd));
            }
        }
    }

    /// True if there is another file to go on with.
    fn at_end_of_file(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let Some(place) = &mut self.place else { return Ok(false) };
        let last = self.end.is_some_and(|end| place.file.ends_at(&end));
        let after = if last {
            After::Current
        } else {
            after(&self.dir, &place.file)?
        };
        // It was written to until it was moved: what came between our last read and that is still to be read.
        if !matches!(after, After::Current) && place.fill(self.end)? {
            return Ok(true);
        }
        // In the plain format a part of a line is worth telling; in the others it is a cut tail, or not yet written.
        let part = place.unread().len();
        if self.format == LogFormat::Plain && part > 0 {
            self.take(part, batch)?;
        }
        let next = match after {
            After::Current => return Ok(false),
            After::Next(file) => file,
            After::Removed => {
                self.gap = true;
                if self.end.is_some() {
                    // The end that we knew is gone too, for it was not older.
                    self.end = super::files::end(&self.dir)?;
                }
                match LogFile::oldest(&self.dir)? {
                    Some((file, _)) => file,
                    None => {
                        // The whole log is gone, or a rotation is about to make the next file.
                        self.place = None;
                        return Ok(false);
                    }
                }
            }
        };
        self.place = Some(Place::new(next, 0));
        Ok(true)
    }

    /// Takes the next `length` bytes as one line. False if it is too new.
    fn take(&mut self, length: usize, batch: &mut Batch) -> io::Result<bool> {
        let Some(place) = &mut self.place else { return Ok(true) };
        let end = place.offset + length as u64;
        let skip = std::mem::take(&mut place.skipping);
        let line = if skip {
            None
        } else {
            decode(self.format, &place.unread()[..length])
        };
        if let Some(line) = line {
            let Filter { since, until, streams } = &self.filter;
            if *until != 0 && line.time >= *until {
                return Ok(false);
            }
            if line.time >= *since && (streams.is_empty() || streams.contains(&line.stream)) {
                let (time, stream, data) = (line.time, line.stream, line.data);
                let cursor = place.file.cursor(end)?.to_string();
                let gap = std::mem::take(&mut self.gap);
                batch.push(LogEntry {
                    time,
                    stream,
                    data,
                    cursor,
                    gap,
                });
            }
        }
        place.consume(length);
        Ok(true)
    }
}

/// Length of the next line with its newline, if it is all there. A line that no format can have is thrown away as it comes.
fn next_line(place: &mut Place, format: LogFormat) -> Option<usize> {
    let unread = place.unread();
    if let Some(at) = unread.iter().position(|b| *b == b'\n') {
        return Some(if format == LogFormat::Plain {
            (at + 1).min(PLAIN_PART)
        } else {
            at + 1
        });
    }
    let held = unread.len();
    match format {
        LogFormat::Plain => (held >= PLAIN_PART).then_some(PLAIN_PART),
        LogFormat::Cri | LogFormat::Json => {
            if held > ENTRY_LIMIT {
                place.consume(held);
                place.skipping = true;
            }
            None
        }
    }
}

enum After {
    /// It is the one that is written to.
    Current,
    Next(LogFile),
    Removed,
}

/// The file that was begun after this one. A rotation may be at work: it renames the oldest first, so as long as ours has
/// kept its index, the one below was the next.
fn after(dir: &std::path::Path, file: &LogFile) -> io::Result<After> {
    loop {
        let index = match file.index(dir)? {
            None => return Ok(After::Removed),
            Some(0) => return Ok(After::Current),
            Some(index) => index,
        };
        let next = LogFile::open(dir, index - 1)?;
        if file.index(dir)? != Some(index) {
            continue;
        }
        return Ok(match next {
            Some(next) => After::Next(next),
            // The next one is not made yet; its making will be noticed.
            None => After::Current,
        });
    }
}

#[derive(Default)]
struct Batch {
    entries: Vec<LogEntry>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, entry: LogEntry) {
        self.bytes += entry.data.len();
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES
    }
}

#[cfg(test)]
#[path = "reader_test.rs"]
mod test;

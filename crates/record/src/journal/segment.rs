//! One file of the journal: its frames, and where in it a number is found.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;

use berth_sys::file;

use super::MAX_PAYLOAD;

const HEADER: usize = 16;
/// One place in so many frames is kept in memory, so that a read begins near its number.
const MARK_EVERY: u64 = 64;
/// No segment is longer; more is damage.
const MAX_SEGMENT: u64 = super::SEGMENT_BYTES + (HEADER + MAX_PAYLOAD) as u64;

#[derive(Debug)]
pub(super) struct Segment {
    /// Number of its first frame.
    pub first: u64,
    pub count: u64,
    pub bytes: u64,
    /// Offsets of the frames `first`, `first + MARK_EVERY`, …
    marks: Vec<u64>,
}

/// What a file on disk turned out to be.
#[derive(Debug)]
pub(super) enum Scan {
    Whole(Segment),
    /// Good frames, and then a part of one.
    Cut {
        segment: Segment,
        extra: u64,
    },
    Damaged,
}

/// What the front of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front<'a> {
    Frame { number: u64, payload: &'a [u8], len: usize },
    Empty,
    Cut,
    Damaged,
}

pub(super) fn name(first: u64) -> String {
    format!("{first:020}.seg")
}

pub(super) fn parse_name(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
}

pub(super) fn encode(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(payload);
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

pub(super) fn decode(bytes: &[u8]) -> Front<'_> {
    if bytes.is_empty() {
        return Front::Empty;
    }
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
        return Front::Cut;
    };
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_PAYLOAD {
        return Front::Damaged;
    }
    let Some((crc, rest)) = rest.split_first_chunk::<4>() else {
        return Front::Cut;
    };
    let Some(checked) = rest.get(..8 + len) else {
        return Front::Cut;
    };
    if crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
        return Front::Damaged;
    }
    let Some((number, payload)) = checked.split_first_chunk::<8>() else {
        return Front::Cut;
    };
    Front::Frame {
        number: u64::from_le_bytes(*number),
        payload,
        len: HEADER + len,
    }
}

impl Segment {
    pub fn new(first: u64) -> Self {
        Self {
            first,
            count: 0,
            bytes: 0,
            marks: Vec::new(),
        }
    }

    /// The number after its last.
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    /// A frame was written at its end.
    pub fn added(&mut self, number: u64, len: u64) {
        debug_assert_eq!(number, self.end());
        if self.count.is_multiple_of(MARK_EVERY) {
            self.marks.push(self.bytes);
        }
        self.count += 1;
        self.bytes += len;
    }

    /// Reads the file `first` is the name of.
    pub fn scan(folder: &OwnedFd, first: u64) -> io::Result<Scan> {
        let bytes = match file::read_at(folder, name(first), MAX_SEGMENT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Scan::Damaged),
            Err(error) => return Err(error),
        };
        let mut segment = Self::new(first);
        let mut rest = bytes.as_slice();
        loop {
            match decode(rest) {
                Front::Frame { number, len, .. } if number == segment.end() => {
                    segment.added(number, len as u64);
                    rest = &rest[len..];
                }
                Front::Empty => return Ok(Scan::Whole(segment)),
                Front::Cut => {
                    return Ok(Scan::Cut {
                        segment,
                        extra: rest.len() as u64,
                    });
                }
                Front::Frame { .. } | Front::Damaged => return Ok(Scan::Damaged),
            }
        }
    }

    /// Appends frames from number `from` on to `found`, until it holds `max`.
    pub fn read(&self, folder: &OwnedFd, from: u64, max: usize, found: &mut Vec<(u64, Vec<u8>)>) -> io::Result<()> {
        let Some(skip) = from.checked_sub(self.first).filter(|skip| *skip < self.count) else {
            return Ok(());
        };
        let mark = usize::try_from(skip / MARK_EVERY).unwrap_or(usize::MAX);
        let start = self.marks.get(mark).copied().unwrap_or(0);
        // As far as was written whole, and no further than what can be asked for.
        let enough = mark.saturating_add(max / MARK_EVERY as usize + 2);
        let end = self.marks.get(enough).copied().unwrap_or(self.bytes);
        let mut file = File::from(file::open_at(folder, name(self.first), file::Open::Read)?);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(end - start).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        while found.len() < max {
            match decode(rest) {
                Front::Frame { number, payload, len } => {
                    if number >= from {
                        found.push((number, payload.to_vec()));
                    }
                    rest = &rest[len..];
                }
                Front::Empty => break,
                Front::Cut | Front::Damaged => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }
}

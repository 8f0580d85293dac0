//! The files of one log: `log` is being written, `log.1` is the newest rotated one, and so on. And cursors, which name a place
//! in one of them for as long as it exists, whatever its name is by then.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_core::ErrorCode;

/// Bytes at a file's beginning that tell it from another one of the same inode number.
const HEAD: usize = 64;

/// More rotated files than any configuration keeps.
const MAX_FILES: u32 = 1001;

pub(super) fn path(dir: &Path, index: u32) -> PathBuf {
    if index == 0 {
        dir.join("log")
    } else {
        dir.join(format!("log.{index}"))
    }
}

/// An open file of the log. It stays readable when rotation renames or removes it, and its inode number is not used again.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    inode: u64,
    head: Vec<u8>,
}

impl LogFile {
    /// `None` if there is none of this index now.
    pub(super) fn open(dir: &Path, index: u32) -> io::Result<Option<Self>> {
        let file = match File::open(path(dir, index)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let inode = file.metadata()?.ino();
        Ok(Some(LogFile {
            file,
            inode,
            head: Vec::new(),
        }))
    }

    /// The oldest there is. Rotation moves files while we look; it never moves one to a lower index.
    pub(super) fn oldest(dir: &Path) -> io::Result<Option<(Self, u32)>> {
        for index in (0..highest(dir)?).rev() {
            if let Some(file) = Self::open(dir, index)? {
                return Ok(Some((file, index)));
            }
        }
        Ok(None)
    }

    /// The one that is written to; in the middle of a rotation there is none, then the one before.
    pub(super) fn newest(dir: &Path) -> io::Result<Option<Self>> {
        for index in 0..=1 {
            if let Some(file) = Self::open(dir, index)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Which index it has now; `None` = removed.
    pub(super) fn index(&self, dir: &Path) -> io::Result<Option<u32>> {
        for index in 0..highest(dir)? {
            match std::fs::metadata(path(dir, index)) {
                Ok(metadata) if metadata.ino() == self.inode => return Ok(Some(index)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|m| m.len())
    }

    /// When it was written to for the last time, nanoseconds since the Unix epoch.
    pub(super) fn modified(&self) -> io::Result<i64> {
        let metadata = self.file.metadata()?;
        Ok(metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()))
    }

    pub(super) fn ends_at(&self, end: &End) -> bool {
        self.inode == end.inode
    }

    /// Reads what is there at `offset`, at most to the end of `buffer`; 0 at the end.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Names the place `offset` in this file.
    pub(super) fn cursor(&mut self, offset: u64) -> io::Result<LogCursor> {
        Ok(LogCursor {
            inode: self.inode,
            head: self.fingerprint(offset)?,
            offset,
        })
    }

    /// Whether a cursor was made of this file.
    pub(super) fn is(&mut self, cursor: &LogCursor) -> io::Result<bool> {
        Ok(self.inode == cursor.inode
            && self.len()? >= cursor.offset
            && self.fingerprint(cursor.offset)? == cursor.head)
    }

    /// Of the file's first bytes, but of none behind `offset`: those may not be written yet.
    fn fingerprint(&mut self, offset: u64) -> io::Result<u32> {
        let wanted = usize::try_from(offset).map_or(HEAD, |n| n.min(HEAD));
        while self.head.len() < wanted {
            let mut more = [0; HEAD];
            let n = self.read_at(&mut more[self.head.len()..], self.head.len() as u64)?;
            if n == 0 {
                break;
            }
            let start = self.head.len();
            self.head.extend_from_slice(&more[start..start + n]);
        }
        // FNV-1a: it has to tell files apart, nobody gains by a collision.
        Ok(self.head.iter().take(wanted).fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        }))
    }
}

/// Where a log ended at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    inode: u64,
    offset: u64,
}

impl End {
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Where the log ends now; `None` if there is none.
pub(super) fn end(dir: &Path) -> io::Result<Option<End>> {
    let Some(file) = LogFile::newest(dir)? else {
        return Ok(None);
    };
    Ok(Some(End {
        inode: file.inode,
        offset: file.len()?,
    }))
}

/// One above the highest index in use.
fn highest(dir: &Path) -> io::Result<u32> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut end = 0;
    for entry in entries {
        let name = entry?.file_name();
        let index = match name.to_str() {
            Some("log") => 0,
            Some(name) => match name.strip_prefix("log.").and_then(|n| n.parse::<u32>().ok()) {
                Some(index) if index < MAX_FILES => index,
                _ => continue,
            },
            None => continue,
        };
        end = end.max(index + 1);
    }
    Ok(end)
}

/// A place in a log: `INODE-HEAD-OFFSET`, the first two hexadecimal. Callers take it as opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCursor {
    inode: u64,
    head: u32,
    offset: u64,
}

impl LogCursor {
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

impl std::fmt::Display for LogCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}-{}", self.inode, self.head, self.offset)
    }
}

/// Says which value is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log cursor {0:?}: expected one that an earlier entry had")]
pub struct BadCursor(String);

impl BadCursor {
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidArgument
    }
}

impl std::str::FromStr for LogCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let parse = || {
            let mut parts = text.split('-');
            let cursor = LogCursor {
                inode: u64::from_str_radix(parts.next()?, 16).ok()?,
                head: u32::from_str_radix(parts.next()?, 16).ok()?,
                offset: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(cursor)
        };
        parse().ok_or_else(|| BadCursor(text.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_round_trip(inode: u64, head: u32, offset: u64) {
            let cursor = LogCursor { inode, head, offset };
            prop_assert_eq!(cursor.to_string().parse::<LogCursor>(), Ok(cursor));
        }

        #[test]
        fn no_text_panics(text in ".*", close in "[0-9a-f-]{0,40}") {
            let _ = text.parse::<LogCursor>();
            let _ = close.parse::<LogCursor>();
        }
    }
}

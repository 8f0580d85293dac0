//! Where the last lines of a log begin: read backwards, block by block, so that a short tail of a long log costs little.

use std::io;
use std::path::Path;

use berth_core::{LogFormat, Stream};
use berth_record::log::ENTRY_LIMIT;

use super::decode::decode;
use super::files::LogFile;

const BLOCK: usize = 64 << 10;

/// The place before the last `count` lines (of these streams; empty = all). `None` if there is no file.
pub(super) fn find(
    dir: &Path,
    format: LogFormat,
    streams: &[Stream],
    count: u64,
) -> io::Result<Option<(LogFile, u64)>> {
    let Some(mut file) = LogFile::newest(dir)? else {
        return Ok(None);
    };
    let mut lines = 0;
    loop {
        let end = file.len()?;
        let mut begin = end;
        let mut backward = Backward::new(&file, end);
        while let Some((start, bytes)) = backward.previous()? {
            let bytes = bytes.unwrap_or_default();
            let Some(line) = decode(format, &bytes) else {
                if begin == end && !bytes.ends_with(b"\n") {
                    // It is just being written.
                    begin = start;
                }
                continue;
            };
            if !streams.is_empty() && !streams.contains(&line.stream) {
                continue;
            }
            // A line may be in parts, of which only the last one ends it; the very last line may have no end yet.
            if line.ends() || lines == 0 {
                if lines == count {
                    return Ok(Some((file, begin)));
                }
                lines += 1;
            }
            begin = start;
        }
        match before(dir, &file)? {
            Some(older) => file = older,
            None => return Ok(Some((file, 0))),
        }
    }
}

/// The file that was written before this one.
fn before(dir: &Path, file: &LogFile) -> io::Result<Option<LogFile>> {
    loop {
        let Some(index) = file.index(dir)? else { return Ok(None) };
        let older = LogFile::open(dir, index + 1)?;
        if file.index(dir)? == Some(index) {
            return Ok(older);
        }
    }
}

/// Lines of a file from its end to its beginning.
struct Backward<'a> {
    file: &'a LogFile,
    /// End of what has not been answered yet.
    end: u64,
    block: Vec<u8>,
    block_start: u64,
}

impl<'a> Backward<'a> {
    fn new(file: &'a LogFile, end: u64) -> Self {
        Backward {
            file,
            end,
            block: Vec::new(),
            block_start: end,
        }
    }

    /// Where the line begins and its bytes with the newline; `None` in their place if it is too long for any format.
    fn previous(&mut self) -> io::Result<Option<(u64, Option<Vec<u8>>)>> {
        if self.end == 0 {
            return Ok(None);
        }
        let start = self.start_of_line(self.end - 1)?;
        let length = self.end - start;
        let bytes = if length <= ENTRY_LIMIT as u64 {
            Some(self.bytes(start, length as usize)?)
        } else {
            None
        };
        self.end = start;
        Ok(Some((start, bytes)))
    }

    /// Behind the last newline before `position`, or 0.
    fn start_of_line(&mut self, position: u64) -> io::Result<u64> {
        let mut position = position;
        while position > 0 {
            if position <= self.block_start || position > self.block_start + self.block.len() as u64 {
                self.load(position)?;
            }
            let within = (position - self.block_start) as usize;
            if let Some(at) = self.block[..within].iter().rposition(|b| *b == b'\n') {
                return Ok(self.block_start + at as u64 + 1);
            }
            position = self.block_start;
        }
        Ok(0)
    }

    /// Loads the block that ends at `end`.
    fn load(&mut self, end: u64) -> io::Result<()> {
        self.block_start = end.saturating_sub(BLOCK as u64);
        self.block.resize((end - self.block_start) as usize, 0);
        read_exact(self.file, &mut self.block, self.block_start)
    }

    fn bytes(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        if start >= self.block_start
            && let Some(bytes) = self
                .block
                .get((start - self.block_start) as usize..)
                .and_then(|b| b.get(..length))
        {
            return Ok(bytes.to_vec());
        }
        let mut bytes = vec![0; length];
        read_exact(self.file, &mut bytes, start)?;
        Ok(bytes)
    }
}

fn read_exact(file: &LogFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
    Ok(())
}

//! Log files, read: a decoder that is fed bytes as they come and gives entries.
//!
//! What is no entry (a torn tail, a line of something else) is skipped and counted, never an error, and memory is bounded
//! whatever the file holds.

use serde::Deserialize;

use super::{Format, Stream, time::parse_time};

/// No line of a file that Berth or its peers wrote is longer: a piece of 16 KiB with every byte escaped, and its frame.
pub const ENTRY_LIMIT: usize = 256 << 10;

/// One entry of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since the Unix epoch; 0 in a plain file.
    pub time: i64,
    pub stream: Stream,
    /// With the newline, if the line ends here.
    pub data: Vec<u8>,
    /// Bytes of the file that the entry takes, with skipped ones before it: where the next one begins.
    pub file_len: u64,
}

/// Push bytes in, take entries out.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    buffer: Vec<u8>,
    /// Where in the buffer the next entry begins.
    at: usize,
    /// Up to here there is no newline.
    searched: usize,
    /// Inside a line that is too long: skip to its end.
    skipping: bool,
    /// Bytes skipped since the last entry, and ever.
    pending_skip: u64,
    skipped: u64,
}

impl Decoder {
    pub fn new(format: Format) -> Decoder {
        Decoder {
            format,
            buffer: Vec::new(),
            at: 0,
            searched: 0,
            skipping: false,
            pending_skip: 0,
            skipped: 0,
        }
    }

    /// Takes more of the file. Call [`Decoder::next`] until it gives nothing before the next push, so that the buffer stays
    /// as small as the longest entry.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.searched -= self.at;
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole entry. None = push more.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None")]
    pub fn next(&mut self) -> Option<Entry> {
        loop {
            let from = self.searched.max(self.at);
            let Some(newline) = memchr::memchr(b'\n', &self.buffer[from..]) else {
                self.searched = self.buffer.len();
                self.give_up_on_long();
                return None;
            };
            let end = from + newline + 1;
            let line = self.at..end;
            (self.at, self.searched) = (end, end);
            let taken = line.len() as u64;
            let whole = !std::mem::take(&mut self.skipping);
            let entry = whole.then(|| parse_line(self.format, &self.buffer[line])).flatten();
            match entry {
                Some((time, stream, data)) => {
                    let file_len = taken + std::mem::take(&mut self.pending_skip);
                    return Some(Entry {
                        time,
                        stream,
                        data,
                        file_len,
                    });
                }
                None => self.skip(taken),
            }
        }
    }

    /// At the file's end: what is left over. In a plain file a last line without a newline; otherwise a torn entry, which is
    /// nothing.
    pub fn finish(&mut self) -> Option<Entry> {
        let rest = self.at..self.buffer.len();
        (self.at, self.searched) = (rest.end, rest.end);
        if rest.is_empty() {
            return None;
        }
        if self.format == Format::Plain {
            let data = self.buffer[rest.clone()].to_vec();
            return Some(Entry {
                time: 0,
                stream: Stream::Stdout,
                data,
                file_len: rest.len() as u64,
            });
        }
        self.skip(rest.len() as u64);
        None
    }

    /// Bytes of the file so far that were no entry.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes pushed that belong to no entry yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    fn skip(&mut self, bytes: u64) {
        self.pending_skip += bytes;
        self.skipped += bytes;
    }

    /// A "line" above the limit: garbage, or plain output without newlines, which is cut.
    fn give_up_on_long(&mut self) {
        if self.buffer.len() - self.at > ENTRY_LIMIT && self.format != Format::Plain {
            self.skip((self.buffer.len() - self.at) as u64);
            (self.at, self.searched) = (self.buffer.len(), self.buffer.len());
            self.skipping = true;
        }
    }
}

/// Time, stream and bytes of one line of a file, given with its newline. None = not an entry of this format.
pub fn parse_line(format: Format, line: &[u8]) -> Option<(i64, Stream, Vec<u8>)> {
    match format {
        Format::Plain => Some((0, Stream::Stdout, line.to_vec())),
        Format::Cri => parse_cri(line.strip_suffix(b"\n")?),
        Format::Json => parse_json(line),
    }
}

fn stream(name: &[u8]) -> Option<Stream> {
    match name {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/logs/logs.go>: the tag is a list of words
/// joined by ':', of which the first tells.
fn parse_cri(line: &[u8]) -> Option<(i64, Stream, Vec<u8>)> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let time = parse_time(parts.next()?)?;
    let stream = stream(parts.next()?)?;
    let partial = match parts.next()?.split(|&byte| byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let content = parts.next()?;
    let mut data = Vec::with_capacity(content.len() + 1);
    data.extend_from_slice(content);
    if !partial {
        data.push(b'\n');
    }
    Some((time, stream, data))
}

/// Other keys (Docker's `attrs`) do not matter.
#[derive(Deserialize)]
struct JsonLine {
    #[serde(default)]
    log: String,
    stream: String,
    time: String,
}

fn parse_json(line: &[u8]) -> Option<(i64, Stream, Vec<u8>)> {
    let line: JsonLine = serde_json::from_slice(line).ok()?;
    Some((
        parse_time(line.time.as_bytes())?,
        stream(line.stream.as_bytes())?,
        line.log.into_bytes(),
    ))
}

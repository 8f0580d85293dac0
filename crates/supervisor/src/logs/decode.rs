//! One line of a log file, in our own words.

use berth_core::{LogFormat, Stream};
use berth_record::log;

/// What a line of the file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Nanoseconds since the Unix epoch; 0 in the plain format.
    pub time: i64,
    pub stream: Stream,
    /// With its newline, if it had one.
    pub data: Vec<u8>,
}

impl Line {
    /// Whether the next line of this stream begins a new one.
    pub fn ends(&self) -> bool {
        self.data.ends_with(b"\n")
    }
}

/// `line` is a whole line of the file with its newline; the plain format also takes a part. `None` = not of this format.
pub(super) fn decode(format: LogFormat, line: &[u8]) -> Option<Line> {
    let format = match format {
        LogFormat::Cri => log::Format::Cri,
        LogFormat::Json => log::Format::Json,
        LogFormat::Plain => log::Format::Plain,
    };
    let (time, stream, data) = log::parse_line(format, line)?;
    let stream = match stream {
        log::Stream::Stdout => Stream::Stdout,
        log::Stream::Stderr => Stream::Stderr,
    };
    Some(Line { time, stream, data })
}

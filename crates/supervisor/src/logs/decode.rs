//! One line of a log file, as its format has it.

use std::borrow::Cow;

use berth_core::{LogFormat, Stream};

/// What a line of the file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Nanoseconds since the Unix epoch; 0 in the plain format.
    pub time: i64,
    pub stream: Stream,
    /// With its newline, if it had one.
    pub data: Cow<'a, [u8]>,
}

impl Line<'_> {
    /// Whether the next line of this stream begins a new one.
    pub fn ends(&self) -> bool {
        self.data.ends_with(b"\n")
    }
}

/// `line` is a whole line of the file with its newline; the plain format also takes a part. `None` = not of this format.
pub(super) fn decode(format: LogFormat, line: &[u8]) -> Option<Line<'_>> {
    match format {
        LogFormat::Plain => Some(Line { time: 0, stream: Stream::Stdout, data: line.into() }),
        LogFormat::Cri => cri(line.strip_suffix(b"\n")?),
        LogFormat::Json => None,
    }
}

/// `2016-10-06T00:17:09.669794202Z stdout F the line`
fn cri(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = time(std::str::from_utf8(parts.next()?).ok()?)?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let tag = parts.next()?;
    let text = parts.next()?;
    let data = match tag {
        b"F" => [text, b"\n"].concat().into(),
        b"P" => text.into(),
        _ => return None,
    };
    Some(Line { time, stream, data })
}

fn time(text: &str) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?.strip_suffix('Z').or_else(|| text.get(19..)?.strip_suffix("+00:00"))?;
    let nanos = match rest.strip_prefix('.') {
        None => 0,
        Some(digits) if digits.len() <= 9 => format!("{digits:0<9}").parse::<i64>().ok()?,
        Some(_) => return None,
    };
    // Days from civil, Howard Hinnant's algorithm.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000_000_000 + second * 1_000_000_000 + nanos)
}

//! The formats of log files: lines with their stream and time, in bytes.
//!
//! ```text
//! CRI    2026-11-24T07:02:00.586776794Z stdout F a whole line\n      P: the line goes on in the next entry of its stream
//! JSON   {"log":"a whole line\n","stream":"stdout","time":"2026-11-24T07:02:00.586776794Z"}\n      Docker's json-file
//! PLAIN  the bytes as they came
//! ```
//!
//! An entry holds at most [`PIECE`] bytes of output. Nothing is held back for the rest of a line: output that stops in the
//! middle of one is a P entry (CRI) or one without a newline (JSON) at once, so the file never lacks what a process has
//! written. From CRI and plain files the bytes come back exactly; JSON can't hold what is no UTF-8, and has U+FFFD instead,
//! as Docker's has.
//!
//! Both directions are pure: no clock, no files.

mod cri;
mod decode;
mod json;
mod time;

pub use berth_core::{LogFormat as Format, Stream};
pub use decode::{Decoder, ENTRY_LIMIT, Entry, parse_line};
pub use json::unfinished;
pub use time::{format_time, parse_time};

/// The most bytes of output in one entry; longer lines are split. Kubernetes's and Docker's limit.
pub const PIECE: usize = 16 << 10;

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// Appends entries for `input` to `out`, whole entries only, while `out` stays within `limit` bytes. Gives how much of the
/// input they hold: less than all of it when the next entry did not fit.
///
/// `time` is in nanoseconds since the Unix epoch. For JSON the input must not end within a character whose rest is still to
/// come: see [`unfinished`].
pub fn encode(format: Format, out: &mut Vec<u8>, limit: usize, stream: Stream, time: i64, input: &[u8]) -> usize {
    match format {
        Format::Cri => cri::encode(out, limit, stream, time, input),
        Format::Json => json::encode(out, limit, stream, time, input),
        Format::Plain => {
            let len = plain_len(limit.saturating_sub(out.len()), input);
            out.extend_from_slice(&input[..len]);
            len
        }
    }
}

/// How much of `input` a plain file with `room` bytes left gets: up to a newline, if there is one.
pub fn plain_len(room: usize, input: &[u8]) -> usize {
    if input.len() <= room {
        return input.len();
    }
    memchr::memrchr(b'\n', &input[..room]).map_or(0, |newline| newline + 1)
}

/// The line or piece of a line that `input` begins with: its bytes with the newline, and whether it has one.
fn first_piece(input: &[u8]) -> (&[u8], bool) {
    let head = &input[..input.len().min(PIECE + 1)];
    match memchr::memchr(b'\n', head) {
        Some(newline) => (&input[..=newline], true),
        None => (&input[..input.len().min(PIECE)], false),
    }
}

#[cfg(test)]
mod test;

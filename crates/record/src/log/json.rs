//! Docker's json-file format, written byte for byte as Docker's `jsonlog` package does (keys in its order, `<`, `>`, `&`,
//! U+2028 and U+2029 escaped, trailing zeros of the time cut).

use super::{PIECE, Stream, first_piece, stream_name, time::format_time};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// As [`super::encode`].
pub(super) fn encode(out: &mut Vec<u8>, limit: usize, stream: Stream, time: i64, input: &[u8]) -> usize {
    let time = format_time(time);
    let mut tail = Vec::with_capacity(70);
    tail.extend_from_slice(b"\",\"stream\":\"");
    tail.extend_from_slice(stream_name(stream).as_bytes());
    tail.extend_from_slice(b"\",\"time\":\"");
    tail.extend_from_slice(go_time(&time));
    tail.extend_from_slice(b"Z\"}\n");
    let mut done = 0;
    while done < input.len() {
        let (mut piece, ended) = first_piece(&input[done..]);
        if !ended && piece.len() == PIECE && done + piece.len() < input.len() {
            // The piece's end must not split a character.
            piece = &piece[..piece.len() - unfinished(piece)];
        }
        let before = out.len();
        out.extend_from_slice(b"{\"log\":\"");
        escape(out, piece);
        out.extend_from_slice(&tail);
        if out.len() > limit {
            out.truncate(before);
            break;
        }
        done += piece.len();
    }
    done
}

/// Go's RFC3339Nano, without the Z: no trailing zeros, no lone point.
fn go_time(time: &[u8; 30]) -> &[u8] {
    let kept = time[20..29]
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(19, |last| 20 + last + 1);
    &time[..kept]
}

/// Bytes that stand for themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

fn escape(out: &mut Vec<u8>, mut input: &[u8]) {
    while !input.is_empty() {
        let plain = input
            .iter()
            .position(|&byte| !PLAIN[usize::from(byte)])
            .unwrap_or(input.len());
        out.extend_from_slice(&input[..plain]);
        input = &input[plain..];
        let Some(&byte) = input.first() else { return };
        let used = if byte < 0x80 {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                _ => {
                    let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&digits);
                }
            }
            1
        } else {
            escape_wide(out, input)
        };
        input = &input[used..];
    }
}

/// A character outside of ASCII, or a byte that is part of none.
fn escape_wide(out: &mut Vec<u8>, input: &[u8]) -> usize {
    match input.get(..width(input[0])).map(std::str::from_utf8) {
        Some(Ok("\u{2028}")) => out.extend_from_slice(b"\\u2028"),
        Some(Ok("\u{2029}")) => out.extend_from_slice(b"\\u2029"),
        Some(Ok(character)) => out.extend_from_slice(character.as_bytes()),
        Some(Err(_)) | None => {
            out.extend_from_slice(b"\\ufffd");
            return 1;
        }
    }
    width(input[0])
}

/// Bytes of the character that begins with `first`; 1 for what begins none.
fn width(first: u8) -> usize {
    match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

/// How many bytes at the end, 0 to 3, are the beginning of a character whose rest is missing. They are to be kept and put
/// before the stream's next bytes.
pub fn unfinished(input: &[u8]) -> usize {
    for back in 1..=input.len().min(3) {
        let tail = &input[input.len() - back..];
        if width(tail[0]) > 1 {
            let cut = match std::str::from_utf8(tail) {
                Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
                Ok(_) => false,
            };
            return if cut { back } else { 0 };
        }
        if tail[0] < 0x80 {
            return 0;
        }
    }
    0
}

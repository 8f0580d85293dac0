//! The CRI format, written.

use super::{Stream, first_piece, stream_name, time::format_time};

/// Time, two blanks around the stream, tag, blank.
const HEAD: usize = 30 + 1 + 6 + 1 + 1 + 1;

/// As [`super::encode`].
pub(super) fn encode(out: &mut Vec<u8>, limit: usize, stream: Stream, time: i64, input: &[u8]) -> usize {
    // One head for all lines of a read: they came at the same time.
    let mut head = [b' '; HEAD];
    head[..30].copy_from_slice(&format_time(time));
    head[31..37].copy_from_slice(stream_name(stream).as_bytes());
    let mut done = 0;
    while done < input.len() {
        let (piece, ended) = first_piece(&input[done..]);
        let content = &piece[..piece.len() - usize::from(ended)];
        if out.len() + HEAD + content.len() + 1 > limit {
            break;
        }
        head[38] = if ended { b'F' } else { b'P' };
        out.extend_from_slice(&head);
        out.extend_from_slice(content);
        out.push(b'\n');
        done += piece.len();
    }
    done
}

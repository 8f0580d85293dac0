//! One header block: finds `:authority`, and writes the block anew if its value would be refused.
//!
//! All but a refused authority is copied as it was encoded. The peer's table may hold an entry for the refused value; that of the
//! parser behind us then holds one of the same size in the same place, so that an index means the same field for both.

use tonic::codegen::http::uri::Authority;

pub use super::fields::Unreadable;
use super::fields::{Fields, Form};

/// In place of an empty value; may differ in length, as it is written only where it enters no table.
const NOBODY: &[u8] = b"localhost";

/// First byte of a field whose name is entry 1 of the static table (`:authority`) and whose value follows (RFC 7541, 6.2).
const INDEXED: u8 = 0x41;
const NOT_INDEXED: u8 = 0x01;
const NEVER_INDEXED: u8 = 0x11;

/// The blocks of one connection, in order.
pub struct Blocks {
    fields: Fields,
}

impl Blocks {
    pub fn new() -> Self {
        Blocks { fields: Fields::new() }
    }

    /// The block to send in place of `block`, `None` if it can stay.
    pub fn see(&mut self, block: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut written: Option<Vec<u8>> = None;
        let mut rest = block;
        while !rest.is_empty() {
            let begin = block.len() - rest.len();
            let authority = self.fields.next(&mut rest)?;
            let end = block.len() - rest.len();
            let replacement = authority
                .filter(|(_, value)| !accepted(value))
                .and_then(|(form, value)| replace(form, &value));
            match (replacement, &mut written) {
                (Some(field), Some(written)) => written.extend(field),
                (Some(field), None) => written = Some([&block[..begin], &field].concat()),
                (None, Some(written)) => written.extend(&block[begin..end]),
                (None, None) => {}
            }
        }
        Ok(written)
    }
}

/// The judge is the one that the parser behind us asks.
pub fn accepted(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok()
}

/// Accepted, and readable in a trace: `/run/b.sock` becomes `-run-b.sock`.
pub fn same_length(value: &[u8]) -> Vec<u8> {
    value
        .iter()
        .map(|&byte| match byte {
            b'.' => byte,
            _ if byte.is_ascii_alphanumeric() => byte,
            _ => b'-',
        })
        .collect()
}

/// The field to send for a refused `value`; `None` to leave it.
fn replace(form: Form, value: &[u8]) -> Option<Vec<u8>> {
    let new = same_length(value);
    let or_nobody = if value.is_empty() { NOBODY } else { &new };
    match form {
        Form::Entry => Some(field(NOT_INDEXED, NOBODY)),
        // It enters the table, where no accepted value is as short: left to be refused.
        Form::Indexed if value.is_empty() => None,
        Form::Indexed => Some(field(INDEXED, &new)),
        Form::NotIndexed => Some(field(NOT_INDEXED, or_nobody)),
        Form::NeverIndexed => Some(field(NEVER_INDEXED, or_nobody)),
    }
}

/// A field with a plain value (RFC 7541, 5.1 and 5.2).
fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![kind];
    if value.len() < 127 {
        field.push(value.len() as u8);
    } else {
        field.push(127);
        let mut length = value.len() - 127;
        while length >= 128 {
            field.push((length % 128) as u8 | 128);
            length /= 128;
        }
        field.push(length as u8);
    }
    field.extend(value);
    field
}

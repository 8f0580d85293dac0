//! Fields of a header block, one by one (RFC 7541, section 6), as far as needed to know which of them is `:authority`.
//!
//! Names and values are not kept: an entry of the dynamic table is its size, which decides when it is evicted, and whether its name
//! is ours. Bytes come from whoever opened the socket, so nothing here panics or allocates more than a block's length; what
//! can't be read is [`Unreadable`], and ends the reading of this connection.

use std::collections::VecDeque;

use httlib_huffman::DecoderSpeed;

const NAME: &[u8] = b":authority";

/// What the parser behind us allows in its table: HTTP/2's default, which our SETTINGS do not change.
const TABLE: usize = 4096;

/// What an entry counts beside its name and value (RFC 7541, 4.1).
const ENTRY: usize = 32;

/// Lengths of the names in the static table (RFC 7541, appendix A), from entry 1 on, which is `:authority`.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// Something that we can't read; it may still be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// How an authority with a value was encoded. An entry of the dynamic table is not among them: its value was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Entry 1 of the static table: the name with an empty value.
    Entry,
    Indexed,
    NotIndexed,
    NeverIndexed,
}

/// What the fields seen so far have left in the table.
pub struct Fields {
    /// The newest first: bytes of each, and its name.
    entries: VecDeque<(usize, Name)>,
    bytes: usize,
    limit: usize,
}

/// Its length, and whether it is ours.
#[derive(Clone, Copy)]
struct Name {
    length: usize,
    ours: bool,
}

impl Fields {
    pub fn new() -> Self {
        Fields {
            entries: VecDeque::new(),
            bytes: 0,
            limit: TABLE,
        }
    }

    /// Takes one field, or one change of the table's size, from the front of `rest`. Gives an authority and its value.
    pub fn next(&mut self, rest: &mut &[u8]) -> Result<Option<(Form, Vec<u8>)>, Unreadable> {
        match *rest.first().ok_or(Unreadable)? {
            0x80.. => {
                let index = integer(rest, 7)?;
                self.name(index)?;
                Ok((index == 1).then(|| (Form::Entry, Vec::new())))
            }
            0x40.. => {
                let (name, value) = self.literal(rest, 6)?;
                self.insert(name.length + value.len() + ENTRY, name);
                Ok(name.ours.then_some((Form::Indexed, value)))
            }
            0x20.. => {
                let limit = integer(rest, 5)?;
                if limit > TABLE {
                    return Err(Unreadable);
                }
                self.limit = limit;
                self.evict();
                Ok(None)
            }
            0x10.. => {
                let (name, value) = self.literal(rest, 4)?;
                Ok(name.ours.then_some((Form::NeverIndexed, value)))
            }
            _ => {
                let (name, value) = self.literal(rest, 4)?;
                Ok(name.ours.then_some((Form::NotIndexed, value)))
            }
        }
    }

    fn literal(&self, rest: &mut &[u8], prefix: u8) -> Result<(Name, Vec<u8>), Unreadable> {
        let name = match integer(rest, prefix)? {
            0 => {
                let name = string(rest)?;
                Name {
                    length: name.len(),
                    ours: name == NAME,
                }
            }
            index => self.name(index)?,
        };
        Ok((name, string(rest)?))
    }

    fn name(&self, index: usize) -> Result<Name, Unreadable> {
        let before = index.checked_sub(1).ok_or(Unreadable)?;
        if let Some(&length) = STATIC_NAMES.get(before) {
            return Ok(Name {
                length: length.into(),
                ours: index == 1,
            });
        }
        let &(_, name) = self.entries.get(before - STATIC_NAMES.len()).ok_or(Unreadable)?;
        Ok(name)
    }

    fn insert(&mut self, size: usize, name: Name) {
        self.entries.push_front((size, name));
        self.bytes += size;
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.limit {
            let Some((size, _)) = self.entries.pop_back() else {
                break;
            };
            self.bytes -= size;
        }
    }
}

/// An integer whose first byte has a prefix of so many bits (RFC 7541, 5.1).
fn integer(rest: &mut &[u8], prefix: u8) -> Result<usize, Unreadable> {
    let mask = (1_u8 << prefix) - 1;
    let mut value = usize::from(byte(rest)? & mask);
    if value < usize::from(mask) {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let next = byte(rest)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

/// A string, plain or in Huffman's code (RFC 7541, 5.2).
fn string(rest: &mut &[u8]) -> Result<Vec<u8>, Unreadable> {
    let huffman = rest.first().ok_or(Unreadable)? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, later) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = later;
    if !huffman {
        return Ok(bytes.to_vec());
    }
    // No code is shorter than 5 bits.
    let mut text = Vec::with_capacity(length * 8 / 5);
    httlib_huffman::decode(bytes, &mut text, DecoderSpeed::FourBits).map_err(|_| Unreadable)?;
    Ok(text)
}

fn byte(rest: &mut &[u8]) -> Result<u8, Unreadable> {
    let (&first, later) = rest.split_first().ok_or(Unreadable)?;
    *rest = later;
    Ok(first)
}

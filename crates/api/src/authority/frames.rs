//! HTTP/2 frames as far as needed to find header blocks (RFC 9113, 4.1 and 6.2), without I/O.
//!
//! ```text
//! Preface ──▶ Head ──▶ Skip (any other frame) ──▶ Head
//!    │          └────▶ Block (HEADERS, its CONTINUATIONs) ──▶ Head
//!    └──▶ Done ◀── a block without fault at first; anything malformed or too long, at any time
//! ```
//!
//! Done is final and needs no state: what was held goes out as it came.

use super::block::Blocks;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// The longest payload that any HTTP/2 peer takes.
const MAX_PAYLOAD: usize = 16 << 10;

/// The most that is held of one block, heads of frames included. gRPC clients send some hundred bytes, and libraries refuse more
/// than 8 or 16 KiB of metadata; a longer block goes through as it is.
pub const MAX_HELD: usize = MAX_PAYLOAD + HEAD;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Stream dependency and weight, in front of a block whose frame has PRIORITY.
const PRIORITY_BYTES: usize = 5;

enum State {
    /// So many bytes of it have come.
    Preface(usize),
    /// The head of a frame is collected at the end of `held`, from `from` on; frames of a block may be before it.
    Head {
        from: usize,
    },
    /// The payload of the frame at `from`, which belongs to a block, is collected until `held` has `until` bytes.
    Payload {
        from: usize,
        until: usize,
    },
    /// So many bytes go through.
    Skip(usize),
    Done,
}

/// The frames of one connection, from its client.
pub struct Rewriter {
    state: State,
    held: Vec<u8>,
    block: Option<Block>,
    blocks: Blocks,
    /// A refused authority was found on this connection.
    faulty: bool,
}

/// The block that is being collected.
struct Block {
    stream: [u8; 4],
    flags: u8,
    priority: Vec<u8>,
    fragments: Vec<u8>,
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Head> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes else {
            return None;
        };
        Some(Head {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            stream: [s0, s1, s2, s3],
        })
    }
}

impl Rewriter {
    pub fn new() -> Self {
        Rewriter {
            state: State::Preface(0),
            held: Vec::new(),
            block: None,
            blocks: Blocks::new(),
            faulty: false,
        }
    }

    /// Whether all further bytes go through unchanged, and none is held.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// No more bytes come.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.give_up(out);
    }

    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            input = match self.state {
                State::Done => {
                    out.extend(input);
                    return;
                }
                State::Preface(seen) => self.preface(seen, input, out),
                State::Skip(left) => {
                    let (now, later) = input.split_at(left.min(input.len()));
                    out.extend(now);
                    self.state = match left - now.len() {
                        0 => State::Head { from: 0 },
                        left => State::Skip(left),
                    };
                    later
                }
                State::Head { from } => {
                    let later = self.hold(from + HEAD, input);
                    if self.held.len() == from + HEAD {
                        self.head(from, out);
                    }
                    later
                }
                State::Payload { from, until } => {
                    let later = self.hold(until, input);
                    if self.held.len() == until {
                        self.payload(from, out);
                    }
                    later
                }
            };
        }
    }

    fn preface<'a>(&mut self, seen: usize, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (now, later) = input.split_at((PREFACE.len() - seen).min(input.len()));
        out.extend(now);
        let seen = seen + now.len();
        self.state = if now != &PREFACE[seen - now.len()..seen] {
            State::Done
        } else if seen == PREFACE.len() {
            State::Head { from: 0 }
        } else {
            State::Preface(seen)
        };
        later
    }

    /// Holds what is missing to `until` bytes; gives the rest.
    fn hold<'a>(&mut self, until: usize, input: &'a [u8]) -> &'a [u8] {
        let (now, later) = input.split_at((until - self.held.len()).min(input.len()));
        self.held.extend(now);
        later
    }

    /// A frame's head is complete.
    fn head(&mut self, from: usize, out: &mut Vec<u8>) {
        let Some(head) = Head::parse(&self.held[from..]) else {
            return self.give_up(out);
        };
        let belongs = match &self.block {
            None => head.kind == HEADERS,
            Some(block) if head.kind == CONTINUATION && head.stream == block.stream => true,
            // Nothing may come between the frames of a block.
            Some(_) => return self.give_up(out),
        };
        if !belongs {
            out.append(&mut self.held);
            self.state = match head.length {
                0 => State::Head { from: 0 },
                length => State::Skip(length),
            };
            return;
        }
        let until = from + HEAD + head.length;
        if until > MAX_HELD {
            return self.give_up(out);
        }
        self.state = State::Payload { from, until };
        if head.length == 0 {
            self.payload(from, out);
        }
    }

    /// The frame at `from`, the last one in `held`, is complete.
    fn payload(&mut self, from: usize, out: &mut Vec<u8>) {
        let (head, payload) = self.held[from..].split_at(HEAD);
        let Some(head) = Head::parse(head) else {
            return self.give_up(out);
        };
        match &mut self.block {
            Some(block) => block.fragments.extend(payload),
            None => match Block::open(&head, payload) {
                Some(block) => self.block = Some(block),
                None => return self.give_up(out),
            },
        }
        if head.flags & END_HEADERS == 0 {
            self.state = State::Head { from: self.held.len() };
        } else if let Some(block) = self.block.take() {
            self.complete(&block, out);
        }
    }

    fn complete(&mut self, block: &Block, out: &mut Vec<u8>) {
        match self.blocks.see(&block.fragments) {
            Ok(None) if !self.faulty => return self.give_up(out),
            Ok(None) => out.append(&mut self.held),
            Ok(Some(fragments)) => {
                self.faulty = true;
                self.held.clear();
                block.write(&fragments, out);
            }
            Err(_) => return self.give_up(out),
        }
        self.state = State::Head { from: 0 };
    }

    fn give_up(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.held = Vec::new();
        self.block = None;
        self.state = State::Done;
    }
}

impl Block {
    fn open(head: &Head, payload: &[u8]) -> Option<Block> {
        let (padding, payload) = match head.flags & PADDED {
            0 => (0, payload),
            _ => {
                let (&padding, payload) = payload.split_first()?;
                (usize::from(padding), payload)
            }
        };
        let (priority, payload) = match head.flags & PRIORITY {
            0 => (&[][..], payload),
            _ => payload.split_at_checked(PRIORITY_BYTES)?,
        };
        let fragment = payload.get(..payload.len().checked_sub(padding)?)?;
        Some(Block {
            stream: head.stream,
            flags: head.flags & (END_STREAM | PRIORITY),
            priority: priority.to_vec(),
            fragments: fragment.to_vec(),
        })
    }

    /// Frames with `fragments` in place of those that came; without padding.
    fn write(&self, fragments: &[u8], out: &mut Vec<u8>) {
        let (first, mut rest) = fragments.split_at(fragments.len().min(MAX_PAYLOAD - self.priority.len()));
        let last = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        self.write_frame(HEADERS, self.flags | last(rest), &[&self.priority, first], out);
        while !rest.is_empty() {
            let (fragment, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            rest = later;
            self.write_frame(CONTINUATION, last(rest), &[fragment], out);
        }
    }

    fn write_frame(&self, kind: u8, flags: u8, payload: &[&[u8]], out: &mut Vec<u8>) {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        // At most MAX_PAYLOAD.
        out.extend([(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags]);
        out.extend(self.stream);
        for part in payload {
            out.extend(*part);
        }
    }
}

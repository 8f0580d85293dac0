//! The memory that the shim and its writer share: who may touch which part when, and how the writer's progress is kept.
//!
//! ```text
//! word 0     head: bytes of frames ever appended                      written by the shim
//!      1     no more comes                                            shim
//!      2     the shim waits for room                                  both
//!      3     the writer sleeps                                        both
//!      4     which of the two slots is the progress                   writer
//!      5     errno of the writer's last failure, 0 = none              writer
//! 64, 128    two slots of progress: tail, within, file length, file's inode, carried bytes, dropped      writer
//! 4096 …     frames, a power of two: { length | stream << 32, time, offset } and the bytes, padded to 8
//! ```
//!
//! Frames from `tail` to `head` are the writer's to read; everything else is the shim's, which keeps frames behind `tail`
//! readable for attach until it needs their room. Progress is one store of word 4, so that a writer that is killed at any
//! instruction leaves either the old or the new one, and the next writer can cut the file back to what the progress says.

use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use berth_sys::shared::SharedMap;

use super::Stream;

const PAGE: usize = 4096;
pub const HEADER: u64 = 24;

/// Both ends' view of the shared memory.
#[derive(Debug)]
pub struct Shared {
    pub map: SharedMap,
    /// Bytes for frames.
    pub capacity: u64,
}

/// What stands in a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub stream: Stream,
    pub len: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// Of the first byte in all output.
    pub offset: u64,
}

impl Frame {
    /// Bytes from this frame's beginning to the next one's.
    pub fn span(&self) -> u64 {
        HEADER + self.len.next_multiple_of(8)
    }
}

/// How far the writer is. `within` bytes of the frame at `tail` are done too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub tail: u64,
    pub within: u64,
    /// Length of the current file with all that is done, and the file's inode; 0 = none was opened.
    pub file_len: u64,
    pub inode: u64,
    /// The beginning of a character whose rest is still to come, one for each stream: up to 3 bytes and their number.
    pub carry: [[u8; 4]; 2],
    /// Bytes of output that the writer has dropped.
    pub dropped: u64,
}

impl Shared {
    /// `capacity` must be a power of two, a page at least.
    pub fn new(capacity: usize) -> io::Result<Shared> {
        Ok(Shared {
            map: SharedMap::new(PAGE + capacity)?,
            capacity: capacity as u64,
        })
    }

    pub fn head(&self) -> &AtomicU64 {
        self.map.word(0)
    }

    pub fn ended(&self) -> &AtomicU64 {
        self.map.word(8)
    }

    pub fn shim_waits(&self) -> &AtomicU64 {
        self.map.word(16)
    }

    pub fn writer_sleeps(&self) -> &AtomicU64 {
        self.map.word(24)
    }

    fn slot(&self) -> &AtomicU64 {
        self.map.word(32)
    }

    pub fn errno(&self) -> &AtomicU64 {
        self.map.word(40)
    }

    pub fn progress(&self) -> Progress {
        loop {
            let slot = self.slot().load(SeqCst);
            let word = |index: usize| self.map.word(Self::slot_at(slot) + 8 * index).load(SeqCst);
            let carry = word(4).to_le_bytes();
            let progress = Progress {
                tail: word(0),
                within: word(1),
                file_len: word(2),
                inode: word(3),
                carry: [
                    [carry[0], carry[1], carry[2], carry[3]],
                    [carry[4], carry[5], carry[6], carry[7]],
                ],
                dropped: word(5),
            };
            // The slot that is not current is written only after the switch away from it.
            if self.slot().load(SeqCst) == slot {
                return progress;
            }
        }
    }

    /// The writer's one way to say that something is done.
    pub fn commit(&self, progress: &Progress) {
        let next = self.slot().load(SeqCst) ^ 1;
        let [a, b] = progress.carry;
        let carry = u64::from_le_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]);
        let words = [
            progress.tail,
            progress.within,
            progress.file_len,
            progress.inode,
            carry,
            progress.dropped,
        ];
        for (index, value) in words.into_iter().enumerate() {
            self.map.word(Self::slot_at(next) + 8 * index).store(value, SeqCst);
        }
        self.slot().store(next, SeqCst);
    }

    fn slot_at(slot: u64) -> usize {
        if slot == 0 { 64 } else { 128 }
    }

    /// The header of the frame at `position`, which must be one.
    pub fn frame(&self, position: u64) -> Frame {
        let word = |index: u64| self.map.word(self.place(position + 8 * index)).load(SeqCst);
        let first = word(0);
        Frame {
            stream: if first >> 32 == Stream::Stderr as u64 {
                Stream::Stderr
            } else {
                Stream::Stdout
            },
            len: first & u64::from(u32::MAX),
            time: word(1) as i64,
            offset: word(2),
        }
    }

    pub fn set_frame(&self, position: u64, frame: &Frame) {
        let words = [frame.len | (frame.stream as u64) << 32, frame.time as u64, frame.offset];
        for (index, value) in (0..).zip(words) {
            self.map.word(self.place(position + 8 * index)).store(value, SeqCst);
        }
    }

    /// Where in the map a run of bytes of the ring lies: two pieces, the second empty unless it wraps.
    pub fn pieces(&self, position: u64, len: u64) -> [Range<usize>; 2] {
        let start = self.place(position);
        let first = len.min(self.capacity - position % self.capacity) as usize;
        [start..start + first, PAGE..PAGE + (len as usize - first)]
    }

    pub fn copy_out(&self, position: u64, len: u64, out: &mut Vec<u8>) {
        for piece in self.pieces(position, len) {
            self.map.copy_out(piece, out);
        }
    }

    fn place(&self, position: u64) -> usize {
        PAGE + (position % self.capacity) as usize
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn progress_is_whole_and_frames_wrap() {
        let shared = Shared::new(4096).expect("map");
        assert_eq!(shared.progress(), Progress::default());
        let progress = Progress {
            tail: 1,
            within: 2,
            file_len: 3,
            inode: 4,
            carry: [[5, 6, 7, 8], [9, 10, 11, 12]],
            dropped: 13,
        };
        shared.commit(&progress);
        assert_eq!(shared.progress(), progress);
        let frame = Frame {
            stream: Stream::Stderr,
            len: 77,
            time: -5,
            offset: 1 << 40,
        };
        shared.set_frame(4096 * 3 - 8, &frame);
        assert_eq!(shared.frame(4096 * 3 - 8), frame);
        assert_eq!(frame.span(), 24 + 80);
        assert_eq!(shared.pieces(4096 * 2 - 8, 20), [8184..8192, 4096..4108]);
    }
}

//! What the bus needs of a journal. The daemon's is files on the state folder's tmpfs; tests use a list.

use std::io;

/// Records with consecutive numbers from 1, the oldest thrown away by the journal's own limits.
///
/// A record that `append` answered for is there after a SIGKILL of the daemon, under the same number.
pub trait Journal: Send {
    /// Names this numbering: another one begins with an empty state folder.
    fn epoch(&self) -> u64;
    /// Number of the oldest record that is kept; `next()` if there is none.
    fn first(&self) -> u64;
    /// Number that the next record will get.
    fn next(&self) -> u64;
    /// Answers the record's number.
    fn append(&mut self, record: &[u8]) -> io::Result<u64>;
    /// At most `max` records from number `from` on, in order. A damaged one is left out.
    fn read(&mut self, from: u64, max: usize) -> io::Result<Vec<(u64, Vec<u8>)>>;
}

impl Journal for berth_record::Journal {
    fn epoch(&self) -> u64 {
        self.epoch()
    }

    fn first(&self) -> u64 {
        self.first()
    }

    fn next(&self) -> u64 {
        self.next()
    }

    fn append(&mut self, record: &[u8]) -> io::Result<u64> {
        self.append(record).map_err(Into::into)
    }

    fn read(&mut self, from: u64, max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        berth_record::Journal::read(self, from.max(self.first()), max).map_err(Into::into)
    }
}

#[cfg(test)]
pub(crate) mod memory {
    use super::*;

    /// A journal that keeps the last `keep` records.
    pub(crate) struct Memory {
        pub keep: usize,
        pub first: u64,
        pub records: std::collections::VecDeque<Vec<u8>>,
        /// The next appends fail with ENOSPC.
        pub full: bool,
    }

    impl Memory {
        pub(crate) fn new(keep: usize) -> Self {
            Memory {
                keep,
                first: 1,
                records: Default::default(),
                full: false,
            }
        }
    }

    impl Journal for Memory {
        fn epoch(&self) -> u64 {
            0xE
        }

        fn first(&self) -> u64 {
            self.first
        }

        fn next(&self) -> u64 {
            self.first + self.records.len() as u64
        }

        fn append(&mut self, record: &[u8]) -> io::Result<u64> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let number = self.next();
            self.records.push_back(record.to_vec());
            while self.records.len() > self.keep {
                self.records.pop_front();
                self.first += 1;
            }
            Ok(number)
        }

        fn read(&mut self, from: u64, max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
            let from = from.max(self.first);
            let skip = (from - self.first) as usize;
            Ok((from..)
                .zip(self.records.iter().skip(skip).take(max).cloned())
                .collect())
        }
    }
}

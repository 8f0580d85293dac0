//! Events have one number each, for ever; a cursor is the epoch of the numbering and a number.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, excerpt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Created = 1,
    Started = 2,
    Exited = 3,
    Oom = 4,
    ExecStarted = 5,
    ExecExited = 6,
    Paused = 7,
    Resumed = 8,
    Updated = 9,
    Deleted = 10,
    StartFailed = 11,
}

impl EventKind {
    pub const ALL: [EventKind; 11] = [
        Self::Created,
        Self::Started,
        Self::Exited,
        Self::Oom,
        Self::ExecStarted,
        Self::ExecExited,
        Self::Paused,
        Self::Resumed,
        Self::Updated,
        Self::Deleted,
        Self::StartFailed,
    ];

    /// The number on the wire and on disk.
    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Where a reader of events stands. A new epoch begins when the numbering does: with an empty state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub epoch: u64,
    pub number: u64,
}

/// `EPOCH:NUMBER`, the epoch as 16 hexadecimal digits.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.number)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        let parse = || {
            let (epoch, number) = value.split_once(':')?;
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            Some(Self {
                epoch,
                number: number.parse().ok()?,
            })
        };
        parse().ok_or_else(|| Error::BadCursor { value: excerpt(value) })
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_keep_their_numbers() {
        for (i, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.number() as usize, i + 1);
        }
    }

    proptest! {
        #[test]
        fn cursors_round_trip(epoch: u64, number: u64) {
            let cursor = Cursor { epoch, number };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn no_text_panics(s in ".*") {
            let _ = s.parse::<Cursor>();
        }
    }
}

//! What can be wrong with a value, and the codes that every failure of Berth carries to its caller.

use std::fmt;

/// Mirrors `berth.v1.ErrorCode`, number for number; survives the hop through a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    InvalidArgument = 1,
    NotFound = 2,
    AlreadyExists = 3,
    WrongState = 4,
    Bundle = 5,
    Runtime = 6,
    CommandNotFound = 7,
    CommandNotExecutable = 8,
    Timeout = 9,
    Cancelled = 10,
    Resources = 11,
    ShimLost = 12,
    CursorTooOld = 13,
    Unimplemented = 14,
    Internal = 15,
    ShuttingDown = 16,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 16] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::WrongState,
        Self::Bundle,
        Self::Runtime,
        Self::CommandNotFound,
        Self::CommandNotExecutable,
        Self::Timeout,
        Self::Cancelled,
        Self::Resources,
        Self::ShimLost,
        Self::CursorTooOld,
        Self::Unimplemented,
        Self::Internal,
        Self::ShuttingDown,
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number from the wire; `None` for 0 and for codes of a newer release.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::WrongState => "wrong state",
            Self::Bundle => "bundle",
            Self::Runtime => "runtime",
            Self::CommandNotFound => "command not found",
            Self::CommandNotExecutable => "command not executable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Resources => "out of resources",
            Self::ShimLost => "shim lost",
            Self::CursorTooOld => "cursor too old",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::ShuttingDown => "shutting down",
        })
    }
}

/// A value that breaks a rule of its type. The value itself is shortened and escaped: it came from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} {value} is {length} characters long; at most {max} are allowed")]
    TooLong {
        what: &'static str,
        value: String,
        length: usize,
        max: usize,
    },
    #[error("{what} {value}: only letters and digits joined by single '.', '_' or '-' are allowed")]
    BadCharacters { what: &'static str, value: String },
    #[error("incarnation {value}: 32 hexadecimal digits expected")]
    BadIncarnation { value: String },
    #[error("signal {value}: a name such as SIGTERM or a number from 1 to 64 expected")]
    BadSignal { value: String },
    #[error("event cursor {value}: EPOCH:NUMBER expected")]
    BadCursor { value: String },
}

impl Error {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Empty { .. }
            | Self::TooLong { .. }
            | Self::BadCharacters { .. }
            | Self::BadIncarnation { .. }
            | Self::BadSignal { .. }
            | Self::BadCursor { .. } => ErrorCode::InvalidArgument,
        }
    }
}

/// A value from outside, fit for one line of an error message.
pub(crate) fn excerpt(value: &str) -> String {
    let short: String = value.chars().take(40).collect();
    if short.len() < value.len() {
        format!("{short:?}…")
    } else {
        format!("{short:?}")
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn codes_keep_their_numbers() {
        for (i, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, i + 1);
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(17), None);
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("a\nb\0"), r#""a\nb\0""#);
        assert!(excerpt(&"x".repeat(1 << 20)).len() < 60);
    }
}

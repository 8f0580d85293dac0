//! Signals of Linux, 1 to 64, by name or number.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, excerpt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

/// Index + 1 is the number, on every architecture that Berth is built for (x86-64 and arm64 agree).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The C library keeps 32 and 33 for itself.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    pub const TERM: Signal = Signal(15);
    pub const KILL: Signal = Signal(9);

    pub fn from_number(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=RTMAX).contains(n)).map(Self)
    }

    pub fn number(self) -> u32 {
        self.0.into()
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        let bad = || Error::BadSignal { value: excerpt(value) };
        if value.bytes().all(|b| b.is_ascii_digit()) {
            return value.parse().ok().and_then(Self::from_number).ok_or_else(bad);
        }
        if value.len() > 16 {
            return Err(bad());
        }
        let upper = value.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(i) = NAMES.iter().position(|n| *n == name) {
            return Ok(Self(i as u8 + 1));
        }
        if let Some((_, number)) = ALIASES.iter().find(|(n, _)| *n == name) {
            return Ok(Self(*number));
        }
        let offset = |rest: &str, sign: char| match rest {
            "" => Some(0),
            _ => rest
                .strip_prefix(sign)
                .filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?
                .parse::<u8>()
                .ok(),
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest, '+').and_then(|n| RTMIN.checked_add(n))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest, '-').and_then(|n| RTMAX.checked_sub(n))
        } else {
            None
        };
        number.filter(|n| (RTMIN..=RTMAX).contains(n)).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if usize::from(n) <= NAMES.len() => write!(f, "SIG{}", NAMES[usize::from(n) - 1]),
            n if n >= RTMIN => write!(f, "SIGRTMIN+{}", n - RTMIN),
            n => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("CLD", 17),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "+1",
            "SIG",
            "SIGRTMIN+31",
            "RTMIN+-1",
            "RTMAX-99",
            "4294967297",
            "TERM\0",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_signal_reads_its_own_name() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(s in ".*") {
            let _ = s.parse::<Signal>();
        }
    }
}

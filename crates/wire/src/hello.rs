//! The handshake between a client (daemon or tool) and a shim: 20 bytes each way, before the first frame.
//!
//! Frozen: a daemon of any release must be able to greet a shim of any other, so the bytes below never change (golden test).
//!
//! ```text
//! client  "BERTH\0"  min u16be  max u16be     role u8    0 u8  epoch u64be
//! shim    "BERTH\0"  chosen u16be  max u16be  status u8  0 u8  shim's pid u64be
//! ```
//!
//! `epoch` is the daemon's generation, ordered by time: a shim refuses control by a lower one than it has seen. Tools send 0.

/// Bytes of a greeting, in either direction.
pub const LEN: usize = 20;
/// Oldest protocol that this build speaks.
pub const MIN: u16 = 1;
/// Newest protocol that this build speaks.
pub const MAX: u16 = 1;

const MAGIC: &[u8; 6] = b"BERTH\0";

/// Who greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May control the container; fenced by its epoch.
    Daemon,
    /// May look and attach only.
    Tool,
}

/// What the client sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub min: u16,
    pub max: u16,
    pub role: Role,
    pub epoch: u64,
}

/// How the shim took the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// A daemon with a higher epoch has been here.
    Fenced,
    /// No protocol version in common.
    Version,
}

/// What the shim answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 if none is in common.
    pub chosen: u16,
    pub max: u16,
    pub verdict: Verdict,
    pub pid: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("greeting: the peer is not a Berth program")]
    Magic,
    #[error("greeting: unknown role {0}")]
    Role(u8),
    #[error("greeting: unknown status {0}")]
    Status(u8),
    #[error("greeting: impossible version range {min} to {max}")]
    Range { min: u16, max: u16 },
}

impl Hello {
    /// The greeting of a daemon of this build.
    #[must_use]
    pub fn daemon(epoch: u64) -> Self {
        Self {
            min: MIN,
            max: MAX,
            role: Role::Daemon,
            epoch,
        }
    }

    /// The greeting of a tool of this build.
    #[must_use]
    pub fn tool() -> Self {
        Self {
            min: MIN,
            max: MAX,
            role: Role::Tool,
            epoch: 0,
        }
    }

    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let role = match self.role {
            Role::Daemon => 1,
            Role::Tool => 2,
        };
        pack(self.min, self.max, role, self.epoch)
    }

    /// The reserved byte is ignored, so that a later release may use it.
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self, HelloError> {
        let (min, max, role, epoch) = unpack(bytes)?;
        let role = match role {
            1 => Role::Daemon,
            2 => Role::Tool,
            other => return Err(HelloError::Role(other)),
        };
        if min == 0 || min > max {
            return Err(HelloError::Range { min, max });
        }
        Ok(Self { min, max, role, epoch })
    }

    /// The shim's side: the answer to this greeting, given the highest epoch seen so far. The caller raises that epoch when the
    /// verdict is `Ok` and the role is `Daemon`.
    #[must_use]
    pub fn answer(&self, seen_epoch: u64, pid: u64) -> Answer {
        let chosen = self.max.min(MAX);
        let (chosen, verdict) = if chosen < self.min || chosen < MIN {
            (0, Verdict::Version)
        } else if self.role == Role::Daemon && self.epoch < seen_epoch {
            (chosen, Verdict::Fenced)
        } else {
            (chosen, Verdict::Ok)
        };
        Answer {
            chosen,
            max: MAX,
            verdict,
            pid,
        }
    }
}

impl Answer {
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let status = match self.verdict {
            Verdict::Ok => 0,
            Verdict::Fenced => 1,
            Verdict::Version => 2,
        };
        pack(self.chosen, self.max, status, self.pid)
    }

    pub fn decode(bytes: &[u8; LEN]) -> Result<Self, HelloError> {
        let (chosen, max, status, pid) = unpack(bytes)?;
        let verdict = match status {
            0 => Verdict::Ok,
            1 => Verdict::Fenced,
            2 => Verdict::Version,
            other => return Err(HelloError::Status(other)),
        };
        Ok(Self {
            chosen,
            max,
            verdict,
            pid,
        })
    }
}

fn pack(a: u16, b: u16, byte: u8, number: u64) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..6].copy_from_slice(MAGIC);
    out[6..8].copy_from_slice(&a.to_be_bytes());
    out[8..10].copy_from_slice(&b.to_be_bytes());
    out[10] = byte;
    out[12..].copy_from_slice(&number.to_be_bytes());
    out
}

fn unpack(bytes: &[u8; LEN]) -> Result<(u16, u16, u8, u64), HelloError> {
    if &bytes[..6] != MAGIC {
        return Err(HelloError::Magic);
    }
    let number = bytes[12..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Ok((
        u16::from_be_bytes([bytes[6], bytes[7]]),
        u16::from_be_bytes([bytes[8], bytes[9]]),
        bytes[10],
        number,
    ))
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    /// If this fails, the change is wrong: shims of earlier releases are running.
    #[test]
    fn golden_bytes() {
        let hello = Hello {
            min: 1,
            max: 2,
            role: Role::Daemon,
            epoch: 0x0102_0304_0506_0708,
        };
        assert_eq!(
            &hello.encode(),
            b"BERTH\0\0\x01\0\x02\x01\0\x01\x02\x03\x04\x05\x06\x07\x08"
        );
        let tool = Hello {
            min: 1,
            max: 1,
            role: Role::Tool,
            epoch: 0,
        };
        assert_eq!(&tool.encode(), b"BERTH\0\0\x01\0\x01\x02\0\0\0\0\0\0\0\0\0");
        let answer = Answer {
            chosen: 1,
            max: 3,
            verdict: Verdict::Ok,
            pid: 4242,
        };
        assert_eq!(&answer.encode(), b"BERTH\0\0\x01\0\x03\0\0\0\0\0\0\0\0\x10\x92");
        let fenced = Answer {
            chosen: 1,
            max: 1,
            verdict: Verdict::Fenced,
            pid: 1,
        };
        assert_eq!(&fenced.encode(), b"BERTH\0\0\x01\0\x01\x01\0\0\0\0\0\0\0\0\x01");
        let version = Answer {
            chosen: 0,
            max: 1,
            verdict: Verdict::Version,
            pid: 1,
        };
        assert_eq!(&version.encode(), b"BERTH\0\0\0\0\x01\x02\0\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn a_lower_epoch_is_fenced_and_a_tool_never_is() {
        assert_eq!(Hello::daemon(4).answer(5, 1).verdict, Verdict::Fenced);
        assert_eq!(Hello::daemon(5).answer(5, 1).verdict, Verdict::Ok);
        assert_eq!(Hello::tool().answer(5, 1).verdict, Verdict::Ok);
    }

    #[test]
    fn versions_meet_at_the_highest_common_one() {
        let newer = Hello {
            min: 1,
            max: 9,
            role: Role::Daemon,
            epoch: 0,
        };
        assert_eq!(newer.answer(0, 1).chosen, MAX);
        let only_newer = Hello {
            min: MAX + 1,
            max: 9,
            role: Role::Daemon,
            epoch: 0,
        };
        assert_eq!(
            only_newer.answer(0, 1),
            Answer {
                chosen: 0,
                max: MAX,
                verdict: Verdict::Version,
                pid: 1
            }
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_cleanly(bytes: [u8; LEN], good_magic: bool) {
            let mut bytes = bytes;
            if good_magic {
                bytes[..6].copy_from_slice(MAGIC);
                bytes[11] = 0;
            }
            if let Ok(hello) = Hello::decode(&bytes) {
                let mut again = bytes;
                again[11] = 0;
                prop_assert_eq!(hello.encode(), again);
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                let mut again = bytes;
                again[11] = 0;
                prop_assert_eq!(answer.encode(), again);
            }
        }
    }
}

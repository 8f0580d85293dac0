//! What the creator and the container's init say to each other, over a socketpair that execve closes.
//!
//! ```text
//! creator                          init
//!    │  Mapped (ids are mapped)     │   only with a user namespace
//!    │ ───────────────────────────▶ │
//!    │  Joined (is in its cgroups)  │
//!    │ ───────────────────────────▶ │
//!    │  Mounts?                     │   only if the creator makes some; they come over a socket of their own
//!    │ ◀─────────────────────────── │  mounts …
//!    │  Hooks?                      │   only with hooks
//!    │ ◀─────────────────────────── │
//!    │  Hooked                      │
//!    │ ───────────────────────────▶ │  pivot
//!    │  Limits? Limited             │   only in a user namespace
//!    │ ◀──────────────────────────▶ │  identity, command found
//!    │  Ready                       │
//!    │ ◀─────────────────────────── │
//! ```
//! Then init listens at the container's `start` socket; who connects there says `Start` and reads the end of file when the
//! execve has closed the connection.
//!
//! A process whose seccomp filter asks a listener says `Listener` when it has installed it, and waits for `Introduced`: to its
//! creator, or to whoever starts it if the filter is the last thing before the execve.
//!
//! At any point init may say `Failed` and end. End of file before `Ready` means that it was killed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Context, OciError};

/// One message: a letter, a length, a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Mapped,
    Joined,
    Mounts,
    Hooks,
    Hooked,
    Ready,
    Start,
    Limits,
    Limited,
    /// The number of the descriptor, in the sender.
    Listener(i32),
    Introduced,
    Failed {
        exit_code: u8,
        text: String,
    },
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(File);

impl Channel {
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((
            Channel(File::from(OwnedFd::from(one))),
            Channel(File::from(OwnedFd::from(other))),
        ))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Channel {
        Channel(File::from(fd))
    }

    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let number;
        let (letter, exit_code, text) = match message {
            Message::Mapped => (b'M', 0, ""),
            Message::Joined => (b'J', 0, ""),
            Message::Mounts => (b'm', 0, ""),
            Message::Limits => (b'l', 0, ""),
            Message::Limited => (b'd', 0, ""),
            Message::Hooks => (b'h', 0, ""),
            Message::Hooked => (b'H', 0, ""),
            Message::Ready => (b'R', 0, ""),
            Message::Start => (b'S', 0, ""),
            Message::Listener(fd) => {
                number = fd.to_string();
                (b'L', 0, number.as_str())
            }
            Message::Introduced => (b'I', 0, ""),
            Message::Failed { exit_code, text } => (b'F', *exit_code, text.as_str()),
        };
        // Bounded, so that one write is never cut by a full socket.
        let text = &text.as_bytes()[..text.len().min(4096)];
        let mut frame = vec![letter, exit_code];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(text);
        if matches!(message, Message::Listener(_)) {
            // The one call that no filter asks a listener about.
            return (&self.0).write_all(&frame);
        }
        // Without SIGPIPE: an init that has ended has a reason to tell, and its creator must live to read it.
        match berth_sys::socket::send(&self.0, &frame)? {
            Some(sent) if sent == frame.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Sends to the init process; if it has ended, the error is what it said at its end.
    pub(crate) fn tell(&mut self, message: &Message) -> Result<(), OciError> {
        let Err(source) = self.send(message) else { return Ok(()) };
        match self.last_words() {
            Some(said) => Err(said),
            None => Err(source).step("talk to", "init process"),
        }
    }

    /// What the init process said at its end, if it has ended by itself.
    pub(crate) fn last_words(&mut self) -> Option<OciError> {
        match self.receive() {
            Ok(Some(Message::Failed { exit_code, text })) => Some(OciError::Init {
                message: text,
                exit_code,
            }),
            _ => None,
        }
    }

    /// The next message; `None` at the end of file.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Message>> {
        let mut head = [0u8; 4];
        match self.0.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let mut text = vec![0u8; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        self.0.read_exact(&mut text)?;
        Ok(Some(match head[0] {
            b'M' => Message::Mapped,
            b'J' => Message::Joined,
            b'm' => Message::Mounts,
            b'l' => Message::Limits,
            b'd' => Message::Limited,
            b'h' => Message::Hooks,
            b'H' => Message::Hooked,
            b'R' => Message::Ready,
            b'S' => Message::Start,
            b'L' => Message::Listener(String::from_utf8_lossy(&text).parse().unwrap_or(-1)),
            b'I' => Message::Introduced,
            b'F' => Message::Failed {
                exit_code: head[1],
                text: String::from_utf8_lossy(&text).into_owned(),
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }))
    }

    /// As [`Channel::receive`]; a seccomp listener that is announced meanwhile is introduced.
    pub(crate) fn receive_introducing(
        &mut self,
        introduce: &dyn Fn(i32) -> Result<(), OciError>,
    ) -> Result<Option<Message>, OciError> {
        loop {
            match self.receive().step("talk to", "process")? {
                Some(Message::Listener(number)) => {
                    introduce(number)?;
                    self.tell(&Message::Introduced)?;
                }
                Some(Message::Failed { exit_code, text }) => {
                    return Err(OciError::Init {
                        message: text,
                        exit_code,
                    });
                }
                other => return Ok(other),
            }
        }
    }

    /// Waits for exactly this message.
    pub(crate) fn expect(&mut self, wanted: &Message) -> Result<(), OciError> {
        match self.receive() {
            Ok(Some(message)) if message == *wanted => Ok(()),
            Ok(Some(Message::Failed { exit_code, text })) => Err(OciError::Init {
                message: text,
                exit_code,
            }),
            _ => Err(OciError::InitLost),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_reason_of_an_early_end_is_read_where_nobody_listens() {
        let (mut creator, mut init) = Channel::pair().expect("a socketpair");
        let failed = Message::Failed {
            exit_code: 127,
            text: "no such command".into(),
        };
        init.send(&failed).expect("sent");
        drop(init);
        // SIGPIPE at its default, as in a creator, would end this test's process.
        let told = creator.tell(&Message::Joined).expect_err("nobody listens");
        assert_eq!((told.exit_code(), told.to_string().as_str()), (127, "no such command"));
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (mut one, mut other) = Channel::pair().expect("a socketpair");
        let failed = Message::Failed {
            exit_code: 127,
            text: "no such command".into(),
        };
        one.send(&Message::Ready).expect("sent");
        one.send(&failed).expect("sent");
        drop(one);
        assert_eq!(other.receive().expect("read"), Some(Message::Ready));
        assert!(matches!(
            other.expect(&Message::Ready),
            Err(OciError::Init { exit_code: 127, .. })
        ));
        assert_eq!(other.receive().expect("read"), None);
    }
}

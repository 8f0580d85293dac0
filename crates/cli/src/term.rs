//! The terminal: size, raw mode, detach keys, and writes that survive a non-blocking descriptor.
//! Raw mode has one saved state for the process, so that a panic, a signal and a normal end restore the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn is_raw() -> bool {
    saved().is_some()
}

/// Whether our input is /dev/null: no input, not one that ends.
pub fn stdin_is_null() -> bool {
    rustix::fs::fstat(rustix::stdio::stdin()).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}

pub fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

/// Columns and rows of the terminal we talk to.
pub fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())
        .map(|size| (size.ws_col, size.ws_row))
        .filter(|&(width, height)| width > 0 && height > 0)
}

/// Raw mode of stdin while it lives.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // First the record, then the change: a panic in between restores what is there anyway.
        *saved() = Some(before);
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, &raw) {
            *saved() = None;
            return Err(error.into());
        }
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = saved().take() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

/// Release builds abort on a panic, so that no `Drop` runs: the hook does it.
pub fn restore_on_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        hook(info);
    }));
}

/// Writes all of it; a descriptor that somebody set non-blocking is waited for.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(fd, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads what there is; 0 = end of file.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(fd, PollFlags::IN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns when nobody can read our stdout any more: a command that writes seldom would not learn it by writing.
pub async fn stdout_closed() {
    let (sender, closed) = tokio::sync::oneshot::channel();
    // Never joined: it ends with the program. Errors are always polled for; a file or a terminal that stays has none.
    std::thread::spawn(move || {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(stdout(), PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => {
                    let _ = sender.send(());
                    return;
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    if closed.await.is_err() {
        std::future::pending().await
    }
}

fn ready(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Finds the detach keys in typed input, which may come in pieces. What turns out not to be them is passed on.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// "ctrl-p,ctrl-q", "ctrl-],a"; empty = none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|key| !key.is_empty()) {
            let byte = match key.as_bytes() {
                [byte] if byte.is_ascii_graphic() => *byte,
                [b'c', b't', b'r', b'l', b'-', letter] if matches!(letter, b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'['..=b'_') => {
                    letter.to_ascii_uppercase() & 0x1f
                }
                _ => {
                    return Err(format!(
                        "unknown key {key:?}: expected single characters and ctrl-X, joined by commas"
                    ));
                }
            };
            keys.push(byte);
        }
        Ok(Self { keys, matched: 0 })
    }

    /// What to pass on, and whether the keys were complete.
    pub fn scan(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            passed.extend_from_slice(input);
            return (passed, false);
        }
        for &byte in input {
            // What is held equals `keys[..matched]`: on a mismatch fall back to the longest beginning of the keys that ends here.
            while self.matched > 0 && self.keys[self.matched] != byte {
                let shorter = (0..self.matched)
                    .rev()
                    .find(|&length| self.keys[self.matched - length..self.matched] == self.keys[..length])
                    .unwrap_or(0);
                passed.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if self.keys[self.matched] == byte {
                self.matched += 1;
            } else {
                passed.push(byte);
            }
            if self.matched == self.keys.len() {
                self.matched = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn scan(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detach = DetachKeys::parse(keys).expect("keys");
        let mut passed = Vec::new();
        for piece in pieces {
            let (bytes, found) = detach.scan(piece);
            passed.extend(bytes);
            if found {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn detach_keys_are_found_in_pieces() {
        assert_eq!(scan("ctrl-p,ctrl-q", &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(scan("ctrl-p,ctrl-q", &[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(
            scan("ctrl-p,ctrl-q", &[b"\x10", b"x\x11"]),
            (b"\x10x\x11".to_vec(), false)
        );
        assert_eq!(scan("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(scan("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(scan("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn detach_keys_are_read() {
        assert_eq!(
            DetachKeys::parse("ctrl-],x,ctrl-@").map(|keys| keys.keys),
            Ok(vec![0x1d, b'x', 0])
        );
        for text in ["ctrl-", "ctrl-1", "xy", "ctrl-p ctrl-q"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}

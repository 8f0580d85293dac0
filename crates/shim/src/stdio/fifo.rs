//! A caller's FIFOs, opened without ever waiting for the other side, and in a creator: the path may lead to a disk that hangs.
//!
//! The container gets one end and the loop holds the other: so opening needs no peer, and a peer that goes away breaks nothing.
//! What is held for output is a reader, not a writer: real readers see end of file as soon as the container's end is closed
//! (one that comes after the end: once it has read what is there, see [`super::unread`]).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::fifo::{End, open};
use berth_sys::file::{self, set_nonblocking};

use super::bad;
use crate::error::Error;

/// Which there are; "" = none.
#[derive(Debug, Clone, Default)]
pub struct Fifos {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    /// Whose the container's ends become.
    pub owner: (u32, u32),
}

/// What a creator has opened.
#[derive(Debug)]
pub struct Opened {
    /// Standard input, output and error of a process without a terminal.
    pub given: Option<[OwnedFd; 3]>,
    /// For the loop, in the order that [`Awaited::take`] knows.
    pub kept: Vec<OwnedFd>,
}

impl Fifos {
    /// The process's own, and what keeps them open.
    pub fn open_plain(&self) -> Result<Opened, Error> {
        let mut kept = Vec::new();
        let mut end = |path: &str, ends: fn(&str) -> Result<(OwnedFd, OwnedFd), Error>| {
            if path.is_empty() {
                return file::dev_null().map_err(Error::io("stdio", "/dev/null"));
            }
            let (given, hold) = ends(path)?;
            give(&given, self.owner)?;
            kept.push(hold);
            blocking(given)
        };
        let given = [
            end(&self.stdin, for_input)?,
            end(&self.stdout, for_output)?,
            end(&self.stderr, for_output)?,
        ];
        Ok(Opened {
            given: Some(given),
            kept,
        })
    }

    /// Those that a terminal's bytes are relayed to and from.
    pub fn open_terminal(&self) -> Result<Opened, Error> {
        let mut kept = Vec::new();
        for (path, ends) in [(&self.stdin, for_input as fn(&str) -> _), (&self.stdout, for_output)] {
            if !path.is_empty() {
                let (end, hold) = ends(path)?;
                kept.extend([end, hold]);
            }
        }
        Ok(Opened { given: None, kept })
    }
}

/// The loop's ends of FIFOs, until they have come.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The loop's ends.
#[derive(Debug)]
pub struct Kept {
    /// A terminal's: reader and hold, writer and hold.
    pub feed: Option<(OwnedFd, OwnedFd)>,
    pub sink: Option<(OwnedFd, OwnedFd)>,
    pub stdin_hold: Option<OwnedFd>,
    pub output_holds: Vec<OwnedFd>,
}

impl Awaited {
    /// None if some are missing: there was no descriptor left for them.
    pub fn take(self, fds: Vec<OwnedFd>) -> Option<Kept> {
        let mut fds = fds.into_iter();
        let mut kept = Kept {
            feed: None,
            sink: None,
            stdin_hold: None,
            output_holds: Vec::new(),
        };
        if self.terminal {
            let mut two = || Some((fds.next()?, fds.next()?));
            if self.stdin {
                kept.feed = Some(two()?);
            }
            if self.stdout {
                kept.sink = Some(two()?);
            }
            return Some(kept);
        }
        if self.stdin {
            kept.stdin_hold = Some(fds.next()?);
        }
        for _ in 0..usize::from(self.stdout) + usize::from(self.stderr) {
            kept.output_holds.push(fds.next()?);
        }
        Some(kept)
    }
}

fn pair(path: &str, first: End, second: End) -> Result<(OwnedFd, OwnedFd), Error> {
    if !path.starts_with('/') {
        return Err(bad(format!("{path} is not an absolute path")));
    }
    let both = || Ok((open(Path::new(path), first)?, open(Path::new(path), second)?));
    both().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::InvalidInput => bad(format!("{path}: {source}")),
        _ => Error::Io {
            operation: "stdio",
            path: path.into(),
            source,
        },
    })
}

/// The reader, non-blocking, and the writer that keeps it from end of file.
fn for_input(path: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    pair(path, End::Read, End::Write)
}

/// The writer, non-blocking, and the reader that keeps it from breaking.
fn for_output(path: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let (hold, writer) = pair(path, End::Read, End::Write)?;
    Ok((writer, hold))
}

/// To the process that gets it, which may open it again by `/dev/stdout`. Root owns it as it is.
fn give(fd: &OwnedFd, (uid, gid): (u32, u32)) -> Result<(), Error> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    std::os::unix::fs::fchown(fd, Some(uid), Some(gid)).map_err(Error::io("stdio", "FIFO"))
}

/// For a container: its end must wait like any pipe.
fn blocking(fd: OwnedFd) -> Result<OwnedFd, Error> {
    set_nonblocking(&fd, false).map_err(Error::io("stdio", "FIFO"))?;
    Ok(fd)
}

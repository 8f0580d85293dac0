//! A caller's FIFO, opened without ever waiting for the other side.
//!
//! The container gets one end and the loop holds the other: so opening needs no peer, and a peer that goes away breaks nothing.
//! What is held for output is a reader, not a writer: real readers see end of file as soon as the container's end is closed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::fifo::{End, open};
use berth_sys::file::set_nonblocking;

use super::bad;
use crate::error::Error;

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
pub fn for_input(path: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    pair(path, End::Read, End::Write)
}

/// The writer, non-blocking, and the reader that keeps it from breaking.
pub fn for_output(path: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let (hold, writer) = pair(path, End::Read, End::Write)?;
    Ok((writer, hold))
}

/// To the process that gets it, which may open it again by `/dev/stdout`. Root owns it as it is.
pub fn give(fd: &OwnedFd, (uid, gid): (u32, u32)) -> Result<(), Error> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    std::os::unix::fs::fchown(fd, Some(uid), Some(gid)).map_err(Error::io("stdio", "FIFO"))
}

/// For a container: its end must wait like any pipe.
pub fn blocking(fd: OwnedFd) -> Result<OwnedFd, Error> {
    set_nonblocking(&fd, false).map_err(Error::io("stdio", "FIFO"))?;
    Ok(fd)
}

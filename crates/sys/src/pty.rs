//! Terminals: making a pair, their size, raw mode.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Master and slave. The slave is opened from the master (TIOCGPTPEER), not by a path that a container could have put elsewhere.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((master, slave))
}

/// Width and height in characters; the foreground group gets SIGWINCH if they changed.
pub fn set_size(terminal: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    Ok(tcsetwinsize(
        terminal,
        Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?)
}

/// Width and height in characters.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}

#[must_use]
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// What [`restore`] puts back.
#[derive(Clone, Debug)]
pub struct Mode(Termios);

/// Bytes pass as they are: no echo, no lines, no signals.
pub fn make_raw(terminal: impl AsFd) -> io::Result<Mode> {
    let before = tcgetattr(&terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&terminal, OptionalActions::Flush, &raw)?;
    Ok(Mode(before))
}

pub fn restore(terminal: impl AsFd, mode: &Mode) -> io::Result<()> {
    Ok(tcsetattr(terminal, OptionalActions::Now, &mode.0)?)
}

/// Gives the terminal to the caller's process group. From outside the group that has it SIGTTOU must be blocked.
pub fn set_foreground(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp())?)
}

/// The controlling terminal of this session's leader (no session must have it yet).
pub fn make_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

//! Descriptors that a program was started with.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Takes an inherited descriptor by its number: it moves to another one, close-on-exec. Once a number, at the start of a program,
/// before anything else opens. EBADF if there is none.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed for one fcntl only, which fails if the number is not open.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let own = rustix::io::fcntl_dupfd_cloexec(inherited, 3)?;
    // SAFETY: nobody in this program owns the inherited number (see above), so closing it takes it from nobody.
    unsafe { libc::close(number) };
    Ok(own)
}

/// Makes this the standard input, output and error.
pub fn replace_stdio(with: impl AsFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(&with)?;
    rustix::stdio::dup2_stdout(&with)?;
    rustix::stdio::dup2_stderr(&with)?;
    Ok(())
}

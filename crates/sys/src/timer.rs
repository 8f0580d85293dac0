//! A timer as a descriptor (monotonic clock), readable when it has run out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?))
    }

    /// Runs out once, this long from now.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would stop it instead.
        self.arm(after.max(Duration::from_nanos(1)), Duration::ZERO)
    }

    /// Runs out again and again.
    pub fn set_interval(&self, every: Duration) -> io::Result<()> {
        let every = every.max(Duration::from_nanos(1));
        self.arm(every, every)
    }

    pub fn stop(&self) -> io::Result<()> {
        self.arm(Duration::ZERO, Duration::ZERO)
    }

    /// How often it has run out since the last read; 0 = not yet.
    pub fn read(&self) -> io::Result<u64> {
        super::eventfd::read_counter(self.0.as_fd())
    }

    fn arm(&self, first: Duration, interval: Duration) -> io::Result<()> {
        let spec =
            |duration: Duration| Timespec::try_from(duration).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let new = Itimerspec {
            it_interval: spec(interval)?,
            it_value: spec(first)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &new)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

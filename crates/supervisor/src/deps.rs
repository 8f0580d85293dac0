//! What the supervisor gets from outside as values, so that a test can put a fake in its place: the clock, the shims, and disks that
//! may hang. The store is a value too (`berth_record::Layout`, a pair of folders), and so is the event bus.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use berth_core::ContainerKey;
use berth_record::Folder;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::sync::Notify;

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One connection to a shim.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Timers are tokio's, which a test can pause; this is for what is written down.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> i64;
    /// Names this daemon among those of one boot: each has a higher one than those before it.
    fn generation(&self) -> u64;
}

/// The disks of bundles and logs, as far as a test wants to see them hang.
pub trait Disks: Send + Sync + 'static {
    /// Called on a blocking thread before anything there is touched.
    fn reach(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own: whatever is to hang hangs in the call that follows.
pub struct SystemDisks;

impl Disks for SystemDisks {
    fn reach(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Makes shims and finds them again.
pub trait Shims: Send + Sync + 'static {
    /// A new shim process on this folder, and the first connection to it.
    fn fork<'a>(&'a self, folder: &'a Arc<Folder>, key: &'a ContainerKey) -> BoxFuture<'a, io::Result<Forked>>;
    /// A connection to the shim that serves this folder.
    fn connect<'a>(&'a self, folder: &'a Arc<Folder>) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
    /// A process that the records of this folder name, and that lives: its shim or its init.
    fn found(&self, folder: &Folder, pid: u32, pidfd: OwnedFd) -> io::Result<ShimProcess> {
        let _ = folder;
        ShimProcess::new(pid, pidfd)
    }
}

pub struct Forked {
    pub stream: Box<dyn Stream>,
    pub process: Arc<ShimProcess>,
}

/// A shim's process, by pidfd.
pub struct ShimProcess {
    pid: u32,
    life: Life,
}

enum Life {
    Pidfd(AsyncFd<OwnedFd>),
    /// Of tests: its end can't be seen.
    Unseen,
    /// Of the simulation.
    Simulated {
        end: Arc<End>,
        kill: Box<dyn Fn() + Send + Sync>,
    },
}

/// The end of a simulated process. Who waits for it is woken in the order of waiting, which a `watch` leaves to chance.
#[derive(Default)]
pub struct End {
    come: AtomicBool,
    news: Notify,
}

impl End {
    /// False if it had come already.
    pub fn come(&self) -> bool {
        let first = !self.come.swap(true, Ordering::Relaxed);
        self.news.notify_waiters();
        first
    }

    pub fn has_come(&self) -> bool {
        self.come.load(Ordering::Relaxed)
    }

    async fn wait(&self) {
        let news = self.news.notified();
        if !self.has_come() {
            news.await;
        }
    }
}

impl ShimProcess {
    pub fn new(pid: u32, pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pid,
            life: Life::Pidfd(watched(pidfd, Interest::READABLE)?),
        })
    }

    /// One without a process, whose end shows only on its connections.
    pub fn fake(pid: u32) -> Self {
        Self {
            pid,
            life: Life::Unseen,
        }
    }

    /// One that a simulation ends, or is asked to.
    pub fn simulated(pid: u32, end: Arc<End>, kill: impl Fn() + Send + Sync + 'static) -> Self {
        let kill = Box::new(kill);
        Self {
            pid,
            life: Life::Simulated { end, kill },
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        match &self.life {
            // An error of epoll leaves the connection's end as the sign.
            Life::Pidfd(fd) if fd.readable().await.is_ok() => {}
            Life::Simulated { end, .. } => end.wait().await,
            _ => std::future::pending().await,
        }
    }

    /// Its end can't be seen here.
    pub(crate) fn is_fake(&self) -> bool {
        matches!(self.life, Life::Unseen)
    }

    pub fn has_ended(&self) -> bool {
        match &self.life {
            Life::Pidfd(fd) => berth_sys::process::has_ended(fd.get_ref()).unwrap_or(false),
            Life::Unseen => false,
            Life::Simulated { end, .. } => end.has_come(),
        }
    }

    /// SIGKILL. What it supervises lives on.
    pub fn kill(&self) {
        match &self.life {
            Life::Pidfd(fd) => {
                // Gone already: as wished.
                let _ = berth_sys::process::pidfd_send_signal(fd.get_ref(), berth_sys::signal::SIGKILL);
            }
            Life::Unseen => {}
            Life::Simulated { kill, .. } => kill(),
        }
    }
}

impl fmt::Debug for ShimProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shim process {}", self.pid)
    }
}

/// A descriptor in tokio's epoll.
#[expect(
    deprecated,
    reason = "its replacement is unsafe; an OwnedFd is one descriptor for life, which is all that is asked for"
)]
pub(crate) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// The machine's own clocks.
pub struct SystemClock {
    generation: u64,
}

impl SystemClock {
    pub fn new() -> Self {
        // Time since boot, as shims don't outlive it and the wall clock may be set back.
        Self {
            generation: berth_sys::time::boottime().unsigned_abs(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        berth_sys::time::realtime()
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

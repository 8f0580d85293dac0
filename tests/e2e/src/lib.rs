//! The harness of the end-to-end tests: real binaries, real runtimes, a real client, nothing faked.
//!
//! * [`Daemon`] is a `berthd` in folders, at an address and below a cgroup parent of its own, so that any number run side by
//!   side. Its `Drop` deletes what the test left running, ends the daemon and then asserts that nothing is left at all.
//! * [`Bundle`] is an OCI bundle on a shared read-only busybox root, with `/out` as its own writable folder.
//! * [`until()`] and [`eventually`] wait for facts. There is no sleep in a test.
//! * [`on_all!`] makes a `runc`, a `crun` and an `embedded` test of one function.
//! * [`on_both!`] makes a `runc` and a `crun` test of one function.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod calls;
pub mod client;
pub mod daemon;
pub mod fifo;
pub mod leftovers;
pub mod proc;
pub mod until;

pub use berth_wire::v1;
pub use bundle::Bundle;
pub use client::{Client, assert_fails, detail};
pub use daemon::{Daemon, Options};
pub use until::{LIMIT, eventually, until, within};

/// The OCI runtimes that every test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Runc,
    Crun,
    /// The one that is part of the shim.
    Embedded,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
            Runtime::Embedded => "embedded",
        }
    }

    /// Where the real binary is. Empty for the embedded one, which has none.
    pub fn binary(self) -> std::path::PathBuf {
        if self == Runtime::Embedded {
            return std::path::PathBuf::new();
        }
        let places = [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ];
        places
            .iter()
            .map(|p| std::path::Path::new(p).join(self.name()))
            .find(|p| p.exists())
            .unwrap_or_else(|| panic!("{} is not installed: apt-get install -y runc crun", self.name()))
    }
}

/// Makes the tests `NAME::runc` and `NAME::crun` of each `async fn NAME(rt: Runtime)`.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn runc() {
                super::$name($crate::Runtime::Runc).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn crun() {
                super::$name($crate::Runtime::Crun).await
            }
        }
    )*};
}

/// As [`on_both!`], and `NAME::embedded`: for all that does not put a script in a runtime's place.
#[macro_export]
macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        $crate::on_both!($($name),*);
        mod embedded {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::Runtime::Embedded).await
            }
        )*}
    };
}

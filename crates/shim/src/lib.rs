//! The shim: parent of one container. Its stdio, its exit, its OOM kills; one thread over epoll, no async, no logging.
//!
//! Invariants: the loop never makes a call that a disk or a peer can hold (creators and writers are children that do); it knows
//! no daemon: whoever connects and greets with the highest epoch is in charge, and when nobody does it just goes on.
#![forbid(unsafe_code)]

mod attach;
mod calls;
mod cgroup;
mod child;
mod conn;
mod container;
mod creator;
mod delete;
mod error;
mod exits;
mod foreign;
pub mod init;
mod lifecycle;
mod oom;
mod outbox;
mod records;
pub mod serve;
mod shim;
pub mod stage;
mod stdio;
mod task;
pub mod template;
mod watch;
pub mod writer;

pub use error::Error;

//! Drives `berth_core` with tokio: shims, records, timers, events, recovery, stats.
//!
//! Invariants: one task owns one container, and facts (an exit) reach it before wishes (a request). Nothing waits on what it
//! supervises without a deadline. No lock is held across an await. What is legal in which state is decided in
//! `berth_core::state` and nowhere else.
#![forbid(unsafe_code)]

mod board;
mod bundle;
mod calls;
mod config;
mod container;
mod deps;
mod env;
mod error;
pub mod events;
mod gate;
mod kept;
mod lane;
pub mod logs;
mod metrics;
mod open;
mod processes;
mod reply;
mod resources;
mod run;
mod runtimes;
mod shim;
mod stage;
pub mod stats;
mod store;
mod supervisor;
mod turns;
mod types;

pub use config::{Config, EventsConfig, Runtime, RuntimeConfig, ShimConfig, StartConfig};
pub use deps::{
    BoxFuture, Clock, Disks, End, Forked, ShimProcess, Shims, Stream as ShimStream, SystemClock, SystemDisks,
};
pub use error::Error;
pub use kept::Keep;
pub use lane::{BLOCKING_THREADS, block_inline};
pub use metrics::{BUCKETS_US, Histogram, Metrics};
pub use open::Deps;
pub use runtimes::KNOWN as KNOWN_RUNTIMES;
pub use shim::Launcher;
pub use stage::{FAIL_POINTS, cells};
pub use supervisor::Supervisor;
pub use types::*;

//! Drives `berth_core` with tokio: shims, records, timers, events, recovery, stats.
//!
//! Invariants: one task owns one container, and facts (an exit) reach it before wishes (a request). Nothing waits on what it
//! supervises without a deadline. No lock is held across an await. What is legal in which state is decided in
//! `berth_core::state` and nowhere else.
#![forbid(unsafe_code)]

mod config;
mod error;
pub mod events;
pub mod logs;
mod metrics;
pub mod stats;
mod supervisor;
mod types;

pub use config::{Config, EventsConfig, Runtime, RuntimeConfig, ShimConfig, StartConfig};
pub use error::Error;
pub use metrics::{BUCKETS_US, Histogram, Metrics};
pub use supervisor::Supervisor;
pub use types::*;

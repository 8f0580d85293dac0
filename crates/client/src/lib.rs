//! A client of berthd: every call typed, and every call and stream outlives a restart of the daemon.
//!
//! ```no_run
#![doc = include_str!("../../../clients/rust/run.rs")]
//! ```
//!
//! The tests run this very program. What a [`Client`] does beyond the generated stub:
//!
//! * **Retries.** While the connection is broken a call is made again, for 30 s ([`Client::with_patience`]). A call that changes something
//!   gets a request id first, so that it does nothing twice. An answer of berthd's, a refusal too, is final.
//! * **Cursors.** [`Client::events`] and [`Client::logs`] go on behind the last event or entry that was given out: none is missed, none comes twice.
//!   What can't be had any more (rotated away, or the reader was too slow) is said, not skipped.
//! * **Namespaces.** A request without one gets the client's.
//! * **Errors** hold the daemon's [`v1::ErrorDetail`].
//!
//! [`Client::stub`] is the generated client, for the rest (Attach).
#![forbid(unsafe_code)]

mod calls;
mod client;
mod error;
mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod logs;

pub use berth_wire::v1;
pub use client::{Client, Patience, Stub, random_id};
pub use error::{Error, Result, detail};
pub use events::{Events, Happened};
pub use logs::Logs;

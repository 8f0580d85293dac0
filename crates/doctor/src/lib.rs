//! Holds what a daemon left on this machine against itself: records, processes, cgroups, mounts, folders. It names what is wrong in
//! words and mends what can be mended safely.
//!
//! Invariants: looking changes nothing; it works without a daemon and beside one; what a caller made (its bundle, its mounts, the
//! output of its containers) is never touched; while a daemon runs, only what no daemon can have in hand is mended.
#![forbid(unsafe_code)]

mod error;
mod finding;
mod look;
mod mend;
mod shims;
#[cfg(test)]
mod test;

pub use error::Error;
pub use finding::Finding;
pub use look::examine;
pub use mend::{Mended, mend};

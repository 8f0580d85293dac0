//! Blobs by their digest, and ingests by a namespace's ref until they are blobs. The bytes only: who knows which blob is `berth-meta`'s.
//!
//! ```text
//! blobs/sha256/HEX                  0600, whole and synced, or not there
//! ingests/HASH/about  data          HASH of namespace and ref; `about` is JSON
//! ```
//!
//! Invariants: a blob's bytes have its digest. An ingest has one writer at a time; what it has written is found again by the next, also
//! after a crash. What is published is on the disk first.
//!
//! Every call may wait for the disk: async callers hand them to a thread.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod ingest;
mod store;

pub use digest::Digest;
pub use error::Error;
pub use ingest::{Ingest, Writer};
pub use store::Store;

#[cfg(test)]
mod test;

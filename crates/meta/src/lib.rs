//! Metadata that outlives a reboot: containers, namespaces, leases, images, blobs and their labels. Not whether anything runs.
//!
//! One thread owns the database. Callers hand it closures over `Tables`; what waits is put into one transaction, each closure in a
//! savepoint of its own, and answered after the commit. So a SIGKILL loses nothing that was answered; a second thread syncs the log
//! within a second, so a power cut loses no more than that.
//!
//! Invariants: an `Any` comes back to the byte. A closure that fails leaves nothing behind and disturbs no other. A database that
//! can't be used is set aside, never overwritten.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod open;
mod tables;

pub use engine::Meta;
pub use error::{Error, What};
pub use open::{Opened, SetAside, open};
pub use tables::blobs::Blob;
pub use tables::containers::{Container, ContainerChange};
pub use tables::gc::{Collected, Sweep};
pub use tables::images::{Descriptor, Image, ImageChange};
pub use tables::labels::{LabelChange, Labels, MAX_LABEL};
pub use tables::leases::{Lease, Resource};
pub use tables::{Any, Tables};

#[cfg(test)]
mod test;

//! berth-oci side by side with runc and crun: what the process of a container sees must be what it sees under runc.
//!
//! * [`case`] holds the configs: `data/*.json` has what each changes of a common base; [`schema`] sees to it that every property
//!   of the runtime specification has one.
//! * [`mod@bench`] makes a container of a config with one runtime and gathers [`facts`] about it: what the probe inside says, the
//!   cgroups, the state, the hooks.
//! * [`compare`] holds the facts of two runtimes against each other. A difference is in `data/differences.json`, with both values
//!   and why it is there, or it fails the suite. [`page`] writes `docs/conformance.md` from that table.
//!
//! Beside it [`attack`]: the public attacks on runtimes, in the shape that they had.
#![forbid(unsafe_code)]

pub mod attack;
pub mod bench;
pub mod case;
pub mod compare;
pub mod facts;
pub mod page;
pub mod schema;

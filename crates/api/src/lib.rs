//! gRPC: converts requests, asks the supervisor, converts its answers back. Nothing is decided here.
//!
//! Invariants: a malformed request never reaches the supervisor, and its refusal names the field, the value and what is
//! allowed. Every failure becomes a status in one place (`status`), with its `ErrorDetail`. A request that is cut, oversized or
//! given up costs that request only, and no number of streams or resets ends a connection.
#![forbid(unsafe_code)]

mod authority;
mod budget;
mod containerd;
mod convert;
mod page;
mod probe;
mod publish;
mod rehearse;
mod serve;
mod service;
mod status;
mod stream;

pub use containerd::VERSION as CONTAINERD_VERSION;
pub use probe::round_trip;
pub use publish::publish;
pub use rehearse::{rehearse_filters, rehearse_request};
pub use serve::Api;

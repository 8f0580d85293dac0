//! The event stream: what every service publishes and who listens.

use berth_core::Namespace;
use berth_wire::containerd::services::events::v1::events_server as server;
use prost::{Message, Name};

use super::Context;

/// Where services publish: after what they tell of is committed.
#[derive(Default)]
pub struct Bus {}

#[allow(dead_code, reason = "not built yet")]
impl Bus {
    /// `topic` such as `/containers/create`; the payload's own name becomes its type URL.
    pub fn publish(&self, _namespace: &Namespace, _topic: &str, _event: &(impl Message + Name)) {}
}

#[allow(dead_code, reason = "not built yet")]
pub struct Events(pub Context);

#[tonic::async_trait]
impl server::Events for Events {}

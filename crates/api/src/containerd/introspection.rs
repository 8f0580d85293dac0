//! What this daemon can do, as clients ask for it.

use berth_wire::containerd::services::introspection::v1::introspection_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Introspection(pub Context);

#[tonic::async_trait]
impl server::Introspection for Introspection {}

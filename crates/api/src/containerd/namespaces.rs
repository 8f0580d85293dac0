//! Namespaces and their labels.

use berth_wire::containerd::services::namespaces::v1::namespaces_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Namespaces(pub Context);

#[tonic::async_trait]
impl server::Namespaces for Namespaces {}

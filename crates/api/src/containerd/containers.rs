//! Containers as records: what to run, not whether it runs.

use berth_wire::containerd::services::containers::v1::containers_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Containers(pub Context);

#[tonic::async_trait]
impl server::Containers for Containers {}

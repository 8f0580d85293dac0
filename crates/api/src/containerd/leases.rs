//! Leases keep what they hold from being collected.

use berth_wire::containerd::services::leases::v1::leases_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Leases(pub Context);

#[tonic::async_trait]
impl server::Leases for Leases {}

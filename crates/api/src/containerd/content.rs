//! Blobs by their digest, and ingests by a name until they are blobs.

use berth_wire::containerd::services::content::v1::content_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Content(pub Context);

#[tonic::async_trait]
impl server::Content for Content {}

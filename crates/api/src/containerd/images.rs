//! Names for descriptors of images.

use berth_wire::containerd::services::images::v1::images_server as server;

use super::Context;

#[allow(dead_code, reason = "not built yet")]
pub struct Images(pub Context);

#[tonic::async_trait]
impl server::Images for Images {}

//! Which containerd a client should think it speaks to.

use berth_wire::containerd::services::version::v1::{VersionResponse, version_server};
use tonic::{Request, Response, Status};

/// Clients read it as a semantic version and turn features on by it: from 2.0.0 on they pull through Transfer, which is not
/// here yet. What follows the plus changes no order.
pub const VERSION: &str = concat!("1.7.27+berth.", env!("CARGO_PKG_VERSION"));

pub struct Version;

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: VERSION.into(),
            revision: String::new(),
        }))
    }
}

//! Leases keep what they hold from being collected. Nothing is collected yet, so a lease only has an id.

use std::sync::atomic::{AtomicU64, Ordering};

use berth_wire::containerd::services::leases::v1::leases_server as server;
use berth_wire::containerd::services::leases::v1::*;
use tonic::{Request, Response, Status};

use super::{Context, header, time};

#[allow(dead_code, reason = "nothing is kept yet")]
pub struct Leases(pub Context);

#[tonic::async_trait]
impl server::Leases for Leases {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        header::namespace(request.metadata())?;
        let CreateRequest { mut id, labels } = request.into_inner();
        if id.is_empty() {
            id = format!("lease-{}", LAST.fetch_add(1, Ordering::Relaxed));
        }
        Ok(Response::new(CreateResponse {
            lease: Some(Lease {
                id,
                created_at: Some(time::now()),
                labels,
            }),
        }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        header::namespace(request.metadata())?;
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        header::namespace(request.metadata())?;
        Ok(Response::new(ListResponse::default()))
    }
}

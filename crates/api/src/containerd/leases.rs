//! Leases keep what they hold from being collected.

use std::borrow::Cow;

use berth_core::Namespace;
use berth_meta as meta;
use berth_wire::containerd::services::leases::v1::leases_server as server;
use berth_wire::containerd::services::leases::v1::*;
use tonic::{Request, Response, Status};

use super::filter::Filter;
use super::store::{self, invalid};
use super::{Context, header, time};

pub struct Leases(pub Context);

/// Bytes of a lease's id, and of a resource's.
const MAX_ID: usize = 1024;

fn id(id: &str) -> Result<String, Status> {
    match id.len() {
        0 => Err(invalid("a lease id is needed")),
        1..=MAX_ID => Ok(id.to_owned()),
        long => Err(invalid(format!("a lease id of {long} bytes, {MAX_ID} are allowed"))),
    }
}

fn out(lease: meta::Lease) -> Lease {
    Lease {
        id: lease.id,
        created_at: Some(time::stamp(lease.created_at)),
        labels: lease.labels,
    }
}

/// What a lease can hold.
fn resource(resource: Option<Resource>) -> Result<meta::Resource, Status> {
    let Resource { id, r#type: kind } = resource.ok_or_else(|| invalid("a resource is needed"))?;
    if id.is_empty() || id.len() > MAX_ID {
        return Err(invalid(format!(
            "a resource id of {} bytes, 1 to {MAX_ID} are allowed",
            id.len()
        )));
    }
    match kind.split_once('/') {
        None if kind == "content" => berth_content::Digest::parse(&id).map(drop).map_err(invalid)?,
        None if matches!(kind.as_str(), "ingests" | "images") => {}
        Some(("snapshots", name)) if !name.is_empty() => {}
        _ => {
            return Err(Status::unimplemented(format!(
                "resource type {kind:?}: not implemented"
            )));
        }
    }
    Ok(meta::Resource { kind, id })
}

impl Leases {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&meta::Tables<'_>) -> Result<T, meta::Error> + Send + 'static,
    ) -> Result<T, Status> {
        self.0.meta.call(work).await.map_err(store::status)
    }
}

#[tonic::async_trait]
impl server::Leases for Leases {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let CreateRequest { id: wanted, labels } = request.into_inner();
        let mut lease = meta::Lease {
            id: if wanted.is_empty() { wanted } else { id(&wanted)? },
            created_at: store::now(),
            labels: labels.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        };
        let lease = self.call(move |tables| {
            if lease.id.is_empty() {
                lease.id = tables.random()?;
            }
            tables.create_lease(&namespace, &lease)?;
            Ok(lease)
        });
        Ok(Response::new(CreateResponse {
            lease: Some(out(lease.await?)),
        }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let namespace: Namespace = header::namespace(request.metadata())?;
        let DeleteRequest { id: lease, sync } = request.into_inner();
        let lease = id(&lease)?;
        let held = self.call(move |tables| tables.delete_lease(&namespace, &lease)).await?;
        // One that held nothing leaves no garbage: the usual one, around the making of a container.
        self.0.collected(sync, held).await?;
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let filter = Filter::parse(&request.get_ref().filters).map_err(invalid)?;
        let leases = self.call(move |tables| tables.leases(&namespace)).await?;
        let fits = |lease: &meta::Lease| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Some(Cow::Borrowed(match path.as_slice() {
                    ["id"] => lease.id.as_str(),
                    ["labels", rest @ ..] => lease.labels.get(&rest.join("."))?,
                    _ => return None,
                }))
            })
        };
        Ok(Response::new(ListResponse {
            leases: leases.into_iter().filter(fits).map(out).collect(),
        }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let request = request.into_inner();
        let (lease, resource) = (id(&request.id)?, resource(request.resource)?);
        self.call(move |tables| tables.add_resource(&namespace, &lease, &resource))
            .await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let request = request.into_inner();
        let (lease, resource) = (id(&request.id)?, resource(request.resource)?);
        self.call(move |tables| tables.delete_resource(&namespace, &lease, &resource))
            .await?;
        self.0.collected(false, true).await?;
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let lease = id(&request.get_ref().id)?;
        let resources = self.call(move |tables| tables.resources(&namespace, &lease)).await?;
        let resources = resources.into_iter().map(|resource| Resource {
            id: resource.id,
            r#type: resource.kind,
        });
        Ok(Response::new(ListResourcesResponse {
            resources: resources.collect(),
        }))
    }
}

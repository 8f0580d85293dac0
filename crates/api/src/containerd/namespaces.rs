//! Namespaces and their labels. One is there as soon as something is in it.

use berth_wire::containerd::services::namespaces::v1::namespaces_server as server;
use berth_wire::containerd::services::namespaces::v1::*;
use tonic::{Request, Response, Status};

use super::Context;

pub struct Namespaces(pub Context);

#[tonic::async_trait]
impl server::Namespaces for Namespaces {
    /// Also of one that is not there: old Docker engines ask before they make anything.
    async fn get(&self, request: Request<GetNamespaceRequest>) -> Result<Response<GetNamespaceResponse>, Status> {
        let namespace = Namespace {
            name: request.into_inner().name,
            ..Default::default()
        };
        Ok(Response::new(GetNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn list(&self, _: Request<ListNamespacesRequest>) -> Result<Response<ListNamespacesResponse>, Status> {
        let mut names: Vec<String> = self
            .0
            .records
            .lock()
            .keys()
            .map(|key| key.namespace.to_string())
            .collect();
        names.dedup();
        let namespaces = names.into_iter().map(|name| Namespace {
            name,
            ..Default::default()
        });
        Ok(Response::new(ListNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }
}

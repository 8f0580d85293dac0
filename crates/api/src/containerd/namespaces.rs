//! Namespaces and their labels. One is there as soon as something is in it.

use berth_meta::{LabelChange, Labels};
use berth_wire::containerd::events;
use berth_wire::containerd::services::namespaces::v1::namespaces_server as server;
use berth_wire::containerd::services::namespaces::v1::*;
use tonic::{Request, Response, Status};

use super::Context;
use super::store::{self, invalid};

pub struct Namespaces(pub Context);

/// The labels that a request sets, the others being gone or, with a mask, as they are.
fn changes(paths: Option<Vec<String>>, name: &str, labels: Labels) -> Result<Vec<LabelChange>, Status> {
    let Some(paths) = paths else {
        return Ok(vec![LabelChange::All(labels)]);
    };
    let change = |path: &String| match store::label_change(path, "labels", &labels) {
        Some(change @ LabelChange::One(..)) => Ok(change),
        _ => Err(invalid(format!("cannot update {path:?} field in namespace {name:?}"))),
    };
    paths.iter().map(change).collect()
}

#[tonic::async_trait]
impl server::Namespaces for Namespaces {
    /// Also of one that is not there: old Docker engines ask before they make anything.
    async fn get(&self, request: Request<GetNamespaceRequest>) -> Result<Response<GetNamespaceResponse>, Status> {
        let name = request.into_inner().name;
        let namespace = store::namespace(&name)?;
        let labels = self
            .0
            .meta
            .call(move |tables| tables.namespace_labels(&namespace))
            .await;
        let labels = labels.map_err(store::status)?;
        Ok(Response::new(GetNamespaceResponse {
            namespace: Some(Namespace { name, labels }),
        }))
    }

    async fn list(&self, _: Request<ListNamespacesRequest>) -> Result<Response<ListNamespacesResponse>, Status> {
        let namespaces = self
            .0
            .meta
            .call(|tables| tables.namespaces())
            .await
            .map_err(store::status)?;
        let namespaces = namespaces.into_iter().map(|(name, labels)| Namespace {
            name: name.to_string(),
            labels,
        });
        Ok(Response::new(ListNamespacesResponse {
            namespaces: namespaces.collect(),
        }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let Namespace { name, labels } = request.into_inner().namespace.unwrap_or_default();
        let namespace = store::namespace(&name)?;
        let made = self.0.meta.call({
            let (namespace, labels) = (namespace.clone(), labels.clone());
            move |tables| tables.create_namespace(&namespace, &labels)
        });
        made.await.map_err(store::status)?;
        let event = events::NamespaceCreate {
            name: name.clone(),
            labels: labels.clone(),
        };
        self.0.events.publish(&namespace, "/namespaces/create", &event);
        Ok(Response::new(CreateNamespaceResponse {
            namespace: Some(Namespace { name, labels }),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let UpdateNamespaceRequest { namespace, update_mask } = request.into_inner();
        let Namespace { name, labels } = namespace.unwrap_or_default();
        let namespace = store::namespace(&name)?;
        let changes = changes(store::paths(update_mask), &name, labels)?;
        let updated = self.0.meta.call({
            let namespace = namespace.clone();
            move |tables| tables.update_namespace(&namespace, &changes)
        });
        let labels = updated.await.map_err(store::status)?;
        let event = events::NamespaceUpdate {
            name: name.clone(),
            labels: labels.clone(),
        };
        self.0.events.publish(&namespace, "/namespaces/update", &event);
        Ok(Response::new(UpdateNamespaceResponse {
            namespace: Some(Namespace { name, labels }),
        }))
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        let namespace = store::namespace(&name)?;
        let deleted = self.0.meta.call({
            let namespace = namespace.clone();
            move |tables| tables.delete_namespace(&namespace)
        });
        deleted.await.map_err(store::status)?;
        self.0
            .events
            .publish(&namespace, "/namespaces/delete", &events::NamespaceDelete { name });
        Ok(Response::new(()))
    }
}

//! Containers as records: what to run, not whether it runs.

use berth_core::{ContainerKey, Namespace};
use berth_wire::containerd::events;
use berth_wire::containerd::services::containers::v1::containers_server as server;
use berth_wire::containerd::services::containers::v1::*;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::filter::Filter;
use super::{Context, header, time};

pub struct Containers(pub Context);

fn key(namespace: &Namespace, id: &str) -> Result<ContainerKey, Status> {
    ContainerKey::parse(namespace.as_str(), id)
        .map_err(|error| Status::invalid_argument(format!("{error}: invalid argument")))
}

fn unknown(key: &ContainerKey) -> Status {
    Status::not_found(format!(
        "container {:?} in namespace {:?}: not found",
        key.id.as_str(),
        key.namespace.as_str()
    ))
}

/// The record of a container.
pub async fn find(context: &Context, key: &ContainerKey) -> Result<Container, Status> {
    context.records.lock().get(key).cloned().ok_or_else(|| unknown(key))
}

impl Containers {
    fn matching(&self, namespace: &Namespace, filters: &[String]) -> Result<Vec<Container>, Status> {
        let filter = Filter::parse(filters).map_err(|e| Status::invalid_argument(format!("{e}: invalid argument")))?;
        let records = self.0.records.lock();
        let of = records.iter().filter(|(key, _)| key.namespace == *namespace);
        let fits = |container: &Container| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let text = match path.as_slice() {
                    ["id"] => container.id.clone(),
                    ["image"] => container.image.clone(),
                    ["runtime", "name"] => container.runtime.as_ref()?.name.clone(),
                    ["labels", rest @ ..] => container.labels.get(&rest.join("."))?.clone(),
                    _ => return None,
                };
                Some(text.into())
            })
        };
        Ok(of.map(|(_, c)| c.clone()).filter(fits).collect())
    }
}

#[tonic::async_trait]
impl server::Containers for Containers {
    async fn get(&self, request: Request<GetContainerRequest>) -> Result<Response<GetContainerResponse>, Status> {
        let key = key(&header::namespace(request.metadata())?, &request.get_ref().id)?;
        let container = Some(find(&self.0, &key).await?);
        Ok(Response::new(GetContainerResponse { container }))
    }

    async fn list(&self, request: Request<ListContainersRequest>) -> Result<Response<ListContainersResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let containers = self.matching(&namespace, &request.get_ref().filters)?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<BoxStream<ListContainerMessage>>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let containers = self.matching(&namespace, &request.get_ref().filters)?;
        let messages = containers.into_iter().map(|container| {
            Ok(ListContainerMessage {
                container: Some(container),
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let refuse = |what: &str| Status::invalid_argument(format!("{what}: invalid argument"));
        let mut container = request
            .into_inner()
            .container
            .ok_or_else(|| refuse("a container is needed"))?;
        let key = key(&namespace, &container.id)?;
        let runtime = container.runtime.clone().filter(|runtime| !runtime.name.is_empty());
        let runtime = runtime.ok_or_else(|| refuse("container.Runtime.Name must be set"))?;
        if container.spec.is_none() {
            return Err(refuse("container.Spec must be set"));
        }
        container.created_at = Some(time::now());
        container.updated_at = container.created_at;
        {
            let mut records = self.0.records.lock();
            if records.contains_key(&key) {
                return Err(Status::already_exists(format!(
                    "container {:?}: already exists",
                    key.id.as_str()
                )));
            }
            records.insert(key.clone(), container.clone());
        }
        let event = events::ContainerCreate {
            id: container.id.clone(),
            image: container.image.clone(),
            runtime: Some(events::container_create::Runtime {
                name: runtime.name,
                options: runtime.options,
            }),
        };
        self.0.events.publish(&namespace, "/containers/create", &event);
        Ok(Response::new(CreateContainerResponse {
            container: Some(container),
        }))
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let key = key(&namespace, &request.get_ref().id)?;
        if self.0.records.lock().remove(&key).is_none() {
            return Err(unknown(&key));
        }
        let event = events::ContainerDelete { id: key.id.to_string() };
        self.0.events.publish(&namespace, "/containers/delete", &event);
        Ok(Response::new(()))
    }
}

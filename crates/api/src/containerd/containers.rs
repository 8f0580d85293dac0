//! Containers as records: what to run, not whether it runs.

use std::borrow::Cow;

use berth_core::{ContainerKey, Namespace};
use berth_meta::{self as meta, ContainerChange, Labels};
use berth_wire::containerd::events;
use berth_wire::containerd::services::containers::v1::container::Runtime;
use berth_wire::containerd::services::containers::v1::containers_server as server;
use berth_wire::containerd::services::containers::v1::*;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::filter::Filter;
use super::store::{self, invalid};
use super::{Context, header, time};

pub struct Containers(pub Context);

fn key(namespace: &Namespace, id: &str) -> Result<ContainerKey, Status> {
    ContainerKey::parse(namespace.as_str(), id).map_err(invalid)
}

/// The record of a container.
pub async fn find(context: &Context, key: &ContainerKey) -> Result<Container, Status> {
    let key = key.clone();
    let found = context.meta.call(move |tables| tables.container(&key)).await;
    found.map(out).map_err(store::status)
}

fn out(container: meta::Container) -> Container {
    Container {
        id: container.key.id.to_string(),
        labels: container.labels,
        image: container.image,
        runtime: Some(Runtime {
            name: container.runtime,
            options: container.options.map(store::any_out),
        }),
        spec: container.spec.map(store::any_out),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: Some(time::stamp(container.created_at)),
        updated_at: Some(time::stamp(container.updated_at)),
        extensions: container
            .extensions
            .into_iter()
            .map(|(name, any)| (name, store::any_out(any)))
            .collect(),
        sandbox: container.sandbox,
    }
}

impl Containers {
    async fn matching(&self, namespace: Namespace, filters: &[String]) -> Result<Vec<Container>, Status> {
        let filter = Filter::parse(filters).map_err(invalid)?;
        let all = self.0.meta.call(move |tables| tables.containers(&namespace)).await;
        let fits = |container: &meta::Container| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Some(Cow::Borrowed(match path.as_slice() {
                    ["id"] => container.key.id.as_str(),
                    ["image"] => &container.image,
                    ["runtime", "name"] => &container.runtime,
                    ["labels", rest @ ..] => container.labels.get(&rest.join("."))?,
                    _ => return None,
                }))
            })
        };
        Ok(all.map_err(store::status)?.into_iter().filter(fits).map(out).collect())
    }
}

/// What an update asks for, in the order of its mask. Without one everything that may change does, and what may not must be the same.
fn changes(path: &str, container: &Container) -> Result<ContainerChange, meta::Error> {
    let extensions = || container.extensions.iter();
    if let Some(change) = store::label_change(path, "labels", &container.labels) {
        return Ok(ContainerChange::Labels(change));
    }
    if let Some(name) = path.strip_prefix("extensions.") {
        let any = container.extensions.get(name).cloned().map(store::any_in);
        return Ok(ContainerChange::Extension(name.to_owned(), any));
    }
    Ok(match path {
        "spec" => ContainerChange::Spec(container.spec.clone().map(store::any_in)),
        "image" => ContainerChange::Image(container.image.clone()),
        "snapshotkey" => ContainerChange::SnapshotKey(container.snapshot_key.clone()),
        "extensions" => {
            let all = extensions().map(|(name, any)| (name.clone(), store::any_in(any.clone())));
            ContainerChange::Extensions(all.collect())
        }
        path => {
            let message = format!("cannot update {path:?} field on {:?}", container.id);
            return Err(meta::Error::Invalid(message));
        }
    })
}

const ALL: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];

fn update(
    tables: &meta::Tables<'_>,
    key: &ContainerKey,
    container: &Container,
    paths: Option<Vec<String>>,
) -> Result<meta::Container, meta::Error> {
    let old = tables.container(key)?;
    let paths = match paths {
        Some(paths) => paths,
        None => {
            let runtime = container.runtime.as_ref().map_or("", |runtime| &runtime.name);
            for (field, same) in [
                ("Snapshotter", old.snapshotter == container.snapshotter),
                ("Runtime.Name", old.runtime == runtime),
            ] {
                if !same {
                    return Err(meta::Error::Invalid(format!("container.{field} field is immutable")));
                }
            }
            ALL.map(str::to_owned).into()
        }
    };
    let changes: Vec<_> = paths
        .iter()
        .map(|path| changes(path, container))
        .collect::<Result<_, _>>()?;
    let new = tables.update_container(key, &changes, store::now())?;
    if new.spec.is_none() {
        return Err(meta::Error::Invalid("container.Spec must be set".into()));
    }
    Ok(new)
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
        let containers = self.matching(namespace, &request.get_ref().filters).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<BoxStream<ListContainerMessage>>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let containers = self.matching(namespace, &request.get_ref().filters).await?;
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
        let container = request.into_inner().container;
        let container = container.ok_or_else(|| invalid("a container is needed"))?;
        let key = key(&namespace, &container.id)?;
        let runtime = container.runtime.filter(|runtime| !runtime.name.is_empty());
        let runtime = runtime.ok_or_else(|| invalid("container.Runtime.Name must be set"))?;
        let spec = container.spec.ok_or_else(|| invalid("container.Spec must be set"))?;
        if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
            return Err(invalid("container.Snapshotter must be set if container.SnapshotKey is"));
        }
        let now = store::now();
        let record = meta::Container {
            key,
            labels: container
                .labels
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect::<Labels>(),
            image: container.image,
            runtime: runtime.name.clone(),
            options: runtime.options.clone().map(store::any_in),
            spec: Some(store::any_in(spec)),
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
            sandbox: container.sandbox,
            created_at: now,
            updated_at: now,
            extensions: container
                .extensions
                .into_iter()
                .map(|(name, any)| (name, store::any_in(any)))
                .collect(),
        };
        let event = events::ContainerCreate {
            id: record.key.id.to_string(),
            image: record.image.clone(),
            runtime: Some(events::container_create::Runtime {
                name: runtime.name,
                options: runtime.options,
            }),
        };
        let made = self
            .0
            .meta
            .call(move |tables| tables.create_container(&record).map(|()| record));
        let made = made.await.map_err(store::status)?;
        self.0.events.publish(&namespace, "/containers/create", &event);
        Ok(Response::new(CreateContainerResponse {
            container: Some(out(made)),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let UpdateContainerRequest { container, update_mask } = request.into_inner();
        let container = container.filter(|container| !container.id.is_empty());
        let container = container.ok_or_else(|| invalid("must specify a container id"))?;
        let key = key(&namespace, &container.id)?;
        let paths = store::paths(update_mask);
        let updated = self.0.meta.call(move |tables| update(tables, &key, &container, paths));
        let updated = updated.await.map_err(store::status)?;
        let event = events::ContainerUpdate {
            id: updated.key.id.to_string(),
            image: updated.image.clone(),
            labels: updated.labels.clone(),
            snapshot_key: updated.snapshot_key.clone(),
        };
        self.0.events.publish(&namespace, "/containers/update", &event);
        Ok(Response::new(UpdateContainerResponse {
            container: Some(out(updated)),
        }))
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let key = key(&namespace, &request.get_ref().id)?;
        let event = events::ContainerDelete { id: key.id.to_string() };
        let deleted = self.0.meta.call(move |tables| tables.delete_container(&key)).await;
        deleted.map_err(store::status)?;
        self.0.events.publish(&namespace, "/containers/delete", &event);
        Ok(Response::new(()))
    }
}

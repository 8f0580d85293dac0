//! Names for descriptors of images.

use std::borrow::Cow;

use berth_meta::{self as meta, ImageChange, Labels};
use berth_wire::containerd::services::images::v1::images_server as server;
use berth_wire::containerd::services::images::v1::*;
use berth_wire::containerd::types::Descriptor;
use tonic::{Request, Response, Status};

use super::filter::Filter;
use super::store::{self, invalid};
use super::{Context, header, time};

pub struct Images(pub Context);

/// Bytes of a name.
const MAX_NAME: usize = 4096;

fn name(name: &str) -> Result<String, Status> {
    match name.len() {
        0 => Err(invalid("image name must not be empty")),
        1..=MAX_NAME => Ok(name.to_owned()),
        long => Err(invalid(format!(
            "an image name of {long} bytes, {MAX_NAME} are allowed"
        ))),
    }
}

fn target(target: Option<Descriptor>) -> Result<meta::Descriptor, Status> {
    let target = target.unwrap_or_default();
    berth_content::Digest::parse(&target.digest).map_err(invalid)?;
    if target.size <= 0 {
        return Err(invalid("Target.Size must be > 0"));
    }
    if target.media_type.is_empty() {
        return Err(invalid("Target.MediaType must be set"));
    }
    Ok(meta::Descriptor {
        media_type: target.media_type,
        digest: target.digest,
        size: target.size,
        annotations: target.annotations,
    })
}

fn out(image: meta::Image) -> Image {
    Image {
        name: image.name,
        labels: image.labels,
        target: Some(Descriptor {
            media_type: image.target.media_type,
            digest: image.target.digest,
            size: image.target.size,
            annotations: image.target.annotations,
        }),
        created_at: Some(time::stamp(image.created_at)),
        updated_at: Some(time::stamp(image.updated_at)),
    }
}

fn changes(image: Image, paths: Option<Vec<String>>) -> Result<Vec<ImageChange>, Status> {
    let paths = paths.unwrap_or_else(|| vec!["labels".into(), "target".into()]);
    let annotations = image.target.clone().unwrap_or_default().annotations;
    let change = |path: &String| {
        if path == "target" {
            return target(image.target.clone()).map(ImageChange::Target);
        }
        let labels = || store::label_change(path, "labels", &image.labels).map(ImageChange::Labels);
        let notes = || store::label_change(path, "annotations", &annotations).map(ImageChange::Annotations);
        labels()
            .or_else(notes)
            .ok_or_else(|| invalid(format!("cannot update {path:?} field on image {:?}", image.name)))
    };
    paths.iter().map(change).collect()
}

impl Images {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&meta::Tables<'_>) -> Result<T, meta::Error> + Send + 'static,
    ) -> Result<T, Status> {
        self.0.meta.call(work).await.map_err(store::status)
    }
}

#[tonic::async_trait]
impl server::Images for Images {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let name = name(&request.get_ref().name)?;
        let image = self.call(move |tables| tables.image(&namespace, &name)).await?;
        Ok(Response::new(GetImageResponse {
            image: Some(out(image)),
        }))
    }

    async fn list(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let filter = Filter::parse(&request.get_ref().filters).map_err(invalid)?;
        let images = self.call(move |tables| tables.images(&namespace)).await?;
        let fits = |image: &meta::Image| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Some(Cow::Borrowed(match path.as_slice() {
                    ["name"] => image.name.as_str(),
                    ["target", "digest"] => &image.target.digest,
                    ["target", "mediatype"] => &image.target.media_type,
                    ["labels", rest @ ..] => image.labels.get(&rest.join("."))?,
                    ["annotations", rest @ ..] => image.target.annotations.get(&rest.join("."))?,
                    _ => return None,
                }))
            })
        };
        Ok(Response::new(ListImagesResponse {
            images: images.into_iter().filter(fits).map(out).collect(),
        }))
    }

    async fn create(&self, request: Request<CreateImageRequest>) -> Result<Response<CreateImageResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let lease = header::lease(request.metadata())?;
        let CreateImageRequest {
            image,
            source_date_epoch,
        } = request.into_inner();
        let image = image.ok_or_else(|| invalid("an image is needed"))?;
        let now = source_date_epoch.map_or_else(store::now, |t| {
            t.seconds.saturating_mul(1_000_000_000).saturating_add(t.nanos.into())
        });
        let image = meta::Image {
            name: name(&image.name)?,
            labels: image
                .labels
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect::<Labels>(),
            target: target(image.target)?,
            created_at: now,
            updated_at: now,
        };
        let of = namespace.clone();
        let image = self.call(move |tables| {
            tables.create_image(&of, &image)?;
            if let Some(lease) = lease {
                let resource = meta::Resource {
                    kind: "images".into(),
                    id: image.name.clone(),
                };
                tables.add_resource(&of, &lease, &resource)?;
            }
            Ok(image)
        });
        let image = image.await?;
        let event = ImageCreate {
            name: image.name.clone(),
            labels: image.labels.clone(),
        };
        self.0.events.publish(&namespace, "/images/create", &event);
        Ok(Response::new(CreateImageResponse {
            image: Some(out(image)),
        }))
    }

    async fn update(&self, request: Request<UpdateImageRequest>) -> Result<Response<UpdateImageResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let UpdateImageRequest { image, update_mask, .. } = request.into_inner();
        let image = image.ok_or_else(|| invalid("an image is needed"))?;
        let name = name(&image.name)?;
        let changes = changes(image, store::paths(update_mask))?;
        let of = namespace.clone();
        let image = self
            .call(move |tables| tables.update_image(&of, &name, &changes, store::now()))
            .await?;
        let event = ImageUpdate {
            name: image.name.clone(),
            labels: image.labels.clone(),
        };
        self.0.events.publish(&namespace, "/images/update", &event);
        // The old target may be garbage.
        self.0.collected(false, true).await?;
        Ok(Response::new(UpdateImageResponse {
            image: Some(out(image)),
        }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let DeleteImageRequest {
            name: wanted,
            sync,
            target,
        } = request.into_inner();
        let name = name(&wanted)?;
        let event = ImageDelete { name: name.clone() };
        let of = namespace.clone();
        let digest = target.map(|target| target.digest).filter(|digest| !digest.is_empty());
        self.call(move |tables| tables.delete_image(&of, &name, digest.as_deref()))
            .await?;
        self.0.events.publish(&namespace, "/images/delete", &event);
        self.0.collected(sync, true).await?;
        Ok(Response::new(()))
    }
}

//! Blobs by their digest, and ingests by a name until they are blobs.

mod write;

use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom};

use berth_content::{Digest, Ingest};
use berth_core::Namespace;
use berth_meta as meta;
use berth_wire::containerd::events;
use berth_wire::containerd::services::content::v1::content_server as server;
use berth_wire::containerd::services::content::v1::*;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status as GrpcStatus, Streaming};

use super::filter::Filter;
use super::garbage::blocking;
use super::store::{self, invalid};
use super::{Context, header, time};
use crate::stream::answers;

pub struct Content(pub Context);

/// Bytes of one message of a Read.
const READ: usize = 1 << 20;
/// Blobs of one message of a List.
const LISTED: usize = 100;

fn digest(text: &str) -> Result<Digest, GrpcStatus> {
    Digest::parse(text).map_err(invalid)
}

fn out(blob: meta::Blob) -> Info {
    Info {
        digest: blob.digest,
        size: blob.size,
        created_at: Some(time::stamp(blob.created_at)),
        updated_at: Some(time::stamp(blob.updated_at)),
        labels: blob.labels,
    }
}

fn status_of(ingest: Ingest) -> Status {
    Status {
        started_at: Some(time::stamp(ingest.started_at)),
        updated_at: Some(time::stamp(ingest.updated_at)),
        r#ref: ingest.name,
        offset: i64::try_from(ingest.offset).unwrap_or(i64::MAX),
        total: i64::try_from(ingest.total).unwrap_or(i64::MAX),
        expected: ingest.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

impl Content {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&meta::Tables<'_>) -> Result<T, meta::Error> + Send + 'static,
    ) -> Result<T, GrpcStatus> {
        self.0.meta.call(work).await.map_err(store::status)
    }

    async fn blob(&self, namespace: Namespace, digest: &Digest) -> Result<meta::Blob, GrpcStatus> {
        let digest = digest.to_string();
        self.call(move |tables| tables.blob(&namespace, &digest)).await
    }
}

#[tonic::async_trait]
impl server::Content for Content {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let blob = self.blob(namespace, &digest(&request.get_ref().digest)?).await?;
        Ok(Response::new(InfoResponse { info: Some(out(blob)) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let UpdateRequest { info, update_mask } = request.into_inner();
        let info = info.ok_or_else(|| invalid("an info is needed"))?;
        let digest = digest(&info.digest)?;
        let paths = store::paths(update_mask).unwrap_or_else(|| vec!["labels".into()]);
        let change = |path: &String| {
            store::label_change(path, "labels", &info.labels).ok_or_else(|| {
                invalid(format!(
                    "cannot update {path:?} field on content info {:?}",
                    info.digest
                ))
            })
        };
        let changes: Vec<_> = paths.iter().map(change).collect::<Result<_, _>>()?;
        let blob = self.call(move |tables| tables.update_blob(&namespace, digest.as_str(), &changes, store::now()));
        let info = Some(out(blob.await?));
        // A reference may be gone.
        self.0.collected(false, true).await?;
        Ok(Response::new(UpdateResponse { info }))
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<BoxStream<ListContentResponse>>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let filter = Filter::parse(&request.get_ref().filters).map_err(invalid)?;
        let blobs = self.call(move |tables| tables.blobs(&namespace)).await?;
        let fits = |blob: &meta::Blob| {
            filter.matches(|path| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Some(Cow::Borrowed(match path.as_slice() {
                    ["digest"] => blob.digest.as_str(),
                    ["labels", rest @ ..] => blob.labels.get(&rest.join("."))?,
                    _ => return None,
                }))
            })
        };
        let fitting: Vec<Info> = blobs.into_iter().filter(fits).map(out).collect();
        let messages: Vec<_> = fitting
            .chunks(LISTED)
            .map(|chunk| Ok(ListContentResponse { info: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let digest = digest(&request.get_ref().digest)?;
        let event = events::ContentDelete {
            digest: digest.to_string(),
        };
        let of = namespace.clone();
        let digest = self.call(move |tables| tables.delete_blob(&of, digest.as_str()).map(|()| digest));
        // After the commit, and only if no namespace has it still.
        self.0.remove_unknown(vec![digest.await?]).await?;
        self.0.events.publish(&namespace, "/content/delete", &event);
        Ok(Response::new(()))
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<BoxStream<ReadContentResponse>>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let ReadContentRequest {
            digest: name,
            offset,
            size,
        } = request.into_inner();
        let digest = digest(&name)?;
        let blob = self.blob(namespace, &digest).await?;
        if offset < 0 || offset > blob.size {
            let message = format!("read past object length {} bytes: out of range", blob.size);
            return Err(GrpcStatus::out_of_range(message));
        }
        let rest = blob.size - offset;
        let mut left = usize::try_from(if size <= 0 { rest } else { size.min(rest) }).unwrap_or(usize::MAX);
        let content = self.0.content.clone();
        let start = u64::try_from(offset).unwrap_or(0);
        let mut file = blocking(move || content.read(&digest)).await?;
        let failed = |error: std::io::Error| GrpcStatus::internal(format!("read {name}: {error}"));
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let last = GrpcStatus::unavailable("the daemon is ending");
        let chunks = answers(self.0.ending.clone(), last, move |sink| async move {
            let mut offset = 0;
            while left > 0 {
                let read = tokio::task::spawn_blocking(move || {
                    let mut data = vec![0; left.min(READ)];
                    let read = file.read_exact(&mut data);
                    (file, read.map(|()| data))
                });
                let data = match read.await {
                    Ok((same, Ok(data))) => {
                        file = same;
                        data
                    }
                    Ok((_, Err(error))) => return sink.send(Err(GrpcStatus::internal(error.to_string()))).await,
                    Err(error) => return sink.send(Err(GrpcStatus::internal(error.to_string()))).await,
                };
                left -= data.len();
                let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
                let data = data.into();
                sink.send(Ok(ReadContentResponse { offset, data })).await?;
                offset += length;
            }
            Ok(())
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let (name, content) = (request.into_inner().r#ref, self.0.content.clone());
        let ingest = blocking(move || content.ingest(&namespace, &name)).await?;
        Ok(Response::new(StatusResponse {
            status: Some(status_of(ingest)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let filter = Filter::parse(&request.get_ref().filters).map_err(invalid)?;
        let content = self.0.content.clone();
        let ingests = blocking(move || content.ingests()).await?;
        let fits = |ingest: &Ingest| {
            ingest.namespace == namespace
                && filter.matches(|path| (path == ["ref"]).then_some(Cow::Borrowed(ingest.name.as_str())))
        };
        Ok(Response::new(ListStatusesResponse {
            statuses: ingests.into_iter().filter(fits).map(status_of).collect(),
        }))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<BoxStream<WriteContentResponse>>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let lease = header::lease(request.metadata())?;
        let session = write::Session::new(self.0.clone(), namespace, lease);
        let requests = request.into_inner();
        let last = GrpcStatus::unavailable("the daemon is ending");
        let responses = answers(self.0.ending.clone(), last, |sink| session.run(requests, sink));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, GrpcStatus> {
        let namespace = header::namespace(request.metadata())?;
        let (name, content) = (request.into_inner().r#ref, self.0.content.clone());
        blocking(move || content.abort(&namespace, &name)).await?;
        Ok(Response::new(()))
    }
}

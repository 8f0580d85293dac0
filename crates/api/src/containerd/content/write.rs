//! One Write: a ref is negotiated, bytes come, a commit ends it. One answer a request.
//!
//! A blob that another namespace has already needs no bytes: the writer stands at its end from the beginning, and the commit
//! only makes it known here. What the namespace itself has is refused, and is put under the lease all the same.

use berth_content::{Digest, Error, Writer};
use berth_core::Namespace;
use berth_meta::{self as meta, Labels, Resource};
use berth_wire::containerd::events;
use berth_wire::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use tonic::{Status, Streaming};

use super::super::garbage::{blocking, content_status};
use super::super::store::{self, invalid};
use super::super::{Context, time};
use crate::stream::{Gone, Sink};

/// Bytes of a ref.
const MAX_REF: usize = 4096;

pub struct Session {
    context: Context,
    namespace: Namespace,
    lease: Option<String>,
    name: String,
    total: u64,
    expected: Option<Digest>,
    target: Target,
}

enum Target {
    /// Before the first request.
    None,
    Ingest(Box<Writer>),
    /// Bytes that are there already.
    Shared {
        digest: Digest,
        size: u64,
        begun: i64,
    },
}

impl Session {
    pub fn new(context: Context, namespace: Namespace, lease: Option<String>) -> Self {
        Session {
            context,
            namespace,
            lease,
            name: String::new(),
            total: 0,
            expected: None,
            target: Target::None,
        }
    }

    pub async fn run(
        mut self,
        mut requests: Streaming<WriteContentRequest>,
        sink: Sink<WriteContentResponse>,
    ) -> Result<(), Gone> {
        loop {
            let request = match requests.message().await {
                Ok(Some(request)) => request,
                // What there is stays for the next.
                Ok(None) => return Ok(()),
                Err(status) => return sink.send(Err(status)).await,
            };
            let is_last = request.action() == WriteAction::Commit;
            let answer = self.answer(request).await;
            let is_last = is_last || answer.is_err();
            sink.send(answer).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let action = request.action();
        self.agree(&request).await?;
        if action != WriteAction::Stat {
            self.put(request.offset, request.data).await?;
        }
        let mut response = self.now();
        response.action = action.into();
        if action == WriteAction::Commit {
            response.digest = self.commit(request.labels).await?;
        }
        Ok(response)
    }

    /// What the request says about the whole, held against what was said before.
    async fn agree(&mut self, request: &WriteContentRequest) -> Result<(), Status> {
        let is_first = matches!(self.target, Target::None);
        if is_first && request.r#ref.is_empty() {
            return Err(invalid("first message must have a reference"));
        }
        if is_first {
            if request.r#ref.len() > MAX_REF {
                return Err(invalid(format!(
                    "a ref of {} bytes, {MAX_REF} are allowed",
                    request.r#ref.len()
                )));
            }
            self.name = request.r#ref.clone();
        } else if !request.r#ref.is_empty() && request.r#ref != self.name {
            return Err(invalid(format!("the ref changed from {:?}", self.name)));
        }
        if request.total != 0 {
            let total = u64::try_from(request.total).map_err(|_| invalid("a negative total"))?;
            if self.total != 0 && self.total != total {
                return Err(invalid(format!("the total changed from {} to {total}", self.total)));
            }
            self.total = total;
        }
        if !request.expected.is_empty() {
            let expected = super::digest(&request.expected)?;
            if self.expected.as_ref() != Some(&expected) {
                self.refuse_known(&expected).await?;
            }
            self.expected = Some(expected);
        }
        if is_first {
            self.begin().await?;
        }
        Ok(())
    }

    /// What is here already needs no writing.
    async fn refuse_known(&self, digest: &Digest) -> Result<(), Status> {
        let (namespace, lease, digest) = (self.namespace.clone(), self.lease.clone(), digest.to_string());
        let known = self.context.meta.call(move |tables| {
            match tables.blob(&namespace, &digest) {
                Err(meta::Error::NotFound { .. }) => return Ok(None),
                found => drop(found?),
            }
            if let Some(lease) = lease {
                tables.add_resource(&namespace, &lease, &content(&digest))?;
            }
            Ok(Some(digest))
        });
        match known.await.map_err(store::status)? {
            None => Ok(()),
            Some(digest) => {
                self.forget_ingest().await;
                Err(Status::already_exists(format!("content {digest}: already exists")))
            }
        }
    }

    /// An ingest of what turned out to be there.
    async fn forget_ingest(&self) {
        let (store, namespace, name) = (self.context.content.clone(), self.namespace.clone(), self.name.clone());
        // Mostly there is none.
        let _ = blocking(move || store.abort(&namespace, &name)).await;
    }

    async fn begin(&mut self) -> Result<(), Status> {
        if let Some(lease) = self.lease.clone() {
            let (namespace, ingest) = (self.namespace.clone(), self.ingest());
            let held = self
                .context
                .meta
                .call(move |tables| tables.add_resource(&namespace, &lease, &ingest));
            held.await.map_err(store::status)?;
        }
        let (store, namespace, name) = (self.context.content.clone(), self.namespace.clone(), self.name.clone());
        let (total, expected) = (self.total, self.expected.clone());
        self.target = blocking(move || {
            if let Some(digest) = &expected
                && let Some(size) = store.size(digest).filter(|size| total == 0 || total == *size)
            {
                return Ok(Target::Shared {
                    digest: digest.clone(),
                    size,
                    begun: store::now(),
                });
            }
            let writer = store.writer(&namespace, &name, total, expected.as_ref())?;
            Ok(Target::Ingest(Box::new(writer)))
        })
        .await?;
        Ok(())
    }

    fn now(&self) -> WriteContentResponse {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (started, updated, offset, digest) = match &self.target {
            Target::None => (0, 0, 0, String::new()),
            Target::Ingest(writer) => {
                let about = writer.about();
                let digest = writer.digest().to_string();
                (about.started_at, about.updated_at, about.offset, digest)
            }
            Target::Shared { digest, size, begun } => (*begun, *begun, *size, digest.to_string()),
        };
        let total = match &self.target {
            Target::Shared { size, .. } => *size,
            _ => self.total,
        };
        WriteContentResponse {
            started_at: Some(time::stamp(started)),
            updated_at: Some(time::stamp(updated)),
            offset: number(offset),
            total: number(total),
            digest,
            ..Default::default()
        }
    }

    async fn put(&mut self, offset: i64, data: prost::bytes::Bytes) -> Result<(), Status> {
        let at = self.now().offset;
        if offset > 0 && offset != at {
            let message = format!("write @{offset} must occur at current offset {at}: out of range");
            return Err(Status::out_of_range(message));
        }
        let restarts = offset == 0 && at > 0 && !data.is_empty();
        if !restarts && data.is_empty() {
            return Ok(());
        }
        let mut writer = match std::mem::replace(&mut self.target, Target::None) {
            Target::Ingest(writer) => *writer,
            Target::Shared { .. } if !restarts => {
                return Err(Status::out_of_range(format!(
                    "write @{offset}, behind the blob's end: out of range"
                )));
            }
            // A client that sends the bytes all the same.
            Target::Shared { .. } | Target::None => {
                let (store, namespace, name) =
                    (self.context.content.clone(), self.namespace.clone(), self.name.clone());
                let (total, expected) = (self.total, self.expected.clone());
                blocking(move || store.writer(&namespace, &name, total, expected.as_ref())).await?
            }
        };
        let writer = blocking(move || {
            if restarts {
                writer.restart()?;
            }
            writer.write(&data)?;
            Ok(writer)
        });
        self.target = Target::Ingest(Box::new(writer.await?));
        Ok(())
    }

    fn ingest(&self) -> Resource {
        Resource {
            kind: "ingests".into(),
            id: self.name.clone(),
        }
    }

    /// The digest. Once begun it goes to its end, whether or not the client stays.
    async fn commit(&mut self, labels: Labels) -> Result<String, Status> {
        let commit = Commit {
            context: self.context.clone(),
            namespace: self.namespace.clone(),
            lease: self.lease.clone(),
            ingest: self.ingest(),
            total: self.total,
            expected: self.expected.clone(),
            labels: labels.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        };
        let target = std::mem::replace(&mut self.target, Target::None);
        let done = tokio::spawn(commit.run(target)).await;
        let done = done.map_err(|error| Status::internal(error.to_string()))?;
        if done
            .as_ref()
            .is_err_and(|status| status.code() == tonic::Code::AlreadyExists)
        {
            self.forget_ingest().await;
        }
        done
    }
}

fn content(digest: &str) -> Resource {
    Resource {
        kind: "content".into(),
        id: digest.to_owned(),
    }
}

struct Commit {
    context: Context,
    namespace: Namespace,
    lease: Option<String>,
    ingest: Resource,
    total: u64,
    expected: Option<Digest>,
    labels: Labels,
}

impl Commit {
    async fn run(self, target: Target) -> Result<String, Status> {
        let Commit {
            context,
            namespace,
            lease,
            ingest,
            total,
            expected,
            labels,
        } = self;
        let (digest, size, writer) = match target {
            Target::None => return Err(Status::internal("commit of nothing")),
            Target::Shared { digest, size, .. } => {
                let wrong = if total > 0 && total != size {
                    Some(Error::Size {
                        actual: size,
                        expected: total,
                    })
                } else {
                    expected
                        .filter(|expected| *expected != digest)
                        .map(|expected| Error::Mismatch {
                            actual: digest.clone(),
                            expected,
                        })
                };
                if let Some(wrong) = wrong {
                    return Err(content_status(wrong));
                }
                (digest, size, None)
            }
            Target::Ingest(mut writer) => {
                blocking(move || {
                    let digest = writer.seal(total, expected.as_ref())?;
                    let size = writer.about().offset;
                    Ok((digest, size, Some(*writer)))
                })
                .await?
            }
        };
        let now = store::now();
        let blob = meta::Blob {
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            created_at: now,
            updated_at: now,
            labels,
        };
        let known = context.meta.call({
            let (store, namespace, digest, lease) = (
                context.content.clone(),
                namespace.clone(),
                digest.clone(),
                lease.clone(),
            );
            // Publishing is a step of the transaction: the collector, on the same thread, sees both or neither.
            move |tables| {
                tables.add_blob(&namespace, &blob)?;
                if let Some(lease) = &lease {
                    tables.add_resource(&namespace, lease, &content(digest.as_str()))?;
                    tables.delete_resource(&namespace, lease, &ingest)?;
                }
                match &writer {
                    Some(writer) => store
                        .publish(writer, &digest)
                        .map_err(|error| meta::Error::Precondition(error.to_string()))?,
                    None if store.size(&digest).is_none() => {
                        return Err(meta::Error::Precondition(format!("content {digest} has just gone")));
                    }
                    None => {}
                }
                Ok(writer)
            }
        });
        let writer = match known.await {
            Ok(writer) => writer,
            Err(error @ meta::Error::AlreadyExists { .. }) => {
                if let Some(lease) = lease {
                    let held = context.meta.call({
                        let (namespace, digest) = (namespace.clone(), digest.clone());
                        move |tables| tables.add_resource(&namespace, &lease, &content(digest.as_str()))
                    });
                    held.await.map_err(store::status)?;
                }
                return Err(store::status(error));
            }
            Err(error) => return Err(store::status(error)),
        };
        if let Some(writer) = writer {
            let (store, digest) = (context.content.clone(), digest.clone());
            blocking(move || store.finish(writer, &digest)).await?;
        }
        let event = events::ContentCreate {
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        context.events.publish(&namespace, "/content/create", &event);
        Ok(digest.to_string())
    }
}

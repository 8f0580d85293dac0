//! Output that left the window before we took it, read from the log instead.
//!
//! A container is never held by who watches it, so that a slow terminal, or a burst, loses bytes of the window; the log has them.
//! The log does not know the window's offsets, but it begins with the first byte as long as nothing was rotated away, and each
//! stream is whole in it: so many bytes of each as were shown are skipped, and the log is the source from there on. That it still
//! begins with the first byte is known by its first entry's cursor, which is
//! asked for when the session begins.

use std::time::Duration;

use berth_wire::v1::{GetRequest, LogEntry, LogFormat, LogPolicy, LogsRequest, Stream, stdio::To};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::error::Result;
use berth_client::Client;

/// Logs that keep less may have lost their beginning before the session began.
const SMALL: u64 = 10 << 20;
/// How long the log may take to show its first entry.
const DEADLINE: Duration = Duration::from_secs(5);

type Chunk = (Stream, Vec<u8>);

/// The cursor of the log's first entry.
pub struct Anchor(JoinHandle<Option<String>>);

impl Drop for Anchor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Anchor {
    pub fn find(client: &Client, id: &str) -> Self {
        let (client, request) = (client.clone(), request(client, id));
        Self(tokio::spawn(async move {
            let mut stream = client.stub().logs(request).await.ok()?.into_inner();
            Some(stream.message().await.ok()??.entries.first()?.cursor.clone())
        }))
    }
}

/// From the first byte on, and on to the end.
fn request(client: &Client, id: &str) -> LogsRequest {
    LogsRequest {
        namespace: client.namespace.clone(),
        id: id.to_owned(),
        follow: true,
        ..Default::default()
    }
}

/// How much of each stream was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    stdout: usize,
    stderr: usize,
}

impl Shown {
    pub fn add(&mut self, stream: Stream, count: usize) {
        *self.of(stream) += count;
    }

    /// The part of an entry that was not shown yet; counts it down.
    fn skip(&mut self, entry: LogEntry) -> Option<Chunk> {
        let stream = entry.stream();
        let left = self.of(stream);
        let seen = entry.data.len().min(*left);
        *left -= seen;
        (seen < entry.data.len()).then(|| (stream, entry.data[seen..].to_vec()))
    }

    fn of(&mut self, stream: Stream) -> &mut usize {
        match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Unspecified => &mut self.stdout,
        }
    }
}

/// The log as the source of output.
pub struct Refill {
    chunks: mpsc::Receiver<Result<Chunk>>,
    task: JoinHandle<()>,
}

impl Refill {
    /// None if the log can't make the loss good.
    pub async fn open(client: &Client, id: &str, anchor: Anchor, shown: Shown) -> Option<Self> {
        tokio::time::timeout(DEADLINE, Self::try_open(client, id, anchor, shown))
            .await
            .ok()?
    }

    async fn try_open(client: &Client, id: &str, mut anchor: Anchor, mut shown: Shown) -> Option<Self> {
        let get = GetRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            processes: false,
        };
        let stdio = client.stub().get(get).await.ok()?.into_inner().container?.stdio?;
        let Some(To::Log(log)) = stdio.to else { return None };
        // 0 = berthd's default, which is not small.
        let kept = log.max_size.saturating_mul(u64::from(log.max_files).saturating_sub(1));
        if log.max_size != 0 && log.max_files != 0 && kept < SMALL {
            return None;
        }
        // A log that drops is not whole, and a plain one does not tell the streams apart.
        if log.policy() == LogPolicy::Drop || log.format() == LogFormat::Plain {
            return None;
        }
        let anchor = (&mut anchor.0).await.ok()??;
        let mut request = request(client, id);
        let mut stream = client.stub().logs(request.clone()).await.ok()?.into_inner();
        let mut entries = stream.message().await.ok()??.entries;
        let first = entries.first()?;
        if first.gap || first.cursor != anchor {
            return None;
        }
        let (client, id) = (client.clone(), id.to_owned());
        let (sender, chunks) = mpsc::channel(4);
        let task = tokio::spawn(async move {
            let mut patience = client.patience();
            loop {
                for entry in std::mem::take(&mut entries) {
                    request.cursor.clone_from(&entry.cursor);
                    if let Some(chunk) = shown.skip(entry)
                        && sender.send(Ok(chunk)).await.is_err()
                    {
                        return;
                    }
                }
                let status: Status = match stream.message().await {
                    Ok(Some(response)) => {
                        entries = response.entries;
                        continue;
                    }
                    Ok(None) => return,
                    Err(status) => status,
                };
                let mut failed = Some(status);
                while let Some(status) = failed.take() {
                    if let Err(error) = client.wait_or_fail(&mut patience, "logs", &id, status).await {
                        // Nobody is left to tell if the session has gone.
                        let _ = sender.send(Err(error.into())).await;
                        return;
                    }
                    match client.stub().logs(request.clone()).await {
                        Ok(response) => stream = response.into_inner(),
                        Err(status) => failed = Some(status),
                    }
                }
            }
        });
        Some(Self { chunks, task })
    }

    /// None at the end of the log.
    pub async fn next(&mut self) -> Option<Result<Chunk>> {
        self.chunks.recv().await
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_was_shown_is_skipped_stream_by_stream() {
        let mut shown = Shown::default();
        shown.add(Stream::Stdout, 5);
        shown.add(Stream::Stderr, 2);
        let mut skip = |stream: Stream, data: &'static str| {
            let entry = LogEntry {
                stream: stream.into(),
                data: data.as_bytes().into(),
                ..Default::default()
            };
            shown
                .skip(entry)
                .map(|(_, data)| String::from_utf8(data).expect("text"))
        };
        assert_eq!(skip(Stream::Stdout, "abc"), None);
        assert_eq!(skip(Stream::Stderr, "xyz").as_deref(), Some("z"));
        assert_eq!(skip(Stream::Stdout, "def").as_deref(), Some("f"));
        assert_eq!(skip(Stream::Stdout, "g").as_deref(), Some("g"));
    }
}

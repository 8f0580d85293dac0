//! Our stdout and stderr, written by a thread of their own: a slow reader must not hold the session.
//!
//! What is read of a container's output and not yet written is kept here, for while nobody reads the window it loses bytes. With a
//! terminal it is little: a person who interrupts a flood does not want to see the rest of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use berth_wire::v1::Stream;
use rustix::stdio::{stderr, stdout};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::{CliError, Result};
use crate::term;

/// Bytes that wait for a pipe or a file.
const BACKLOG: usize = 64 << 20;
/// Bytes that wait else.
const LITTLE: usize = 256 << 10;

type Chunk = (Stream, Vec<u8>);

pub struct Output {
    chunks: Option<mpsc::UnboundedSender<Chunk>>,
    backlog: Arc<Backlog>,
    limit: usize,
    failed: oneshot::Receiver<io::Error>,
}

#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    shrunk: Notify,
}

impl Output {
    pub fn start(mut sink: impl FnMut(Stream, &[u8]) -> io::Result<()> + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Chunk>();
        let (report, failed) = oneshot::channel();
        let backlog = Arc::new(Backlog::default());
        let written = backlog.clone();
        thread::spawn(move || {
            while let Some((stream, data)) = receiver.blocking_recv() {
                let result = sink(stream, &data);
                written.bytes.fetch_sub(data.len(), Ordering::Relaxed);
                if let Err(error) = result {
                    receiver.close();
                    let _ = report.send(error);
                    written.shrunk.notify_one();
                    return;
                }
                // One waiter at most; a permit that nobody waits for yet is kept.
                written.shrunk.notify_one();
            }
        });
        Self {
            chunks: Some(sender),
            backlog,
            limit: BACKLOG,
            failed,
        }
    }

    /// For a terminal, or where the source waits for us.
    pub fn keep_little(&mut self) {
        self.limit = LITTLE;
    }

    /// Takes the chunk when there is room for it; until then it stays where it is.
    pub async fn write(&mut self, chunk: &mut Option<Chunk>) -> Result<()> {
        while self.backlog.bytes.load(Ordering::Relaxed) >= self.limit && self.is_open() {
            self.backlog.shrunk.notified().await;
        }
        if let (Some(chunks), Some(taken)) = (&self.chunks, chunk.take()) {
            self.backlog.bytes.fetch_add(taken.1.len(), Ordering::Relaxed);
            if chunks.send(taken).is_ok() {
                return Ok(());
            }
        }
        Err(failure(&mut self.failed).await.unwrap_or(CliError::StdoutClosed))
    }

    fn is_open(&self) -> bool {
        self.chunks.as_ref().is_some_and(|chunks| !chunks.is_closed())
    }

    /// Returns when everything is written.
    pub async fn finish(&mut self, last: &mut Option<Chunk>) -> Result<()> {
        if last.is_some() {
            self.write(last).await?;
        }
        self.chunks = None;
        failure(&mut self.failed).await.map_or(Ok(()), Err)
    }
}

/// The sink of a real session. A closed stderr ends nothing.
pub fn standard() -> impl FnMut(Stream, &[u8]) -> io::Result<()> + Send + 'static {
    let mut is_stderr_open = true;
    move |stream, data| match stream {
        Stream::Stderr => {
            is_stderr_open = is_stderr_open && term::write_all(stderr(), data).is_ok();
            Ok(())
        }
        Stream::Stdout | Stream::Unspecified => term::write_all(stdout(), data),
    }
}

async fn failure(failed: &mut oneshot::Receiver<io::Error>) -> Option<CliError> {
    failed.await.ok().map(CliError::stdout)
}

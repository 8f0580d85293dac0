//! Our stdout and stderr, written by a thread of their own: a slow reader must not hold the session.

use std::io;
use std::thread;

use berth_wire::v1::Stream;
use rustix::stdio::{stderr, stdout};
use tokio::sync::{mpsc, oneshot};

use crate::error::{CliError, Result};
use crate::term;

type Chunk = (Stream, Vec<u8>);

pub struct Output {
    chunks: Option<mpsc::Sender<Chunk>>,
    failed: oneshot::Receiver<io::Error>,
}

impl Output {
    pub fn start(mut sink: impl FnMut(Stream, &[u8]) -> io::Result<()> + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Chunk>(8);
        let (report, failed) = oneshot::channel();
        thread::spawn(move || {
            while let Some((stream, data)) = receiver.blocking_recv() {
                if let Err(error) = sink(stream, &data) {
                    receiver.close();
                    let _ = report.send(error);
                    return;
                }
            }
        });
        Self {
            chunks: Some(sender),
            failed,
        }
    }

    /// Takes the chunk when there is room for it; until then it stays where it is.
    pub async fn write(&mut self, chunk: &mut Option<Chunk>) -> Result<()> {
        if let Some(chunks) = &self.chunks
            && let Ok(permit) = chunks.reserve().await
        {
            if let Some(chunk) = chunk.take() {
                permit.send(chunk);
            }
            return Ok(());
        }
        Err(failure(&mut self.failed).await.unwrap_or(CliError::StdoutClosed))
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

//! Answers that are streams: a task fetches, a short channel holds, the client's pace decides.

use std::future::Future;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What the server has ready ahead of a client.
const AHEAD: usize = 4;

pub type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Where a task puts its answers.
pub struct Sink<T>(mpsc::Sender<Result<T, Status>>);

/// The client is gone.
pub struct Gone;

impl<T> Sink<T> {
    /// Waits until the client has room.
    pub async fn send(&self, answer: Result<T, Status>) -> Result<(), Gone> {
        self.0.send(answer).await.map_err(|_| Gone)
    }
}

/// Runs `fetch` until it ends or the client goes.
pub fn answers<T, F>(fetch: impl FnOnce(Sink<T>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let client = sender.clone();
    let fetch = fetch(Sink(sender));
    tokio::spawn(async move {
        tokio::select! {
            _ = fetch => {}
            () = client.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

//! Answers that are streams: a task fetches, a short channel holds, the client's pace decides.

use std::future::Future;

use tokio::sync::{mpsc, watch};
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

/// When the daemon stops serving.
#[derive(Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// It begins when the sender says true, or is gone.
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Ending(receiver)
    }

    pub async fn begun(&self) {
        // An error means that the server is gone already.
        let _ = self.0.clone().wait_for(|ending| *ending).await;
    }
}

/// Runs `fetch` until it ends, the client goes, or the daemon ends: then `last` is the stream's status.
pub fn answers<T, F>(ending: Ending, last: Status, fetch: impl FnOnce(Sink<T>) -> F) -> Answers<T>
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
            // Behind what the client has not read yet: a stream that is cut must not look complete.
            () = ending.begun() => drop(client.send(Err(last)).await),
        }
    });
    ReceiverStream::new(receiver)
}

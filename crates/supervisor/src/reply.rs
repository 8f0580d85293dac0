//! Answers: one call, one answer, any number of callers.
//!
//! A `Reply` is held by whoever does the work, an `Answer` by each caller; callers of the same request id share one. The work
//! sees when the last caller went away (`abandoned`), and a caller sees when the work was dropped. With a request id the
//! answer goes into the table before anybody hears it, so that a caller that was cut off finds it again.

use std::sync::{Arc, Mutex, PoisonError};

use berth_core::request::{RequestTable, Seen};
use berth_core::{ContainerId, ContainerKey, ErrorCode, Namespace, RequestId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::calls::Call;

/// Answers remembered per method.
const CAPACITY: usize = 20_000;

type Slot<T> = Option<Result<T, Error>>;
type Key = (Namespace, RequestId);
type Table<T> = RequestTable<Key, (ContainerId, watch::Sender<Slot<T>>), (ContainerId, Result<T, Error>)>;

/// The request ids of one method.
pub(crate) struct Requests<T> {
    operation: &'static str,
    /// The table counts time from here.
    origin: Instant,
    table: Arc<Mutex<Table<T>>>,
}

/// Who does the work answers here. Dropped without an answer: the request had no effect.
pub(crate) struct Reply<T: Clone> {
    sender: watch::Sender<Slot<T>>,
    remember: Option<Remember<T>>,
    /// In the table of live calls as long as the work goes on, even if the caller has gone.
    call: Option<Arc<Call>>,
}

/// Where the answer is kept for callers to come.
struct Remember<T> {
    table: Arc<Mutex<Table<T>>>,
    origin: Instant,
    name: Key,
    id: ContainerId,
}

/// Who called waits here.
pub(crate) struct Answer<T> {
    operation: &'static str,
    key: ContainerKey,
    receiver: watch::Receiver<Slot<T>>,
}

/// What a request turned out to be.
pub(crate) enum Begun<T: Clone> {
    /// The first of its id: do the work.
    New(Reply<T>, Answer<T>),
    /// The work is done, or was done, by another call.
    Known(Answer<T>),
}

impl<T: Clone> Requests<T> {
    pub(crate) fn new(operation: &'static str) -> Self {
        let table = RequestTable::<Key, _, _>::new(Table::<T>::KEEP, CAPACITY);
        Self {
            operation,
            origin: Instant::now(),
            table: Arc::new(Mutex::new(table)),
        }
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(crate) fn begin(&self, key: &ContainerKey, request: Option<RequestId>) -> Result<Begun<T>, Error> {
        let Some(request) = request else {
            let (reply, answer) = unnamed(self.operation, key);
            return Ok(Begun::New(reply, answer));
        };
        let sender = watch::Sender::new(None);
        let answer = |receiver| Answer {
            operation: self.operation,
            key: key.clone(),
            receiver,
        };
        let name = (key.namespace.clone(), request);
        let other = |id: &ContainerId| {
            let message = format!("request id {} was used for container {id}; use another one", name.1);
            Err(Error::new(ErrorCode::InvalidArgument, self.operation, key, message))
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.begin(self.origin.elapsed(), &name, || (key.id.clone(), sender.clone())) {
            Seen::New => {
                drop(table);
                let receiver = sender.subscribe();
                let (table, origin, id) = (self.table.clone(), self.origin, key.id.clone());
                let remember = Some(Remember {
                    table,
                    origin,
                    name,
                    id,
                });
                Ok(Begun::New(
                    Reply {
                        sender,
                        remember,
                        call: None,
                    },
                    answer(receiver),
                ))
            }
            Seen::Pending((id, _)) | Seen::Done((id, _)) if *id != key.id => other(id),
            Seen::Pending((_, sender)) => Ok(Begun::Known(answer(sender.subscribe()))),
            Seen::Done((_, done)) => {
                let done = watch::Sender::new(Some(done.clone()));
                Ok(Begun::Known(answer(done.subscribe())))
            }
        }
    }
}

/// An answer that no request id asks for.
pub(crate) fn unnamed<T: Clone>(operation: &'static str, key: &ContainerKey) -> (Reply<T>, Answer<T>) {
    let sender = watch::Sender::new(None);
    let answer = Answer {
        operation,
        key: key.clone(),
        receiver: sender.subscribe(),
    };
    let reply = Reply {
        sender,
        remember: None,
        call: None,
    };
    (reply, answer)
}

impl<T: Clone> Reply<T> {
    pub(crate) fn send(mut self, answer: Result<T, Error>) {
        if let Some(Remember {
            table,
            origin,
            name,
            id,
        }) = self.remember.take()
        {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            match &answer {
                // Nothing happened: the same request may be tried again.
                Err(e) if matches!(e.code(), ErrorCode::Cancelled | ErrorCode::ShuttingDown) => table.forget(&name),
                _ => table.finish(origin.elapsed(), &name, (id, answer.clone())),
            }
        }
        self.sender.send_replace(Some(answer));
    }

    pub(crate) fn with_call(mut self, call: Arc<Call>) -> Self {
        self.call = Some(call);
        self
    }

    /// What the call does or waits for now.
    pub(crate) fn stage(&self, stage: &'static str) {
        if let Some(call) = &self.call {
            call.stage(stage);
        }
    }

    /// Returns when no caller is left.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + use<T>
    where
        T: Send + Sync + 'static,
    {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }
}

impl<T: Clone> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(Remember { table, name, .. }) = self.remember.take() {
            table.lock().unwrap_or_else(PoisonError::into_inner).forget(&name);
        }
    }
}

impl<T: Clone> Answer<T> {
    pub(crate) async fn get(self) -> Result<T, Error> {
        let (operation, key) = (self.operation, self.key.clone());
        self.shared().await.unwrap_or_else(|| {
            let message = "the container was deleted or the daemon is shutting down";
            Err(Error::new(ErrorCode::Cancelled, operation, &key, message))
        })
    }

    /// For who joined another call's work: `None` = that was dropped without an effect (its caller went away), so it is to begin anew.
    pub(crate) async fn shared(mut self) -> Option<Result<T, Error>> {
        // The lock of `borrow` is not held across an await: the value is cloned out.
        self.receiver.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn key(id: &str) -> ContainerKey {
        ContainerKey::parse("", id).unwrap()
    }

    fn request() -> Option<RequestId> {
        RequestId::parse("r").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_one_request_share_its_answer() {
        let requests = Requests::new("test");
        let Begun::New(reply, first) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        let Begun::Known(second) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        assert!(requests.begin(&key("b"), request()).is_err());
        drop(first);
        reply.send(Ok(7));
        assert_eq!(second.get().await, Ok(7));
        let Begun::Known(third) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        assert_eq!(third.get().await, Ok(7));
        tokio::time::advance(Table::<u8>::KEEP).await;
        assert!(matches!(requests.begin(&key("a"), request()), Ok(Begun::New(..))));
    }

    #[tokio::test]
    async fn work_that_was_dropped_is_forgotten() {
        let requests = Requests::<u8>::new("test");
        let Begun::New(reply, answer) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        drop(reply);
        assert_eq!(answer.get().await.unwrap_err().code(), ErrorCode::Cancelled);
        assert!(matches!(requests.begin(&key("a"), request()), Ok(Begun::New(..))));
    }

    #[tokio::test]
    async fn the_work_sees_the_last_caller_go() {
        let requests = Requests::<u8>::new("test");
        let Begun::New(reply, first) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        let Begun::Known(second) = requests.begin(&key("a"), request()).unwrap() else {
            panic!()
        };
        drop(first);
        let gone = reply.abandoned();
        tokio::pin!(gone);
        tokio::select! { biased; () = &mut gone => panic!(), () = tokio::task::yield_now() => {} }
        drop(second);
        gone.await;
    }
}

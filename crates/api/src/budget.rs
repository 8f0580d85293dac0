//! A cap on the memory that requests in work may take, in place of caps on their number: ten thousand small requests are
//! welcome, a thousand of 16 MiB are not.
//!
//! Each request is charged the bytes of its body as they arrive and gives them back when it is answered or given up. A request that
//! would pass the cap is refused alone. Where the body is a stream of messages, those before the one that arrives are done with and
//! given back: a stream may be longer than the cap.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use berth_core::ErrorCode;
use berth_supervisor::Error;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, http};

use crate::status::status;

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

#[derive(Clone)]
pub struct Budget {
    in_work: Arc<AtomicUsize>,
    max: usize,
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Budget {
            in_work: Arc::default(),
            max,
        }
    }
}

impl<S> tower::Layer<S> for Budget {
    type Service = Charged<S>;

    fn layer(&self, inner: S) -> Charged<S> {
        Charged {
            inner,
            budget: self.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Charged<S> {
    inner: S,
    budget: Budget,
}

impl<S, R> Service<http::Request<Body>> for Charged<S>
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let charge = Arc::new(Charge {
            bytes: AtomicUsize::new(0),
            budget: self.budget.clone(),
        });
        let held = charge.clone();
        let answer = self
            .inner
            .call(request.map(|inner| Body::new(Counted::new(inner, charge))));
        Box::pin(async move {
            let answer = answer.await;
            drop(held);
            answer
        })
    }
}

/// What one request has taken of the budget.
struct Charge {
    bytes: AtomicUsize,
    budget: Budget,
}

impl Charge {
    /// False if there is no room; then nothing was taken.
    fn take(&self, bytes: usize) -> bool {
        let before = self.budget.in_work.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.max {
            self.budget.in_work.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Bytes that were taken before.
    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.in_work.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where in a stream of messages its bytes have come to.
#[derive(Default)]
struct Messages {
    /// Bytes that have come of the head, and the head.
    head: (usize, [u8; HEAD]),
    /// Bytes of the message that have not come, once its head has.
    left: usize,
    /// Bytes of whole messages, not given back yet.
    whole: usize,
    /// Bytes of the message that is arriving.
    part: usize,
}

impl Messages {
    fn came(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (come, head) = &mut self.head;
            let now = if *come < HEAD {
                let now = data.len().min(HEAD - *come);
                head[*come..*come + now].copy_from_slice(&data[..now]);
                *come += now;
                if *come == HEAD {
                    let [_, length @ ..] = *head;
                    self.left = u32::from_be_bytes(length) as usize;
                }
                now
            } else {
                let now = data.len().min(self.left);
                self.left -= now;
                now
            };
            self.part += now;
            data = &data[now..];
            if self.head.0 == HEAD && self.left == 0 {
                self.whole += std::mem::take(&mut self.part);
                self.head.0 = 0;
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.in_work.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

struct Counted {
    inner: Body,
    charge: Arc<Charge>,
    messages: Messages,
}

impl Counted {
    fn new(inner: Body, charge: Arc<Charge>) -> Self {
        let messages = Messages::default();
        Counted {
            inner,
            charge,
            messages,
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref(),
            _ => None,
        };
        let Some(data) = data else {
            return Poll::Ready(frame);
        };
        // Whoever asks for more has done with what came before.
        let done = std::mem::take(&mut self.messages.whole);
        self.charge.give_back(done);
        if self.charge.take(data.len()) {
            self.messages.came(data);
        } else {
            let message = "the requests in work take all the memory there is for them; try again later";
            return Poll::Ready(Some(Err(status(&Error::new(
                ErrorCode::Resources,
                "receive",
                "request",
                message,
            )))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn charges_are_given_back() {
        let budget = Budget::new(10);
        let charge = |bytes| {
            let charge = Charge {
                bytes: AtomicUsize::new(0),
                budget: budget.clone(),
            };
            charge.take(bytes).then_some(charge)
        };
        let first = charge(6).expect("room");
        assert!(charge(5).is_none(), "over the cap");
        let second = charge(4).expect("to the cap");
        assert!(!first.take(1), "full");
        drop(first);
        assert!(second.take(6));
        second.give_back(4);
        assert_eq!(budget.in_work.load(Ordering::Relaxed), 6);
        drop(second);
        assert_eq!(budget.in_work.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn messages_are_told_from_each_other() {
        let stream: Vec<u8> = [3_u8, 0, 200].iter().fold(Vec::new(), |mut stream, &length| {
            stream.extend([0, 0, 0, 0, length]);
            stream.extend(std::iter::repeat_n(7, length.into()));
            stream
        });
        for piece in [1, 2, 5, 9, stream.len()] {
            let mut messages = Messages::default();
            let mut ends = Vec::new();
            for data in stream.chunks(piece) {
                let before = messages.whole;
                messages.came(data);
                if messages.whole > before {
                    ends.push(messages.whole);
                }
            }
            assert_eq!((messages.whole, messages.part), (stream.len(), 0), "{piece}");
            assert!(ends.iter().all(|end| [8, 13, 218].contains(end)), "{piece}: {ends:?}");
        }
        let mut cut = Messages::default();
        cut.came(&stream[..10]);
        assert_eq!((cut.whole, cut.part), (8, 2));
    }

    struct Frames(std::vec::IntoIter<Bytes>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.next().map(|data| Ok(http_body::Frame::data(data))))
        }
    }

    /// How many frames pass, and whether all do.
    async fn passed(budget: &Budget, frames: Vec<Bytes>) -> (usize, bool) {
        let charge = Arc::new(Charge {
            bytes: AtomicUsize::new(0),
            budget: budget.clone(),
        });
        let mut body = Counted::new(Body::new(Frames(frames.into_iter())), charge);
        let mut passed = 0;
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => return (passed, true),
                Some(Ok(_)) => passed += 1,
                Some(Err(_)) => return (passed, false),
            }
        }
    }

    #[tokio::test]
    async fn a_stream_may_be_longer_than_the_cap_and_a_message_may_not() {
        let message = |length: u8| {
            let mut message = vec![0, 0, 0, 0, length];
            message.resize(HEAD + usize::from(length), 7);
            message
        };
        let budget = Budget::new(20);
        let stream: Vec<u8> = (0..100).flat_map(|_| message(10)).collect();
        let frames = |stream: &[u8]| stream.chunks(4).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        assert_eq!(passed(&budget, frames(&stream)).await, (375, true));
        assert_eq!(passed(&budget, frames(&message(30))).await, (5, false));
        assert_eq!(budget.in_work.load(Ordering::Relaxed), 0);
    }
}

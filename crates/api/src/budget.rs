//! A cap on the memory that requests in work may take, in place of caps on their number: ten thousand small requests are
//! welcome, a thousand of 16 MiB are not.
//!
//! Each request is charged the bytes of its body as they arrive and gives them back when it is answered or given up. A request that
//! would pass the cap is refused alone. Attach is not charged: its body is a stream whose messages are passed on at once.

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

const UNCHARGED: &str = "/berth.v1.Supervisor/Attach";

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
        if request.uri().path() == UNCHARGED {
            return Box::pin(self.inner.call(request));
        }
        let charge = Arc::new(Charge {
            bytes: AtomicUsize::new(0),
            budget: self.budget.clone(),
        });
        let held = charge.clone();
        let answer = self
            .inner
            .call(request.map(|inner| Body::new(Counted { inner, charge })));
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
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.in_work.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

struct Counted {
    inner: Body,
    charge: Arc<Charge>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.charge.take(data.len())
        {
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
        drop(second);
        assert_eq!(budget.in_work.load(Ordering::Relaxed), 0);
    }
}

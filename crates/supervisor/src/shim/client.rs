//! One connection to a shim: calls by stream id, and its events.
//!
//! Invariants: every call has a deadline. The greeting goes out together with the first call, so that it costs no round trip.
//! Events reach the container's task in the order of the wire and before the answer of any later call does. When the
//! connection ends, every call that waits fails with `Gone`, and the task hears it once.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use berth_wire::hello::{self, Verdict};
use berth_wire::rpc::{self, Method, Outcome};
use berth_wire::shim::{self as wire, Failure};
use berth_wire::ttrpc::{Decoder, Frame, Kind};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::deps::{BoxFuture, ShimProcess, Stream};

/// Frames that wait for a shim that does not read; a caller beyond waits with its deadline.
const QUEUE: usize = 64;
const BUFFER: usize = 4096;

/// Why a call to a shim failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the shim is gone ({0})")]
    Gone(Arc<str>),
    #[error("the shim did not answer {method} within {} ms", after.as_millis())]
    Timeout { method: &'static str, after: Duration },
    /// It answered with a failure.
    #[error("{message}")]
    Failed { message: String, failure: Failure },
    /// It was not sent.
    #[error("the parameters of {method} are too long: {reason}")]
    TooLong { method: &'static str, reason: String },
    #[error("the shim's answer to {method} makes no sense: {reason}")]
    Nonsense { method: &'static str, reason: String },
}

/// What a connection tells besides answers.
pub(crate) enum News {
    Event(wire::Event),
    Gone,
}

/// Where the news goes: the container's facts.
pub(crate) type Sink = Box<dyn Fn(News) -> BoxFuture<'static, ()> + Send + Sync>;

/// A live connection. Dropping the last handle closes it; the shim does not mind.
pub(crate) struct Client {
    process: Arc<ShimProcess>,
    frames: mpsc::Sender<Vec<u8>>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    last_stream: u32,
    waiting: BTreeMap<u32, oneshot::Sender<Frame>>,
    /// The stream of Events.
    events: u32,
    /// Why the connection ended.
    gone: Option<Arc<str>>,
}

/// A call that was sent.
pub(crate) struct Pending<R> {
    shared: Arc<Mutex<Shared>>,
    stream: u32,
    method: Method,
    answer: oneshot::Receiver<Frame>,
    response: PhantomData<fn() -> R>,
}

impl Client {
    /// Takes a fresh connection over. The greeting is sent now and checked before the first answer is believed.
    pub(crate) fn new(stream: Box<dyn Stream>, process: Arc<ShimProcess>, generation: u64, sink: Sink) -> Self {
        let (frames, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let client = Self {
            process: process.clone(),
            frames,
            shared: shared.clone(),
        };
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(stream);
            let why = tokio::select! {
                biased;
                why = write(writer, queue, generation) => why,
                why = read(reader, &shared, &sink) => why,
                () = process.ended() => "its process has ended".into(),
            };
            {
                let mut shared = lock(&shared);
                shared.gone = Some(why.into());
                shared.waiting.clear();
            }
            sink(News::Gone).await;
        });
        client
    }

    pub(crate) fn process(&self) -> &Arc<ShimProcess> {
        &self.process
    }

    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.shared).gone.is_some()
    }

    /// Returns when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.frames.closed().await;
    }

    /// Sends a call; the answer is awaited separately.
    pub(crate) async fn send<R>(&self, method: Method, message: &impl Message) -> Result<Pending<R>, CallError> {
        let (sender, answer) = oneshot::channel();
        let stream = {
            let mut shared = lock(&self.shared);
            if let Some(why) = &shared.gone {
                return Err(CallError::Gone(why.clone()));
            }
            // Odd and increasing; 2^31 calls are more than a container ever gets.
            shared.last_stream += if shared.last_stream == 0 { 1 } else { 2 };
            let stream = shared.last_stream;
            if method == Method::Events {
                shared.events = stream;
            }
            shared.waiting.insert(stream, sender);
            stream
        };
        let pending = Pending {
            shared: self.shared.clone(),
            stream,
            method,
            answer,
            response: PhantomData,
        };
        let frame = rpc::request(stream, method, message).map_err(|e| CallError::TooLong {
            method: method.name(),
            reason: e.to_string(),
        })?;
        match self.frames.send(frame).await {
            Ok(()) => Ok(pending),
            Err(_) => Err(CallError::Gone(gone(&self.shared))),
        }
    }

    pub(crate) async fn call<R: Message + Default>(
        &self,
        method: Method,
        message: &impl Message,
        deadline: Duration,
    ) -> Result<R, CallError> {
        let timeout = CallError::Timeout {
            method: method.name(),
            after: deadline,
        };
        tokio::time::timeout(deadline, async { self.send(method, message).await?.answer().await })
            .await
            .unwrap_or(Err(timeout))
    }

    /// From now on events come, those first that were never acknowledged.
    pub(crate) async fn subscribe(&self) -> Result<(), CallError> {
        // The stream has no answer: its DATA frames are the events.
        self.send::<()>(Method::Events, &wire::EventsRequest { after: 0 })
            .await
            .map(drop)
    }
}

impl<R: Message + Default> Pending<R> {
    pub(crate) async fn answer(mut self) -> Result<R, CallError> {
        let Ok(frame) = (&mut self.answer).await else {
            return Err(CallError::Gone(gone(&self.shared)));
        };
        let method = self.method.name();
        let nonsense = |e: rpc::CallError| CallError::Nonsense {
            method,
            reason: e.to_string(),
        };
        match rpc::parse_response(frame.body).map_err(nonsense)? {
            Outcome::Ok(payload) => rpc::parse(method, payload).map_err(nonsense),
            Outcome::Failed { message, failure } => Err(CallError::Failed { message, failure }),
        }
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        lock(&self.shared).waiting.remove(&self.stream);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Every change is one insert or remove.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone(shared: &Mutex<Shared>) -> Arc<str> {
    lock(shared)
        .gone
        .clone()
        .unwrap_or_else(|| "its connection was closed".into())
}

/// Greeting, then frames as they come. Answers why it ended.
async fn write(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>, generation: u64) -> String {
    let mut bytes = hello::Hello::daemon(generation).encode().to_vec();
    while let Some(frame) = queue.recv().await {
        bytes.extend_from_slice(&frame);
        while let Ok(more) = queue.try_recv() {
            bytes.extend_from_slice(&more);
        }
        if let Err(e) = to.write_all(&bytes).await {
            return format!("writing to it: {e}");
        }
        bytes.clear();
    }
    "its connection was closed".into()
}

/// Answers to their callers, events to the sink, in the order of the wire. Answers why it ended.
async fn read(mut from: impl AsyncRead + Unpin, shared: &Mutex<Shared>, sink: &Sink) -> String {
    let mut greeting = [0; hello::LEN];
    if let Err(e) = from.read_exact(&mut greeting).await {
        return format!("no greeting: {e}");
    }
    match hello::Answer::decode(&greeting) {
        Ok(answer) => match answer.verdict {
            Verdict::Ok => {}
            Verdict::Fenced => return "a newer daemon has it".into(),
            Verdict::Version => return format!("it speaks version {} at most", answer.max),
        },
        Err(e) => return e.to_string(),
    }
    let mut decoder = Decoder::new();
    loop {
        match read_into(&mut from, &mut decoder).await {
            Ok(0) => return "it closed its connection".into(),
            Ok(_) => {}
            Err(e) => return format!("reading from it: {e}"),
        }
        loop {
            match decoder.pop() {
                Ok(Some(frame)) => dispatch(frame, shared, sink).await,
                Ok(None) => break,
                Err(e) => return e.to_string(),
            }
        }
    }
}

/// Reads once. The buffer is there only while there is something to read: a thousand idle connections hold none.
async fn read_into(mut from: impl AsyncRead + Unpin, decoder: &mut Decoder) -> std::io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut buffer = [0; BUFFER];
        let mut read = ReadBuf::new(&mut buffer);
        std::task::ready!(Pin::new(&mut from).poll_read(context, &mut read))?;
        decoder.push(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

async fn dispatch(frame: Frame, shared: &Mutex<Shared>, sink: &Sink) {
    match frame.kind {
        Kind::Response => {
            // A caller that no longer waits is none.
            if let Some(caller) = lock(shared).waiting.remove(&frame.stream) {
                let _ = caller.send(frame);
            }
        }
        Kind::Data if frame.stream == lock(shared).events => match rpc::parse::<wire::Event>("event", frame.body) {
            Ok(event) => sink(News::Event(event)).await,
            Err(error) => tracing::warn!(%error, "an event of a shim is left out"),
        },
        Kind::Data | Kind::Request => {}
    }
}

//! The event stream: what every service publishes, what the supervisor tells, and who listens.
//!
//! Both come as one stream in their true order: what is published here remembers the number of the supervisor's newest event, and
//! a reader gets it behind that one. Invariants: nothing is dropped silently: a reader that is too slow for what is
//! published here is cut off with an error. An exit that nobody could have heard since the daemon started is given to the first
//! subscriber that it fits, as long as its task is there.

mod envelope;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use berth_core::{ContainerId, Cursor, EventKind, ExitStatus, Incarnation, Namespace};
use berth_supervisor::{Event, EventItem, EventQuery, Since, Supervisor};
use berth_wire::containerd::pack;
use berth_wire::containerd::services::events::v1::events_server as server;
use berth_wire::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use berth_wire::containerd::types::Envelope;
use prost::Name;
use tokio::sync::broadcast;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::filter::Filter;
use super::{Context, header, time};
use crate::status::status;
use crate::stream::{Gone, Sink, answers};

/// Published events that a reader may be behind.
const BEHIND: usize = 8192;
/// Different filters that are remembered for the exits that nobody heard.
const REMEMBERED: usize = 256;

/// Where services publish: after what they tell of is committed.
pub struct Bus {
    supervisor: Supervisor,
    published: broadcast::Sender<Arc<Published>>,
    /// Filters that a subscriber had since the daemon started.
    heard: Mutex<BTreeSet<Vec<String>>>,
}

struct Published {
    /// Number of the supervisor's newest event then.
    after: u64,
    envelope: Envelope,
}

impl Bus {
    pub fn new(supervisor: Supervisor) -> Self {
        Bus {
            supervisor,
            published: broadcast::Sender::new(BEHIND),
            heard: Mutex::default(),
        }
    }

    /// `topic` such as `/containers/create`; the payload's own name becomes its type URL.
    pub fn publish(&self, namespace: &Namespace, topic: &str, event: &impl Name) {
        self.put(Envelope {
            timestamp: Some(time::now()),
            namespace: namespace.to_string(),
            topic: topic.into(),
            event: Some(pack(event)),
        });
    }

    /// As it came from a client or a shim.
    pub fn forward(&self, envelope: Envelope) -> Result<(), Status> {
        check(&envelope)?;
        self.put(envelope);
        Ok(())
    }

    fn put(&self, envelope: Envelope) {
        let after = self.supervisor.event_head().number;
        // Nobody listens: nobody misses it.
        let _ = self.published.send(Arc::new(Published { after, envelope }));
    }

    /// The filters of those who listened before; the new one is among them from now on.
    fn heard_before(&self, filters: &[String]) -> Heard {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.iter().filter_map(|filters| Filter::parse(filters).ok()).collect();
        let full = heard.len() >= REMEMBERED;
        if !full {
            heard.insert(filters.to_vec());
        }
        Heard { before, all: full }
    }
}

struct Heard {
    before: Vec<Filter>,
    /// Too many to tell.
    all: bool,
}

impl Heard {
    fn has(&self, envelope: &Envelope) -> bool {
        self.all || self.before.iter().any(|filter| envelope::fits(envelope, filter))
    }
}

fn check(envelope: &Envelope) -> Result<(), Status> {
    let refuse = |what: String| Err(Status::invalid_argument(format!("{what}: invalid argument")));
    if let Err(error) = Namespace::new(&envelope.namespace) {
        return refuse(format!("envelope: {error}"));
    }
    if let Err(problem) = check_topic(&envelope.topic) {
        return refuse(format!("envelope topic {:?}: {problem}", envelope.topic));
    }
    match &envelope.timestamp {
        Some(time) if (time.seconds, time.nanos) != (0, 0) => Ok(()),
        _ => refuse("envelope: a timestamp is needed".into()),
    }
}

fn check_topic(topic: &str) -> Result<(), String> {
    let Some(parts) = topic.strip_prefix('/').filter(|parts| !parts.is_empty()) else {
        return Err("must begin with / and have a part".into());
    };
    // Parts follow the rule for ids.
    parts
        .split('/')
        .try_for_each(|part| ContainerId::new(part).map(drop).map_err(|e| e.to_string()))
}

pub struct Events(pub Context);

#[tonic::async_trait]
impl server::Events for Events {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let PublishRequest { topic, event } = request.into_inner();
        self.0.events.forward(Envelope {
            timestamp: Some(time::now()),
            namespace: namespace.to_string(),
            topic,
            event,
        })?;
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request.into_inner().envelope;
        let envelope = envelope.ok_or_else(|| Status::invalid_argument("an envelope is needed: invalid argument"))?;
        self.0.events.forward(envelope)?;
        Ok(Response::new(()))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<BoxStream<Envelope>>, Status> {
        let filters = request.into_inner().filters;
        let filter = Filter::parse(&filters).map_err(|e| Status::invalid_argument(format!("{e}: invalid argument")))?;
        let context = self.0.clone();
        // Before anything else: there is no word that the subscription stands.
        let published = context.events.published.subscribe();
        let opened = context.supervisor.opened_at();
        let head = context.supervisor.event_head();
        let heard = context.events.heard_before(&filters);
        let query = |since| EventQuery {
            namespace: None,
            since,
            id: None,
            history_only: false,
            kinds: Vec::new(),
        };
        let stream = match context.supervisor.events(query(Since::After(opened))).await {
            Ok(stream) => stream,
            // So much has happened that its beginning is gone, and with it what nobody heard.
            Err(_) => context
                .supervisor
                .events(query(Since::Now))
                .await
                .map_err(|error| status(&error))?,
        };
        let last = Status::unavailable("the daemon is ending");
        let answers = answers(context.ending.clone(), last, |sink| {
            let reader = Reader {
                context,
                filter,
                heard,
                head,
                seen: opened.number,
                exits: HashMap::new(),
                sink,
            };
            reader.run(stream, published)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

struct Reader {
    context: Context,
    filter: Filter,
    heard: Heard,
    /// What came up to here is only given out if nobody heard it.
    head: Cursor,
    /// Number of the newest event of the supervisor's that was dealt with.
    seen: u64,
    /// Of tasks that were not deleted yet, to be told again then.
    exits: HashMap<Incarnation, ExitStatus>,
    sink: Sink<Envelope>,
}

impl Reader {
    async fn run(
        mut self,
        mut stream: berth_supervisor::events::EventStream,
        mut published: broadcast::Receiver<Arc<Published>>,
    ) -> Result<(), Gone> {
        let mut next: Option<Arc<Published>> = None;
        loop {
            if let Some(ready) = next.take_if(|p| p.after <= self.seen) {
                self.give(ready.envelope.clone()).await?;
                continue;
            }
            tokio::select! {
                biased;
                item = published.recv(), if next.is_none() => match item {
                    Ok(item) => next = Some(item),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let message = format!("this reader is too slow: {missed} events were lost; subscribe again");
                        return self.sink.send(Err(Status::resource_exhausted(message))).await;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                item = stream.next() => match item {
                    Some(EventItem::Event(event)) => {
                        self.seen = event.cursor.number;
                        self.event(event).await?;
                    }
                    Some(EventItem::CaughtUp(cursor)) => self.seen = self.seen.max(cursor.number),
                    Some(EventItem::Lagged(_)) => {
                        let message = "this reader is too slow: events were lost; subscribe again";
                        return self.sink.send(Err(Status::resource_exhausted(message))).await;
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), Gone> {
        let what = &event.what;
        let is_exit = matches!(what.kind, EventKind::Exited | EventKind::ExecExited);
        if what.kind == EventKind::Exited
            && let Some(exit) = &what.exit
        {
            self.exits.insert(what.incarnation, exit.clone());
        }
        let exit = match what.kind {
            EventKind::Deleted => self.exits.remove(&what.incarnation),
            _ => what.exit.clone(),
        };
        let old = event.cursor.number <= self.head.number;
        if old && !is_exit {
            return Ok(());
        }
        if is_exit {
            // Who hears of an exit asks for the task next, and must not find it running.
            let exec = what.exec_id.as_ref();
            self.context
                .supervisor
                .shows_end(&what.key, what.incarnation, exec)
                .await;
        }
        let view = match what.kind {
            EventKind::Created => self.context.supervisor.look(&what.key).await.ok(),
            _ => None,
        };
        let Some(envelope) = envelope::of(what, exit, view.as_ref()) else {
            return Ok(());
        };
        if old {
            if self.heard.has(&envelope) || !envelope::fits(&envelope, &self.filter) {
                return Ok(());
            }
            let task = self.context.supervisor.look(&what.key).await;
            if !task.is_ok_and(|task| task.incarnation == what.incarnation) {
                return Ok(());
            }
        }
        self.give(envelope).await
    }

    async fn give(&self, envelope: Envelope) -> Result<(), Gone> {
        if envelope::fits(&envelope, &self.filter) {
            self.sink.send(Ok(envelope)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use prost_types::Any;

    use super::*;

    fn envelope(namespace: &str, topic: &str) -> Envelope {
        Envelope {
            timestamp: Some(time::now()),
            namespace: namespace.into(),
            topic: topic.into(),
            event: Some(Any::default()),
        }
    }

    #[test]
    fn envelopes_are_checked() {
        assert!(check(&envelope("moby", "/test")).is_ok());
        for wrong in ["", "/", "test", "/a//b", "/a/b c"] {
            assert!(check(&envelope("moby", wrong)).is_err(), "{wrong}");
        }
        assert!(check(&envelope("", "/test")).is_err());
        let mut timeless = envelope("moby", "/test");
        timeless.timestamp = None;
        assert!(check(&timeless).is_err());
    }
}

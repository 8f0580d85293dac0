//! Subscribers of containerd's events while containers start: do they hear everything, in order, and what does it cost the daemon?

use super::{Options, engines};
use crate::Common;
use crate::client::{self, Client};
use crate::error::{BenchError, Context, Result, ensure};
use crate::measure::{burst, memory_kib};
use crate::side::{Contestant, Lab, Side};
use crate::storm::progress;
use crate::table::{Table, number};
use berth_wire::containerd::events::{ContainerCreate, TaskCreate, TaskStart};
use berth_wire::containerd::services::events::v1::{SubscribeRequest, events_client::EventsClient};
use berth_wire::containerd::types::Envelope;
use berth_wire::containerd::unpack;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// For the last event to come, once everything has started.
const LATE: Duration = Duration::from_secs(30);
/// What a start tells, in this order.
const STEPS: [&str; 3] = ["/containers/create", "/tasks/create", "/tasks/start"];

#[derive(Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    who: Contestant,
    subscribers: usize,
    containers: usize,
    per_s: f64,
    /// Of all subscribers.
    events: usize,
    missing: usize,
    out_of_order: usize,
    daemon_rss_before_kib: u64,
    daemon_rss_after_kib: u64,
}

/// What one subscriber has heard.
#[derive(Default)]
struct Heard {
    /// How far each container has come.
    steps: HashMap<String, usize>,
    events: usize,
    out_of_order: usize,
    complete: usize,
}

impl Heard {
    fn hear(&mut self, envelope: Envelope) -> Result<()> {
        let Some(step) = STEPS.iter().position(|topic| *topic == envelope.topic) else {
            return Ok(());
        };
        let event = envelope.event.unwrap_or_default();
        let id = match step {
            0 => unpack::<ContainerCreate>(&event).map(|event| event.map(|event| event.id)),
            1 => unpack::<TaskCreate>(&event).map(|event| event.map(|event| event.container_id)),
            _ => unpack::<TaskStart>(&event).map(|event| event.map(|event| event.container_id)),
        };
        let id = id
            .and_then(Result::ok)
            .ok_or_else(|| BenchError::new("an event of another type"))?;
        let next = self.steps.entry(id).or_default();
        self.events += 1;
        self.out_of_order += usize::from(*next != step);
        *next = step + 1;
        self.complete += usize::from(step + 1 == STEPS.len());
        Ok(())
    }
}

pub async fn run(lab: &Lab, common: &Common, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for who in engines(common) {
        progress(&format!(
            "{} containers with {} subscribers: {who}",
            options.watched, options.subscribers
        ));
        let mut side = lab.side(who.side, &who.with).await?;
        side.as_containerd = true;
        rows.push(measure(&mut side, options, who.clone()).await.context(&who)?);
    }
    progress("");
    Ok(rows)
}

async fn measure(side: &mut Side, options: &Options, who: Contestant) -> Result<Row> {
    let client = side.start().await?.client;
    let before = memory_kib(side.daemon_pid(), "Rss:")?;
    let count = options.watched;
    let mut listeners = tokio::task::JoinSet::<Result<Heard>>::new();
    for _ in 0..options.subscribers {
        let mut events = EventsClient::new(client::connect(&side.socket).await?);
        let filters = vec!["topic~=\"^/(tasks|containers)/\"".to_owned()];
        let mut stream = events.subscribe(SubscribeRequest { filters }).await?.into_inner();
        listeners.spawn(async move {
            let mut heard = Heard::default();
            while heard.complete < count {
                // Without an end nobody could say what is missing.
                match tokio::time::timeout(LATE, stream.message()).await {
                    Ok(Ok(Some(envelope))) => heard.hear(envelope)?,
                    _ => break,
                }
            }
            Ok(heard)
        });
    }
    let bundles = (0..count).map(|index| side.bundle(&index.to_string(), &["sleep", "1000000"]));
    let bundles = Arc::new(bundles.collect::<Result<Vec<_>>>()?);
    let started = burst(count, options.in_flight, |index| {
        let (client, bundles): (Client, _) = (client.clone(), bundles.clone());
        async move { client.start(&bundles[index]).await.map(drop) }
    });
    let per_s = started.await?.rate();
    let (mut events, mut missing, mut out_of_order) = (0, 0, 0);
    while let Some(heard) = listeners.join_next().await {
        let heard = heard??;
        events += heard.events;
        missing += (count * STEPS.len()).saturating_sub(heard.events);
        out_of_order += heard.out_of_order;
    }
    let after = memory_kib(side.daemon_pid(), "Rss:")?;
    let removed = burst(count, options.in_flight, |index| {
        let client = client.clone();
        async move { client.remove(&index.to_string()).await }
    });
    removed.await?;
    side.stop().await?;
    ensure(events > 0, || "no subscriber heard anything".to_owned())?;
    Ok(Row {
        who,
        subscribers: options.subscribers,
        containers: count,
        per_s,
        events,
        missing,
        out_of_order,
        daemon_rss_before_kib: before,
        daemon_rss_after_kib: after,
    })
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "side",
        "subscribers",
        "containers",
        "starts/s",
        "events",
        "missing",
        "out of order",
        "daemon RSS MiB before",
        "after",
    ]);
    for row in rows {
        table.row([
            row.who.to_string(),
            row.subscribers.to_string(),
            row.containers.to_string(),
            number(row.per_s),
            row.events.to_string(),
            row.missing.to_string(),
            row.out_of_order.to_string(),
            number(row.daemon_rss_before_kib as f64 / 1024.0),
            number(row.daemon_rss_after_kib as f64 / 1024.0),
        ]);
    }
    table.text()
}

//! A reader of events who comes back with its cursor after every break, and must have seen all of them in order.

use std::sync::Arc;
use std::time::Duration;

use berth_e2e::Client;
use berth_e2e::v1::{Event, EventsRequest, events_response};
use tokio::sync::watch;
use tokio_stream::StreamExt;

use crate::ledger::Ledger;

/// Nobody tells when a daemon is back.
const RETRY: Duration = Duration::from_millis(20);

/// Numbers in the order in which they came, until the load has stopped.
pub async fn follow(mut client: Client, ledger: Arc<Ledger>, mut stopped: watch::Receiver<bool>) -> Vec<u64> {
    let mut since = "0".to_owned();
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let request = EventsRequest {
            namespace: "*".into(),
            since: since.clone(),
            ..EventsRequest::default()
        };
        let read = async {
            let mut stream = client.events(request).await?.into_inner();
            while let Some(answer) = stream.next().await {
                match answer?.item {
                    Some(events_response::Item::Event(event)) => {
                        since = event.cursor;
                        seen.push(event.number);
                    }
                    Some(events_response::Item::LaggedCursor(cursor)) => since = cursor,
                    Some(events_response::Item::CaughtUpCursor(_)) | None => {}
                }
            }
            Ok::<(), tonic::Status>(())
        };
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return seen,
            ended = read => {
                if let Err(status) = ended && status.code() == tonic::Code::OutOfRange {
                    ledger.wrong(format!("events since {since}: {}", status.message()));
                    return seen;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the reader saw is the beginning of the history, each number once.
pub fn compare(ledger: &Ledger, seen: &[u64], history: &[Event]) {
    let all: Vec<u64> = history.iter().map(|event| event.number).collect();
    if !all.starts_with(seen) {
        let place = seen
            .iter()
            .zip(&all)
            .position(|(a, b)| a != b)
            .unwrap_or(all.len().min(seen.len()));
        let around = |numbers: &[u64]| {
            let from = place.saturating_sub(3).min(numbers.len());
            format!("{:?}", &numbers[from..(place + 3).min(numbers.len())])
        };
        ledger.wrong(format!(
            "the reader saw {}, the history has {}",
            around(seen),
            around(&all)
        ));
    }
}

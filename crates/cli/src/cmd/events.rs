//! `berth events`. Every event has one number for ever: after a break the stream goes on behind the last cursor, and what comes
//! twice is dropped by its number.

use std::ops::ControlFlow;

use berth_wire::v1::{Event, EventKind, EventsRequest, EventsResponse, events_response::Item};
use clap::Args;
use tonic::{Code, Status};

use super::Context;
use crate::client::Stub;
use crate::error::{CliError, Result};
use crate::out::{Out, complain};
use crate::{human, json};

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this container
    #[arg(value_name = "ID", default_value = "", hide_default_value = true)]
    pub id: String,
    /// Begin behind this cursor, as printed with each event; 0 = all there is [default: now]
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub since: String,
    /// Print what is recorded, and end
    #[arg(long)]
    pub history: bool,
    /// Only events of this kind: created, started, exited, oom, ...; may be repeated
    #[arg(long, value_name = "KIND", value_parser = parse_kind)]
    pub kind: Vec<EventKind>,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

fn parse_kind(text: &str) -> Result<EventKind, String> {
    EventKind::from_str_name(&format!("EVENT_KIND_{}", text.to_uppercase()))
        .filter(|&kind| kind != EventKind::Unspecified)
        .ok_or_else(|| "expected created, started, exited, oom, exec_started, exec_exited, paused, resumed, updated, deleted or start_failed".into())
}

pub async fn events(context: &Context, args: EventsArgs) -> Result<u8> {
    let since = if args.history && args.since.is_empty() {
        "0".into()
    } else {
        args.since
    };
    let request = EventsRequest {
        namespace: if args.all_namespaces {
            "*".into()
        } else {
            context.namespace.clone()
        },
        since,
        id: args.id,
        history_only: args.history,
        kinds: args.kind.iter().map(|&kind| kind.into()).collect(),
    };
    let client = context.client().await?;
    let mut reader = Reader {
        out: context.out,
        request,
        last: None,
        lagged: false,
    };
    let mut patience = client.patience();
    loop {
        let request = reader.request.clone();
        let open = |mut stub: Stub, request| async move { stub.events(request).await };
        let result = client
            .stream("events", "", request, open, |request, response| {
                let flow = reader.take(response)?;
                request.since.clone_from(&reader.request.since);
                Ok(flow)
            })
            .await;
        match result {
            Ok(()) if reader.lagged => reader.lagged = false,
            Ok(()) if args.history => return Ok(0),
            // berthd ended the stream on its way down.
            Ok(()) => {
                client
                    .wait_or_fail(&mut patience, "events", "", Status::unavailable("the stream ended"))
                    .await?
            }
            Err(CliError::Refused {
                code: Code::OutOfRange,
                message,
                ..
            }) if reader.last.is_some() => {
                complain(&format!("some events are missing here: {message}"));
                reader.start_over();
            }
            Err(error) => return Err(error),
        }
    }
}

struct Reader {
    out: Out,
    request: EventsRequest,
    /// Epoch and number of the last event seen.
    last: Option<(String, u64)>,
    /// The stream was ended because we were too slow for it.
    lagged: bool,
}

impl Reader {
    fn take(&mut self, response: EventsResponse) -> Result<ControlFlow<()>> {
        match response.item {
            Some(Item::Event(event)) => self.event(&event)?,
            Some(Item::LaggedCursor(cursor)) => {
                self.request.since = cursor;
                self.lagged = true;
                return Ok(ControlFlow::Break(()));
            }
            Some(Item::CaughtUpCursor(cursor)) => {
                self.last.get_or_insert_with(|| (epoch(&cursor).to_owned(), 0));
                self.request.since = cursor;
            }
            None => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let epoch = epoch(&event.cursor);
        if self
            .last
            .as_ref()
            .is_some_and(|(last, number)| last == epoch && event.number <= *number)
        {
            return Ok(());
        }
        self.last = Some((epoch.to_owned(), event.number));
        self.request.since.clone_from(&event.cursor);
        if self.out.json {
            self.out.object(&json::event(event))
        } else {
            self.out.line(&text(event))
        }
    }

    /// The place we were at is gone: all there is now is new.
    fn start_over(&mut self) {
        self.request.since = "0".into();
        self.last = None;
    }
}

fn epoch(cursor: &str) -> &str {
    cursor.split_once(':').map_or("", |(epoch, _)| epoch)
}

/// "2026-…Z default/web exited pid=42 code=137 reason=oom cursor=5f:12"
fn text(event: &Event) -> String {
    let mut text = format!(
        "{} {}/{} {}",
        human::rfc3339(event.at).unwrap_or_else(|| "-".into()),
        event.namespace,
        event.id,
        json::kind(event.kind())
    );
    if !event.exec_id.is_empty() {
        text += &format!(" exec={}", event.exec_id);
    }
    if event.pid != 0 {
        text += &format!(" pid={}", event.pid);
    }
    if let Some(exit) = &event.exit {
        text += &format!(" code={} reason={}", exit.code, json::reason(exit.reason()));
    }
    if let Some(total) = event.stages.iter().find(|stage| stage.name == "total") {
        text += &format!(" took={:.1}ms", total.duration_us as f64 / 1000.0);
    }
    if !event.message.is_empty() {
        text += &format!(" message={:?}", event.message);
    }
    text + &format!(" cursor={}", event.cursor)
}

#[cfg(test)]
mod test {
    use super::*;
    use berth_wire::v1::{ExitReason, ExitStatus};

    fn event(number: u64) -> Event {
        Event {
            cursor: format!("e1:{number}"),
            number,
            namespace: "default".into(),
            id: "web".into(),
            kind: EventKind::Exited as i32,
            ..Default::default()
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let exited = Event {
            at: 1_500_000_000,
            pid: 42,
            exit: Some(ExitStatus {
                code: 137,
                signal: 9,
                reason: ExitReason::Oom as i32,
                ..Default::default()
            }),
            ..event(3)
        };
        assert_eq!(
            text(&exited),
            "1970-01-01T00:00:01.500000000Z default/web exited pid=42 code=137 reason=oom cursor=e1:3"
        );
    }

    #[test]
    fn the_place_is_kept_and_repeats_are_dropped() {
        let mut reader = Reader {
            out: Out { json: true },
            request: EventsRequest::default(),
            last: None,
            lagged: false,
        };
        let take = |reader: &mut Reader, item| reader.take(EventsResponse { item: Some(item) }).expect("stdout");
        assert!(take(&mut reader, Item::CaughtUpCursor("e1:1".into())).is_continue());
        assert_eq!(reader.request.since, "e1:1");
        assert!(take(&mut reader, Item::Event(event(2))).is_continue());
        assert!(take(&mut reader, Item::Event(event(1))).is_continue());
        assert_eq!(
            (reader.request.since.as_str(), reader.last.clone()),
            ("e1:2", Some(("e1".into(), 2)))
        );
        assert!(take(&mut reader, Item::LaggedCursor("e1:9".into())).is_break());
        assert_eq!(reader.request.since, "e1:9");
        reader.start_over();
        assert_eq!((reader.request.since.as_str(), reader.last), ("0", None));
    }

    #[test]
    fn kinds_are_read() {
        assert_eq!(parse_kind("exec_exited"), Ok(EventKind::ExecExited));
        assert!(parse_kind("unspecified").is_err() && parse_kind("x").is_err());
    }
}

//! `berth events`.

use berth_client::Happened;
use berth_wire::v1::{Event, EventKind, EventsRequest};
use clap::Args;

use super::Context;
use crate::complete;
use crate::error::Result;
use crate::out::complain;
use crate::{human, json};

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this container
    #[arg(value_name = "ID", add = complete::ids(), default_value = "", hide_default_value = true)]
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
    let mut events = context.client().await?.events(request);
    while let Some(happened) = events.next().await? {
        match happened {
            Happened::Event(event) if context.out.json => context.out.object(&json::event(&event))?,
            Happened::Event(event) => context.out.line(&text(&event))?,
            Happened::CaughtUp => {}
            Happened::Missed(message) => complain(&format!("some events are missing here: {message}")),
        }
    }
    Ok(0)
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
    fn kinds_are_read() {
        assert_eq!(parse_kind("exec_exited"), Ok(EventKind::ExecExited));
        assert!(parse_kind("unspecified").is_err() && parse_kind("x").is_err());
    }
}

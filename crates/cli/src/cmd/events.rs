//! `berth events`.

use std::time::SystemTime;

use berth_client::Happened;
use berth_wire::v1::{Event, EventKind, EventsRequest};
use clap::Args;

use super::Context;
use crate::complete;
use crate::error::{CliError, Result};
use crate::out::complain;
use crate::{human, json};

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this container
    #[arg(value_name = "ID", add = complete::ids(), default_value = "", hide_default_value = true)]
    pub id: String,
    /// From 1h ago, from a time (2026-01-31T12:00:00Z or seconds since 1970), or behind a cursor as printed with each event; 0 = all there is [default: now]
    #[arg(long, value_name = "TIME|CURSOR", default_value = "", hide_default_value = true)]
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

/// Where to begin: the API's cursor, and the first time that is shown.
fn begin(since: &str, now: SystemTime) -> Result<(String, i64), String> {
    let is_cursor = |text: &str| {
        text.split_once(':').is_some_and(|(epoch, number)| {
            let all = |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(is);
            all(epoch, u8::is_ascii_hexdigit) && all(number, u8::is_ascii_digit)
        })
    };
    if matches!(since, "" | "0") || is_cursor(since) {
        return Ok((since.to_owned(), 0));
    }
    let time =
        human::parse_time(since, now).map_err(|error| format!("{error}; or a cursor, as printed with each event"))?;
    Ok(("0".into(), time))
}

pub async fn events(context: &Context, args: EventsArgs) -> Result<u8> {
    let since = if args.history && args.since.is_empty() {
        "0"
    } else {
        &args.since
    };
    let (since, from) =
        begin(since, SystemTime::now()).map_err(|error| CliError::Usage(format!("--since {since}: {error}")))?;
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
            Happened::Event(event) if event.at < from => {}
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
    fn since_is_a_time_or_a_cursor() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        for cursor in ["", "0", "5f00:12"] {
            assert_eq!(begin(cursor, now), Ok((cursor.to_owned(), 0)));
        }
        for (time, nanos) in [
            ("1h", 1_699_996_400_000_000_000),
            ("1600000000", 1_600_000_000_000_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ] {
            assert_eq!(begin(time, now), Ok(("0".to_owned(), nanos)), "{time}");
        }
        for wrong in ["5", "yesterday", "x:1", ":"] {
            assert!(begin(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_read() {
        assert_eq!(parse_kind("exec_exited"), Ok(EventKind::ExecExited));
        assert!(parse_kind("unspecified").is_err() && parse_kind("x").is_err());
    }
}

//! `berth ps`.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use berth_client::{Client, Happened};
use berth_wire::v1::{Container, ContainerState, EventsRequest, ExitReason, ListRequest};
use clap::Args;
use serde_json::Value;

use super::Context;
use crate::error::Result;
use crate::out::REDRAW;
use crate::{human, json};

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that have ended
    #[arg(long, short)]
    pub all: bool,
    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,
    /// label=KEY, label=KEY=VALUE, state=STATE or id=BEGINNING; may be repeated, all must hold
    #[arg(long, short, value_name = "FILTER", value_parser = Filter::parse)]
    pub filter: Vec<Filter>,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Stay, and show them anew whenever something happens
    #[arg(long, short, conflicts_with = "quiet")]
    pub watch: bool,
}

/// Ages grow without an event.
const REFRESH: Duration = Duration::from_secs(5);
/// A storm of events is shown as often as a person can read.
const CALM: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Label(String, Option<String>),
    State(String),
    Id(String),
}

impl Filter {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("label", label)) => Ok(match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            }),
            Some(("state" | "status", state)) => {
                // Docker's word for it.
                let state = if state == "exited" { "stopped" } else { state };
                let name = format!("CONTAINER_STATE_{}", state.to_uppercase());
                ContainerState::from_str_name(&name)
                    .map(|_| Self::State(state.to_lowercase()))
                    .ok_or_else(|| {
                        format!(
                            "unknown state {state:?}: expected queued, creating, created, starting, running, paused, stopped, restarting or deleting"
                        )
                    })
            }
            Some(("id", beginning)) => Ok(Self::Id(beginning.to_owned())),
            _ => Err("expected label=KEY, label=KEY=VALUE, state=STATE or id=BEGINNING".into()),
        }
    }

    pub fn holds(&self, container: &Container) -> bool {
        match self {
            Self::Label(key, None) => container.labels.contains_key(key),
            Self::Label(key, Some(value)) => container.labels.get(key) == Some(value),
            Self::State(state) => json::state(container.state()) == *state,
            Self::Id(beginning) => container.id.starts_with(beginning),
        }
    }
}

pub async fn ps(context: &Context, args: PsArgs) -> Result<u8> {
    let client = context.client().await?;
    if !args.watch {
        show(context, &args, &list(context, &client, &args).await?)?;
        return Ok(0);
    }
    let mut events = client.events(EventsRequest {
        namespace: namespace(context, &args),
        ..Default::default()
    });
    // Nothing that happens after the first list may be missed: the subscription stands before it.
    while !matches!(events.next().await?, Some(Happened::CaughtUp)) {}
    loop {
        let containers = list(context, &client, &args).await?;
        if !context.out.json && std::io::stdout().is_terminal() {
            context.out.bytes(REDRAW)?;
        }
        show(context, &args, &containers)?;
        if let Ok(happened) = tokio::time::timeout(REFRESH, events.next()).await {
            happened?;
            // A burst is shown as one: only the clock tells that it is over.
            let calm = tokio::time::sleep(CALM);
            tokio::pin!(calm);
            loop {
                tokio::select! {
                    () = &mut calm => break,
                    happened = events.next() => drop(happened?),
                }
            }
        }
    }
}

fn namespace(context: &Context, args: &PsArgs) -> String {
    if args.all_namespaces {
        "*".to_owned()
    } else {
        context.namespace.clone()
    }
}

async fn list(context: &Context, client: &Client, args: &PsArgs) -> Result<Vec<Container>> {
    // Exact labels are sorted out by berthd, the rest here.
    let labels: HashMap<_, _> = args
        .filter
        .iter()
        .filter_map(|filter| match filter {
            Filter::Label(key, Some(value)) => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect();
    let request = ListRequest {
        namespace: namespace(context, args),
        labels,
        processes: false,
        ..Default::default()
    };
    let mut containers = client.list(request).await?;
    let asks_state = args.filter.iter().any(|filter| matches!(filter, Filter::State(_)));
    containers.retain(|container| {
        (args.all || asks_state || container.state() != ContainerState::Stopped)
            && args.filter.iter().all(|filter| filter.holds(container))
    });
    Ok(containers)
}

fn show(context: &Context, args: &PsArgs, containers: &[Container]) -> Result<()> {
    if args.quiet {
        for container in containers {
            context.out.line(&container.id)?;
        }
        Ok(())
    } else if context.out.json {
        let document = containers.iter().map(json::container).collect::<Value>();
        // Of a watch each is one line.
        if args.watch {
            context.out.object(&document)
        } else {
            context.out.document(&document)
        }
    } else {
        let (header, rows) = table(containers, args.all_namespaces, SystemTime::now());
        context.out.table(&header, rows)
    }
}

fn table(containers: &[Container], with_namespace: bool, now: SystemTime) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut header = vec!["ID", "STATUS", "PID", "CREATED", "RUNTIME", "BUNDLE"];
    if with_namespace {
        header.insert(0, "NAMESPACE");
    }
    let row = |container: &Container| {
        let mut row = vec![
            container.id.clone(),
            status(container, now),
            if container.pid == 0 {
                "-".into()
            } else {
                container.pid.to_string()
            },
            format!("{} ago", human::age_of(container.created_at, now)),
            container.runtime.clone(),
            container.bundle.clone(),
        ];
        if with_namespace {
            row.insert(0, container.namespace.clone());
        }
        row
    };
    (header, containers.iter().map(row).collect())
}

/// "running 3 minutes", "exited (1) 2 hours ago".
fn status(container: &Container, now: SystemTime) -> String {
    let state = container.state();
    match (state, &container.exit) {
        (ContainerState::Running, _) => format!("running {}", human::age_of(container.started_at, now)),
        (ContainerState::Paused, _) => format!("paused, running {}", human::age_of(container.started_at, now)),
        (ContainerState::Stopped, Some(exit)) => {
            let ago = human::age_of(exit.exited_at, now);
            match exit.reason() {
                ExitReason::StartFailed => format!("never started, {ago} ago"),
                ExitReason::Oom => format!("out of memory ({}) {ago} ago", exit.code),
                ExitReason::Lost => format!("lost {ago} ago"),
                ExitReason::Reboot => "ended by a reboot".into(),
                ExitReason::Unspecified | ExitReason::Exited | ExitReason::Signaled => {
                    format!("exited ({}) {ago} ago", exit.code)
                }
            }
        }
        (ContainerState::Restarting, Some(exit)) => {
            format!("restarting ({}) {} ago", exit.code, human::age_of(exit.exited_at, now))
        }
        _ => json::state(state),
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use berth_wire::v1::ExitStatus;
    use std::time::{Duration, UNIX_EPOCH};

    const SECOND: i64 = 1_000_000_000;

    fn sample() -> Vec<Container> {
        let running = Container {
            namespace: "default".into(),
            id: "web".into(),
            state: ContainerState::Running as i32,
            pid: 42,
            created_at: 80 * SECOND,
            started_at: 81 * SECOND,
            runtime: "runc".into(),
            bundle: "/srv/web".into(),
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            ..Default::default()
        };
        let ended = Container {
            namespace: "jobs".into(),
            id: "job-7".into(),
            state: ContainerState::Stopped as i32,
            created_at: 20 * SECOND,
            exit: Some(ExitStatus {
                code: 3,
                reason: ExitReason::Exited as i32,
                exited_at: 140 * SECOND,
                ..Default::default()
            }),
            runtime: "crun".into(),
            bundle: "/srv/job".into(),
            ..Default::default()
        };
        vec![running, ended]
    }

    #[test]
    fn containers_are_tabled() {
        let (header, rows) = table(&sample(), true, UNIX_EPOCH + Duration::from_secs(200));
        assert_eq!(
            crate::out::render(&header, rows, None),
            "NAMESPACE  ID     STATUS               PID  CREATED        RUNTIME  BUNDLE\n\
             default    web    running 1 minute     42   2 minutes ago  runc     /srv/web\n\
             jobs       job-7  exited (3) 1 minute ago  -    3 minutes ago  crun     /srv/job"
                .replace("STATUS               PID", "STATUS                   PID")
                .replace("running 1 minute     42", "running 1 minute         42")
        );
    }

    #[test]
    fn filters_are_read_and_hold() {
        let containers = sample();
        for (text, found) in [
            ("label=tier", true),
            ("label=tier=front", true),
            ("label=tier=back", false),
            ("state=running", true),
            ("id=we", true),
            ("id=job", false),
        ] {
            assert_eq!(Filter::parse(text).expect(text).holds(&containers[0]), found, "{text}");
        }
        for text in ["tier", "colour=red", "state=happy"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}

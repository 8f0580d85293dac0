//! `berth prune`: removes all that has ended. Asks first, as what is removed has logs and exit codes that nobody may have read.

use std::io::{self, BufRead as _};
use std::time::{Duration, SystemTime};

use berth_client::Client;
use berth_wire::v1::{Container, ContainerState, DeleteRequest, ListRequest};
use clap::Args;
use serde_json::json;

use super::ps::Filter;
use super::{AsyncOne, Context, Done, each};
use crate::error::{CliError, Result};
use crate::out::complain;
use crate::{human, json, term};

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
    /// Only those that ended at least this long ago: 10m, 24h
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    pub ended: Option<Duration>,
    /// label=KEY, label=KEY=VALUE or id=BEGINNING; may be repeated, all must hold
    #[arg(long, short = 'F', value_name = "FILTER", value_parser = Filter::parse)]
    pub filter: Vec<Filter>,
}

pub async fn prune(context: &Context, args: PruneArgs) -> Result<u8> {
    let client = context.client().await?;
    let now = SystemTime::now();
    let mut ended = client.list(ListRequest::default()).await?;
    ended.retain(|container| {
        has_ended(container, args.ended, now) && args.filter.iter().all(|filter| filter.holds(container))
    });
    if ended.is_empty() {
        return Ok(0);
    }
    if !args.force && !asked(ended.len())? {
        return Ok(1);
    }
    let ids = ended.into_iter().map(|container| container.id).collect();
    each(context, &client, ids, Prune).await
}

#[derive(Clone)]
struct Prune;

impl AsyncOne for Prune {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        // Not by force: what somebody started again meanwhile stays.
        let request = DeleteRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let answer = client.delete(request).await?;
        let fields = json!({ "exit": json::maybe_exit(answer.exit.as_ref()), "pending": answer.pending, "message": answer.message });
        Ok(Done {
            line: id.to_owned(),
            fields,
        })
    }
}

fn has_ended(container: &Container, at_least: Option<Duration>, now: SystemTime) -> bool {
    if container.state() != ContainerState::Stopped {
        return false;
    }
    let Some(at_least) = at_least else { return true };
    let ended = container.exit.as_ref().and_then(|exit| human::time(exit.exited_at));
    ended.is_some_and(|ended| now.duration_since(ended).is_ok_and(|ago| ago >= at_least))
}

fn asked(count: usize) -> Result<bool> {
    if !term::stdin_is_terminal() {
        return Err(CliError::Usage(
            "prune asks before it removes: give --force where nobody can answer".into(),
        ));
    }
    complain(&format!(
        "removes {count} ended containers with their logs; go on? [y/N]"
    ));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod test {
    use super::*;
    use berth_wire::v1::ExitStatus;
    use std::time::UNIX_EPOCH;

    #[test]
    fn only_what_has_ended_long_enough_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let mut container = Container {
            state: ContainerState::Stopped as i32,
            exit: Some(ExitStatus {
                exited_at: 900_000_000_000,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(has_ended(&container, None, now));
        assert!(has_ended(&container, Some(Duration::from_secs(100)), now));
        assert!(!has_ended(&container, Some(Duration::from_secs(101)), now));
        container.state = ContainerState::Running as i32;
        assert!(!has_ended(&container, None, now));
    }
}

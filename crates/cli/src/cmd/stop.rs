//! `berth stop`.

use berth_wire::v1::StopRequest;
use clap::Args;
use serde_json::json;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use crate::{human, json};
use berth_client::{Client, random_id};

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// How long to wait before SIGKILL [default: the container's own]
    #[arg(long, short, value_name = "TIME", value_parser = human::parse_timeout)]
    pub timeout: Option<u32>,
    /// Signal to send first [default: the container's own]
    #[arg(long, short, value_name = "SIGNAL", default_value = "", hide_default_value = true)]
    pub signal: String,
}

#[derive(Clone)]
struct Stop {
    timeout: Option<u32>,
    signal: String,
}

impl AsyncOne for Stop {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = StopRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            timeout_ms: self.timeout,
            signal: self.signal.clone(),
            request_id: random_id(),
        };
        let response = client.stop(request).await?;
        Ok(Done {
            line: id.to_owned(),
            fields: json!({ "exit": json::maybe_exit(response.exit.as_ref()) }),
        })
    }
}

pub async fn stop(context: &Context, args: StopArgs) -> Result<u8> {
    each(
        context,
        &context.client().await?,
        args.ids,
        Stop {
            timeout: args.timeout,
            signal: args.signal,
        },
    )
    .await
}

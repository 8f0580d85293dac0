//! `berth start`.

use berth_wire::v1::StartRequest;
use clap::Args;
use serde_json::json;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct StartArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
}

#[derive(Clone)]
struct Start;

impl AsyncOne for Start {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = StartRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            request_id: random_id(),
        };
        let response = client.start(request).await?;
        Ok(Done {
            line: id.to_owned(),
            fields: json!({ "pid": response.pid }),
        })
    }
}

pub async fn start(context: &Context, args: StartArgs) -> Result<u8> {
    each(context, &context.client().await?, args.ids, Start).await
}

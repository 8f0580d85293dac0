//! `berth pause` and `berth unpause`.

use berth_wire::v1::{PauseRequest, ResumeRequest};
use clap::Args;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct PauseArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
}

#[derive(Clone)]
struct Pause;

impl AsyncOne for Pause {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = PauseRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            request_id: random_id(),
        };
        client.pause(request).await?;
        Ok(Done::id(id))
    }
}

#[derive(Clone)]
struct Unpause;

impl AsyncOne for Unpause {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = ResumeRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            request_id: random_id(),
        };
        client.resume(request).await?;
        Ok(Done::id(id))
    }
}

pub async fn pause(context: &Context, args: PauseArgs) -> Result<u8> {
    each(context, &context.client().await?, args.ids, Pause).await
}

pub async fn unpause(context: &Context, args: PauseArgs) -> Result<u8> {
    each(context, &context.client().await?, args.ids, Unpause).await
}

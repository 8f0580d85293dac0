//! `berth rm`. The API's Delete succeeds for what is gone; a person who mistyped wants to know, so that only `--force` does here.

use berth_wire::v1::{DeleteRequest, GetRequest};
use clap::Args;
use serde_json::json;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use crate::json;
use crate::out::complain;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct RmArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// Kill it first if it still runs; no error if it is not there
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Clone)]
struct Remove {
    force: bool,
    is_json: bool,
}

impl AsyncOne for Remove {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        if !self.force {
            let request = GetRequest {
                namespace: client.namespace.clone(),
                id: id.to_owned(),
                processes: false,
            };
            client
                .call(
                    "rm",
                    id,
                    request,
                    |mut stub, request| async move { stub.get(request).await },
                )
                .await?;
        }
        let request = DeleteRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            exec_id: String::new(),
            force: self.force,
            request_id: random_id(),
        };
        let response = client.delete(request).await?;
        if response.pending && !self.is_json {
            complain(&format!(
                "{id} is gone, but berthd still works on what could not be removed yet: {}",
                response.message
            ));
        }
        let fields = json!({ "exit": json::maybe_exit(response.exit.as_ref()), "pending": response.pending, "message": response.message });
        Ok(Done {
            line: id.to_owned(),
            fields,
        })
    }
}

pub async fn rm(context: &Context, args: RmArgs) -> Result<u8> {
    each(
        context,
        &context.client().await?,
        args.ids,
        Remove {
            force: args.force,
            is_json: context.out.json,
        },
    )
    .await
}

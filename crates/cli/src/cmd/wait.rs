//! `berth wait`. Survives a restart of berthd: a Wait is a question that may be asked again.

use berth_wire::v1::WaitRequest;
use clap::Args;
use serde_json::json;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use crate::json;
use berth_client::Client;

#[derive(Debug, Args)]
pub struct WaitArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// One of its execs instead of its first process
    #[arg(long, value_name = "EXEC_ID", default_value = "", hide_default_value = true)]
    pub exec: String,
}

#[derive(Clone)]
struct Wait {
    exec: String,
    /// With several, each code is told with its id.
    names: bool,
}

impl AsyncOne for Wait {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = WaitRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            exec_id: self.exec.clone(),
        };
        let response = client.wait(request).await?;
        let exit = response.exit.unwrap_or_default();
        let line = if self.names {
            format!("{id} {}", exit.code)
        } else {
            exit.code.to_string()
        };
        Ok(Done {
            line,
            fields: json!({ "exec_id": self.exec, "exit": json::exit(&exit) }),
        })
    }
}

pub async fn wait(context: &Context, args: WaitArgs) -> Result<u8> {
    let names = args.ids.len() > 1;
    each(
        context,
        &context.client().await?,
        args.ids,
        Wait { exec: args.exec, names },
    )
    .await
}

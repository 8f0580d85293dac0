//! `berth kill`.

use berth_wire::v1::SignalRequest;
use clap::Args;

use super::{AsyncOne, Context, Done, each};
use crate::complete;
use crate::error::Result;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct KillArgs {
    #[arg(required = true, value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// Name or number of the signal
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    /// To every process of the container
    #[arg(long, short, conflicts_with = "exec")]
    pub all: bool,
    /// To one of its execs
    #[arg(long, value_name = "EXEC_ID", default_value = "", hide_default_value = true)]
    pub exec: String,
}

#[derive(Clone)]
struct Kill {
    signal: String,
    all: bool,
    exec: String,
}

impl AsyncOne for Kill {
    async fn one(&self, client: &Client, id: &str) -> Result<Done> {
        let request = SignalRequest {
            namespace: client.namespace.clone(),
            id: id.to_owned(),
            exec_id: self.exec.clone(),
            signal: self.signal.clone(),
            all: self.all,
            request_id: random_id(),
        };
        client.signal(request).await?;
        Ok(Done::id(id))
    }
}

pub async fn kill(context: &Context, args: KillArgs) -> Result<u8> {
    each(
        context,
        &context.client().await?,
        args.ids,
        Kill {
            signal: args.signal,
            all: args.all,
            exec: args.exec,
        },
    )
    .await
}

//! `berth attach`: comes to a process that runs already.

use clap::Args;

use super::{Context, run};
use crate::complete;
use crate::error::Result;
use crate::session::{self, Signals, Target};
use crate::term::{self, DetachKeys};

#[derive(Debug, Args)]
pub struct AttachArgs {
    #[arg(value_name = "ID", add = complete::ids())]
    pub id: String,
    /// One of its execs instead of its first process
    #[arg(long, value_name = "EXEC_ID", default_value = "", hide_default_value = true)]
    pub exec: String,
    /// Do not connect standard input
    #[arg(long)]
    pub no_stdin: bool,
    /// Signals end this command instead of reaching the process
    #[arg(long)]
    pub no_signals: bool,
    /// Begin at this byte of its output; 0 = as far back as berthd can [default: now]
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Keys that leave it running, with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    pub detach_keys: DetachKeys,
}

pub async fn attach(context: &Context, args: AttachArgs) -> Result<u8> {
    let target = Target {
        client: context.client().await?,
        id: args.id.clone(),
        exec_id: args.exec,
        offset: args.from,
        // Nobody means to close the process's input by having none.
        stdin: !args.no_stdin && !term::stdin_is_null(),
        detach_keys: args.detach_keys,
        proxy_signals: !args.no_signals,
    };
    let end = session::run(target, Signals::catch()?).await?;
    run::conclude(&args.id, end)
}

//! `berth exec`: one more process in a running container; its exit code is ours.

use berth_wire::v1::{ExecRequest, ExecResponse, Stdio, StdioLog, StdioNull, stdio::To};
use clap::Args;
use serde_json::json;

use super::{Context, create, run};
use crate::complete;
use crate::error::Result;
use crate::session::fifo::{self, Fifos};
use crate::session::{self, End, Signals, Target};
use crate::term::DetachKeys;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Connect standard input
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(long = "tty", short = 't')]
    pub terminal: bool,
    /// Do not stay with it; print its exec id
    #[arg(long, short, conflicts_with = "interactive")]
    pub detach: bool,
    /// NAME=VALUE, may be repeated; NAME alone takes this shell's value
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// "uid", "uid:gid", or names of the container's /etc/passwd
    #[arg(long, short, value_name = "USER", default_value = "", hide_default_value = true)]
    pub user: String,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub workdir: String,
    /// Id of the new process; made up if not given
    #[arg(long, value_name = "ID", add = complete::ids(), default_value = "", hide_default_value = true)]
    pub exec_id: String,
    /// Keys that leave it running, with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    pub detach_keys: DetachKeys,
    #[arg(value_name = "ID", add = complete::ids())]
    pub id: String,
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

pub async fn exec(context: &Context, args: ExecArgs) -> Result<u8> {
    let client = context.client().await?;
    let kept = || {
        create::stdio(
            StdioLog {
                stdin: args.interactive,
                discard: true,
                ..Default::default()
            },
            args.terminal,
        )
    };
    let mut request = ExecRequest {
        namespace: context.namespace.clone(),
        id: args.id.clone(),
        exec_id: if args.exec_id.is_empty() {
            random_id()[..12].to_owned()
        } else {
            args.exec_id
        },
        args: args.command,
        env: environment(args.env),
        cwd: args.workdir,
        user: args.user,
        stdio: Some(kept()),
        request_id: random_id(),
        ..Default::default()
    };
    let exec_id = request.exec_id.clone();
    if args.detach {
        request.stdio = Some(Stdio {
            to: Some(To::Null(StdioNull {})),
            terminal: args.terminal,
            ..Default::default()
        });
        let response = start(&client, request).await?;
        if context.out.json {
            context.out.object(
                &json!({ "namespace": context.namespace, "id": args.id, "exec_id": exec_id, "pid": response.pid }),
            )?;
        } else {
            context.out.line(&exec_id)?;
        }
        return Ok(0);
    }
    let mut signals = Signals::catch()?;
    // Without a terminal the bytes go through pipes of ours; if none can be made, through berthd.
    let pipes = if args.terminal {
        None
    } else {
        Fifos::make(args.interactive).ok()
    };
    if let Some(pipes) = &pipes {
        request.stdio = Some(pipes.stdio());
    }
    let started = async {
        match (start(&client, request.clone()).await, pipes) {
            (Ok(_), pipes) => Ok(pipes),
            (Err(error), Some(pipes)) if pipes.is_blamed(&error) => {
                request.stdio = Some(kept());
                request.request_id = random_id();
                start(&client, request).await.map(|_| None)
            }
            (Err(error), _) => Err(error),
        }
    };
    let pipes = tokio::select! {
        biased;
        result = started => result?,
        signal = signals.next_ending() => return run::conclude(&args.id, End::Signalled(signal)),
    };
    let target = Target {
        client: client.clone(),
        id: args.id.clone(),
        exec_id: exec_id.clone(),
        offset: Some(0),
        stdin: args.interactive,
        detach_keys: args.detach_keys,
        proxy_signals: true,
    };
    let end = match pipes {
        Some(pipes) => fifo::run(target, pipes, signals).await,
        None => session::run(target, signals).await,
    };
    if let Ok(End::Exited(_)) = end {
        run::remove(&client, &args.id, &exec_id).await;
    }
    run::conclude(&args.id, end?)
}

async fn start(client: &Client, request: ExecRequest) -> Result<ExecResponse> {
    Ok(client.exec(request).await?)
}

/// A name without a value is looked up here, and left out where it is not set.
fn environment(given: Vec<String>) -> Vec<String> {
    let look_up = |entry: String| {
        if entry.contains('=') {
            Some(entry)
        } else {
            std::env::var(&entry).ok().map(|value| format!("{entry}={value}"))
        }
    };
    given.into_iter().filter_map(look_up).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_alone_take_our_value() {
        let path = std::env::var("PATH").expect("a PATH");
        assert_eq!(
            environment(vec!["A=".into(), "PATH".into(), "BERTH_NOT_SET".into()]),
            ["A=".to_owned(), format!("PATH={path}")]
        );
    }
}

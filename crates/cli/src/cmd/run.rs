//! `berth run`: starts a container and, unless detached, stays with it and takes over its exit code.

use berth_wire::v1::{DeleteRequest, ExitReason, ExitStatus, RunRequest};
use clap::Args;
use serde_json::json;

use super::Context;
use super::create::CreateArgs;
use crate::error::{CliError, Result};
use crate::out::complain;
use crate::session::{self, End, Signals, Target};
use crate::term::DetachKeys;
use berth_client::{Client, random_id};

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Do not stay with it; print its id
    #[arg(long, short)]
    pub detach: bool,
    /// Remove it when it has ended, or, without -d, when this command ends
    #[arg(long, conflicts_with = "restart")]
    pub rm: bool,
    /// Keys that leave it running, with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    pub detach_keys: DetachKeys,
}

pub async fn run(context: &Context, args: RunArgs) -> Result<u8> {
    let client = context.client().await?;
    let stdin = args.create.interactive;
    let mut spec = args.create.spec(&context.namespace)?;
    // In the foreground this command does it, when it has shown all.
    spec.remove = args.rm && args.detach;
    let id = spec.id.clone();
    let request = RunRequest {
        container: Some(spec),
        request_id: random_id(),
    };
    let start = client.run(request);
    if args.detach {
        let response = start.await?;
        if context.out.json {
            context.out.object(&json!({ "namespace": context.namespace, "id": id, "pid": response.pid, "incarnation": response.incarnation }))?;
        } else {
            context.out.line(&id)?;
        }
        return Ok(0);
    }
    let mut signals = Signals::catch()?;
    let end = tokio::select! {
        biased;
        result = start => {
            result?;
            let target = Target {
                client: client.clone(),
                id: id.clone(),
                exec_id: String::new(),
                offset: Some(0),
                stdin,
                detach_keys: args.detach_keys,
                proxy_signals: true,
            };
            session::run(target, signals).await
        }
        // The call is dropped, and with it a start that is still queued.
        signal = signals.next_ending() => Ok(End::Signalled(signal)),
    };
    let detached = matches!(end, Ok(End::Detached));
    if args.rm && !detached {
        remove(&client, &id, "").await;
    }
    if args.rm && detached {
        complain(&format!("{id} is not removed when it ends: `berth rm {id}` does it"));
    }
    conclude(&id, end?)
}

/// The exit code of a session's end, and a word about it where one is due.
pub fn conclude(id: &str, end: End) -> Result<u8> {
    match end {
        End::Exited(exit) => Ok(exit_code(id, &exit)),
        End::Detached => {
            complain(&format!("left {id} running: `berth attach {id}` comes back to it"));
            Ok(0)
        }
        End::Signalled(signal) => Ok(u8::try_from(128 + signal).unwrap_or(255)),
        End::OutputClosed(error) => Err(error),
    }
}

fn exit_code(id: &str, exit: &ExitStatus) -> u8 {
    match exit.reason() {
        ExitReason::Oom => complain(&format!(
            "{id} was ended by the kernel for lack of memory: `berth update --memory` or config.json can give it more"
        )),
        ExitReason::Lost | ExitReason::Reboot | ExitReason::StartFailed => complain(&format!("{id}: {}", exit.message)),
        ExitReason::Unspecified | ExitReason::Exited | ExitReason::Signaled => {}
    }
    u8::try_from(exit.code).unwrap_or(255)
}

/// Removes what a foreground command made; that this fails is worth a word but not another exit code.
pub async fn remove(client: &Client, id: &str, exec_id: &str) {
    let request = DeleteRequest {
        namespace: client.namespace.clone(),
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        force: true,
        request_id: random_id(),
    };
    match client.delete(request).await.map_err(CliError::from) {
        Ok(response) if response.pending && !response.message.is_empty() => {
            complain(&format!("{id} is being removed: {}", response.message))
        }
        Ok(_) => {}
        // An exec goes with its container.
        Err(error) if error.is_not_found() => {}
        Err(error @ CliError::Berthd(berth_client::Error::Refused { .. })) => {
            complain(&format!("{id} is not removed: {error}"))
        }
        Err(error) => error.report(false),
    }
}

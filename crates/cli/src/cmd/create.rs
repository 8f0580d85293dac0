//! `berth create`, and the options that it shares with `run`.

use std::path::PathBuf;

use berth_wire::v1::{ContainerSpec, CreateRequest, LogFormat, LogPolicy, RestartPolicy, Stdio, StdioLog, stdio::To};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Context;
use crate::args::key_value;
use crate::error::{CliError, Result};
use crate::{human, term};
use berth_client::random_id;

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Folder with config.json and the root filesystem
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Id of the container; made up if not given
    #[arg(long, visible_alias = "name", value_name = "ID")]
    pub id: Option<String>,
    /// Keep its standard input open, for this terminal or a later `attach`
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal; config.json must say process.terminal, too
    #[arg(long = "tty", short = 't')]
    pub terminal: bool,
    /// Runtime, by its name in berthd's configuration
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub runtime: String,
    /// Label, may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// Signal that `stop` sends [default: TERM]
    #[arg(long, value_name = "SIGNAL", default_value = "", hide_default_value = true)]
    pub stop_signal: String,
    /// How long `stop` waits before SIGKILL [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = human::parse_timeout)]
    pub stop_timeout: Option<u32>,
    /// Run a small init as its first process: passes signals on and reaps what is orphaned
    #[arg(long)]
    pub init: bool,
    /// Start it again after it has ended: no, on-failure, on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart_policy)]
    pub restart: Option<Restart>,
    /// Format of the log; `none` keeps none
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<Format>,
    /// When the disk is full or slow: hold the container, or drop its output and count it
    #[arg(long, value_name = "POLICY")]
    pub log_policy: Option<Policy>,
    /// Size at which the log is rotated [default: 10m]
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub log_max_size: Option<u64>,
    /// How many log files are kept [default: 3]
    #[arg(long, value_name = "N")]
    pub log_max_files: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Cri,
    Json,
    Plain,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    Block,
    Drop,
}

/// A restart policy as docker writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    pub policy: RestartPolicy,
    pub max: u32,
}

pub fn restart_policy(text: &str) -> std::result::Result<Restart, String> {
    let plain = |policy| Ok(Restart { policy, max: 0 });
    match text.split_once(':') {
        None if text == "no" => plain(RestartPolicy::No),
        None if text == "on-failure" => plain(RestartPolicy::OnFailure),
        None if text == "always" => plain(RestartPolicy::Always),
        None if text == "unless-stopped" => plain(RestartPolicy::UnlessStopped),
        Some(("on-failure", max)) => match max.parse() {
            Ok(max) => Ok(Restart {
                policy: RestartPolicy::OnFailure,
                max,
            }),
            Err(_) => Err(format!("{max:?} is not a number of restarts")),
        },
        _ => Err("expected no, on-failure, on-failure:N, always or unless-stopped".into()),
    }
}

impl CreateArgs {
    pub fn spec(self, namespace: &str) -> Result<ContainerSpec> {
        let bundle = std::path::absolute(&self.bundle).map_err(|source| CliError::File {
            operation: "find",
            path: self.bundle.clone(),
            source,
        })?;
        let Some(bundle) = bundle.to_str() else {
            return Err(CliError::Usage(format!(
                "the path of the bundle must be UTF-8: {}",
                bundle.display()
            )));
        };
        let log = StdioLog {
            format: match self.log_format {
                None | Some(Format::None) => LogFormat::Unspecified,
                Some(Format::Cri) => LogFormat::Cri,
                Some(Format::Json) => LogFormat::Json,
                Some(Format::Plain) => LogFormat::Plain,
            }
            .into(),
            policy: match self.log_policy {
                None => LogPolicy::Unspecified,
                Some(Policy::Block) => LogPolicy::Block,
                Some(Policy::Drop) => LogPolicy::Drop,
            }
            .into(),
            max_size: self.log_max_size.unwrap_or(0),
            max_files: self.log_max_files.unwrap_or(0),
            stdin: self.interactive,
            discard: self.log_format == Some(Format::None),
        };
        Ok(ContainerSpec {
            namespace: namespace.to_owned(),
            id: self.id.unwrap_or_else(|| random_id()[..12].to_owned()),
            bundle: bundle.to_owned(),
            runtime: self.runtime,
            stdio: Some(stdio(log, self.terminal)),
            labels: self.label.into_iter().collect(),
            stop_signal: self.stop_signal,
            stop_timeout_ms: self.stop_timeout,
            init: self.init,
            restart: self.restart.map_or(0, |r| r.policy.into()),
            restart_max: self.restart.map_or(0, |r| r.max),
            ..Default::default()
        })
    }
}

/// Stdio that Berth keeps, with a terminal of our size if one is asked for.
pub fn stdio(log: StdioLog, terminal: bool) -> Stdio {
    let (width, height) = if terminal {
        term::size().unwrap_or_default()
    } else {
        (0, 0)
    };
    Stdio {
        to: Some(To::Log(log)),
        terminal,
        width: width.into(),
        height: height.into(),
    }
}

pub async fn create(context: &Context, args: CreateArgs) -> Result<u8> {
    let client = context.client().await?;
    let spec = args.spec(&context.namespace)?;
    let id = spec.id.clone();
    let request = CreateRequest {
        container: Some(spec),
        request_id: random_id(),
    };
    let response = client.create(request).await?;
    if context.out.json {
        context.out.object(&json!({ "namespace": context.namespace, "id": id, "pid": response.pid, "incarnation": response.incarnation }))?;
    } else {
        context.out.line(&id)?;
    }
    Ok(0)
}

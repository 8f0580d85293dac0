//! `berth doctor`: becomes `berthd doctor`, which looks at the machine itself and so needs no daemon that answers. One that does is asked
//! where its folders are.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::Context;
use crate::error::{CliError, Result};

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Mend what can be mended safely; more of it can while berthd is stopped
    #[arg(long)]
    pub fix: bool,
    /// Options of berthd itself, such as --state DIR or --config FILE, where it was not started with its defaults
    #[arg(last = true, value_name = "OPTIONS")]
    pub daemon: Vec<OsString>,
}

/// How long a daemon may take to say where its folders are.
const ANSWER: Duration = Duration::from_secs(2);

pub async fn doctor(context: &Context, args: &DoctorArgs) -> Result<u8> {
    let program = daemon();
    let mut command = Command::new(&program);
    let asking = async { context.client().await?.version().await.map_err(CliError::from) };
    if args.daemon.is_empty()
        && let Ok(Ok(version)) = tokio::time::timeout(ANSWER, asking).await
        && !version.state.is_empty()
    {
        command.arg("--address").arg(&context.address);
        command.args(["--state", &version.state, "--root", &version.root]);
    }
    command.args(&args.daemon).arg("doctor");
    if args.fix {
        command.arg("--fix");
    }
    if context.out.json {
        command.arg("--json");
    }
    // Returns only if it failed.
    let source = command.exec();
    Err(CliError::File {
        operation: "run",
        path: program,
        source,
    })
}

/// Beside this program, else the one in PATH.
fn daemon() -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("berthd"))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| "berthd".into())
}

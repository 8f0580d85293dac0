//! `berth completion` and `berth man`: what a package installs beside the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, ValueEnum};

use super::Context;
use crate::args::Cli;
use crate::error::{CliError, Result};

#[derive(Debug, Args)]
pub struct CompletionArgs {
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn completion(context: &Context, args: &CompletionArgs) -> Result<u8> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    let shells = clap_complete::env::Shells::builtins();
    if let Some(shell) = shells.completer(name) {
        shell
            .write_registration("COMPLETE", "berth", "berth", "berth", &mut script)
            .map_err(CliError::stdout)?;
    }
    context.out.bytes(&script)?;
    Ok(0)
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write berth.1, berth-run.1, ... into
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

pub fn man(args: &ManArgs) -> Result<u8> {
    let failed = |source| CliError::File {
        operation: "write man pages into",
        path: args.folder.clone(),
        source,
    };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)?;
    Ok(0)
}

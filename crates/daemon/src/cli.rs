//! The command line of `berthd`.

use std::path::PathBuf;

#[derive(Debug, clap::Parser)]
#[command(
    name = "berthd",
    version,
    about = "Starts and supervises containers; see docs/config.md"
)]
pub struct Cli {
    #[command(flatten)]
    pub flags: Flags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags win over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Socket of the API [default: berthd.sock in the state folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub address: Option<PathBuf>,
    /// Second socket, on which shims of others tell events over ttrpc [default: the address with .ttrpc behind it]
    #[arg(long, global = true, value_name = "PATH")]
    pub ttrpc_address: Option<PathBuf>,
    /// Run-time state; belongs on a tmpfs [default: /run/berth]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What outlives a reboot, logs among it [default: /var/lib/berth]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Configuration file [default: /etc/berth/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, global = true, value_name = "L")]
    pub log_level: Option<String>,
    /// How many starts work at once [default: 10]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub start_concurrency: Option<u32>,
    /// The berth-shim program [default: beside berthd, then in PATH]
    #[arg(long, global = true, value_name = "PATH")]
    pub shim: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print or check a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say what is wrong with containers, shims, mounts and folders here, with or without a running daemon
    Doctor(DoctorArgs),
    /// Print the stages at which BERTH_KILL_AT can end this build, one a line
    #[command(hide = true)]
    FailPoints,
}

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Mend what can be mended safely; more of it can while no daemon runs
    #[arg(long)]
    pub fix: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Print the default configuration, with what each key means
    Default,
    /// Check a file; every problem is told with its line
    Check {
        /// [default: what the daemon would read]
        file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod test {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_manual_page_names_every_option_and_command() {
        let page = include_str!("../../../packaging/berthd.8").replace("\\-", "-");
        let cli = Cli::command();
        for option in cli.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("\\fB--{option}\\fR")), "--{option}");
        }
        for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(
                page.contains(&format!("\\fB{}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }
}

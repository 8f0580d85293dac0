//! The command line's grammar. Each command's own options live beside its code in `cmd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cmd;

/// Where berthd listens if nobody says otherwise.
pub const ADDRESS: &str = "/run/berth/berthd.sock";

#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    about = "Starts containers from OCI bundles and looks after them",
    max_term_width = 100
)]
#[command(propagate_version = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Socket of berthd [env: BERTH_ADDRESS] [default: /run/berth/berthd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    address: Option<PathBuf>,
    /// Namespace to work in [env: BERTH_NAMESPACE] [default: default]
    #[arg(long, short, global = true, value_name = "NS")]
    namespace: Option<String>,
    /// Print JSON: one document, or one object a line where results come one by one
    #[arg(long, global = true)]
    pub json: bool,
}

/// Not clap's `env`: it would show what the environment gave as if it had been typed, in every usage line.
impl Global {
    pub fn address(&self) -> PathBuf {
        let set = || std::env::var_os("BERTH_ADDRESS").filter(|path| !path.is_empty());
        let given = self.address.clone().or_else(|| set().map(PathBuf::from));
        given.unwrap_or_else(|| ADDRESS.into())
    }

    pub fn namespace(&self) -> String {
        let set = || std::env::var("BERTH_NAMESPACE").ok().filter(|name| !name.is_empty());
        self.namespace.clone().or_else(set).unwrap_or_else(|| "default".into())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container from a bundle and start it
    Run(cmd::run::RunArgs),
    /// Create a container and do not start it yet
    Create(cmd::create::CreateArgs),
    /// Start created containers
    Start(cmd::start::StartArgs),
    /// List containers
    #[command(visible_alias = "list")]
    Ps(cmd::ps::PsArgs),
    /// Show what a container wrote
    Logs(cmd::logs::LogsArgs),
    /// Run one more command in a running container
    Exec(cmd::exec::ExecArgs),
    /// Connect this terminal to a running container
    Attach(cmd::attach::AttachArgs),
    /// Stop containers: the stop signal first, SIGKILL after the timeout
    Stop(cmd::stop::StopArgs),
    /// Send a signal
    Kill(cmd::kill::KillArgs),
    /// Remove ended containers
    #[command(visible_alias = "delete")]
    Rm(cmd::rm::RmArgs),
    /// Freeze all processes of containers
    Pause(cmd::pause::PauseArgs),
    /// Let paused containers go on
    #[command(visible_alias = "resume")]
    Unpause(cmd::pause::PauseArgs),
    /// Change the resource limits of containers
    Update(cmd::update::UpdateArgs),
    /// Show what containers use
    Stats(cmd::stats::StatsArgs),
    /// Show what happens
    Events(cmd::events::EventsArgs),
    /// Copy files between here and a container
    Cp(cmd::cp::CpArgs),
    /// The half of a copy inside the container
    #[command(hide = true)]
    CpInside(cmd::cp::inside::InsideArgs),
    /// Wait until containers have ended and print their exit codes
    Wait(cmd::wait::WaitArgs),
    /// Show everything that is known about containers
    Inspect(cmd::inspect::InspectArgs),
    /// Write a config.json to start from
    Spec(cmd::spec::SpecArgs),
    /// Say what is wrong on this machine, with or without a running berthd (runs `berthd doctor`)
    Doctor(cmd::doctor::DoctorArgs),
    /// Remove all containers that have ended
    Prune(cmd::prune::PruneArgs),
    /// Say how a container is, as the kernel sees it: processes and what they wait for, files, mounts, cgroup
    Diagnose(cmd::diagnose::DiagnoseArgs),
    /// Watch containers, full screen
    Top(cmd::top::TopArgs),
    /// Print a script that lets a shell complete commands, options and ids
    Completion(cmd::completion::CompletionArgs),
    /// Write man pages
    #[command(hide = true)]
    Man(cmd::completion::ManArgs),
    /// Show the versions of berth and berthd
    Version,
}

impl Command {
    /// The exit code of a failure of Berth's own: 125 where the container's code is ours otherwise.
    pub fn own_failure(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Exec(_) => 125,
            _ => 1,
        }
    }
}

/// `KEY=VALUE`; a key alone has an empty value.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("expected KEY=VALUE".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod test {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_anywhere() {
        for line in [
            "berth -n web --address /s ps --json",
            "berth ps --json -n web --address /s",
        ] {
            let cli = parse(line);
            assert!(cli.global.json);
            assert_eq!(
                (cli.global.namespace().as_str(), cli.global.address().to_str()),
                ("web", Some("/s"))
            );
        }
    }

    #[test]
    fn run_takes_short_options_together_and_name_for_id() {
        let Command::Run(run) = parse("berth run -it --rm --name web --label a=b --label c b").command else {
            panic!()
        };
        assert!(run.create.interactive && run.create.terminal && run.rm && !run.detach);
        assert_eq!(run.create.id.as_deref(), Some("web"));
        assert_eq!(
            run.create.label,
            [("a".into(), "b".into()), ("c".into(), String::new())]
        );
        assert!(Cli::try_parse_from(["berth", "run", "-d", "--rm", "b"]).is_ok());
        assert!(Cli::try_parse_from(["berth", "run", "--restart", "always", "--rm", "b"]).is_err());
    }

    #[test]
    fn exec_leaves_the_commands_options_alone() {
        let Command::Exec(exec) = parse("berth exec -e A=1 -u 1:2 web ls -la --json -e x").command else {
            panic!()
        };
        assert_eq!(exec.command, ["ls", "-la", "--json", "-e", "x"]);
        assert_eq!(exec.env, ["A=1"]);
        assert!(Cli::try_parse_from(["berth", "exec", "web"]).is_err());
    }

    #[test]
    fn usage_errors_are_code_two() {
        for line in [
            "berth",
            "berth nosuch",
            "berth stop",
            "berth logs --tail x web",
            "berth update --memory 1q web",
        ] {
            let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_is_a_command_too() {
        for line in ["berth help", "berth help run"] {
            let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
            assert_eq!(error.exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn aliases_hold() {
        assert!(matches!(parse("berth resume a b").command, Command::Unpause(args) if args.ids == ["a", "b"]));
        assert!(matches!(parse("berth unpause a").command, Command::Unpause(_)));
        assert!(matches!(parse("berth kill -s HUP a").command, Command::Kill(args) if args.signal == "HUP"));
    }
}

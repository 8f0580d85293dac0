//! `./dev demo` and `./dev bench`: Berth on real bundles, alone and side by side with stock containerd.
//!
//! Everything that is measured runs in a mount namespace and on a tmpfs of its own, under one cgroup, and both sides get the same
//! bundle, runtime binary, cgroup parent and client. Only ratios of one run mean anything.
#![forbid(unsafe_code)]

mod api;
mod bare;
mod berth;
mod bundle;
mod cgroup;
mod client;
mod containerd;
mod demo;
mod error;
mod exec;
mod floor;
mod logs;
mod measure;
mod memory;
mod place;
mod report;
mod restart;
mod same;
mod seccomp;
mod side;
mod storm;
mod svg;
mod table;
mod until;

use clap::{Args, Parser, Subcommand};
use error::Result;
use side::Kind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "berth-bench",
    about = "The demo, and the figures side by side with stock containerd",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show on real containers what Berth promises; fails if one promise is not kept
    Demo(demo::Options),
    /// Measure
    Bench(Bench),
    /// The runtime alone, without a daemon; started by `bench` inside the peers' root
    #[command(hide = true)]
    Bare(bare::Options),
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Starts: containers per second, latency, CPU and memory, beside containerd and the bare runtime
    Storm(storm::Options),
    /// A lone create + start + delete: berth-oci, crun and runc beside the bare system calls, with and without a seccomp profile
    Floor(floor::Options),
    /// Commands in a running container
    Exec(exec::Options),
    /// How long a killed daemon takes to have all its containers back
    Restart(restart::Options),
    /// Memory after some execs, and of a daemon that has started and stopped thousands
    Memory(memory::Options),
    /// How much output is kept, and what it costs
    Logs(logs::Options),
    /// Through containerd's API: starts, a stock Docker Engine, subscribers of events
    Api(api::Options),
    /// Nothing: only --report, from what earlier runs have left
    Report,
}

/// What every measurement needs to know.
#[derive(Args, Clone)]
pub struct Common {
    /// Folder with berthd and berth-shim
    #[arg(long)]
    bin: PathBuf,
    /// Root filesystem with containerd, runc and crun (scripts/peers/install); without it the environment's PEERS, or /opt/peers-sid
    #[arg(long, global = true)]
    peers: Option<PathBuf>,
    /// Runtimes that Berth runs with, one after the other; beside its own, `embedded`, the other sides run once with crun and once with runc
    #[arg(long = "runtime", global = true, default_values = ["embedded"])]
    runtimes: Vec<String>,
    /// Who is measured
    #[arg(long, global = true, value_enum, value_delimiter = ',', default_values_t = [Kind::Berth, Kind::Containerd, Kind::Bare, Kind::Floor])]
    sides: Vec<Kind>,
    /// Where the JSON goes
    #[arg(long, global = true, default_value = ".bench")]
    out: PathBuf,
    /// Afterwards writes tables, plots and raw numbers of all that is in the output folder here
    #[arg(long, global = true, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "docs/bench")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Bench(_) | Command::Demo(_) = cli.command
        && let Err(error) = own_mounts()
    {
        eprintln!("berth-bench: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Interrupted, it drops what it holds all the same: daemons, containers, groups.
    let done = runtime.block_on(async {
        tokio::select! {
            done = run(cli.command) => done,
            done = interrupted() => done,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends at SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Err(error::BenchError::new("interrupted"))
}

/// Runs this program again in a mount namespace of its own, so that no mount is left behind however it ends.
fn own_mounts() -> Result<()> {
    const MARK: &str = "BERTH_BENCH_MOUNTS";
    if std::env::var_os(MARK).is_some() {
        return Ok(());
    }
    let this = std::env::current_exe()?;
    let mut unshare = std::process::Command::new("unshare");
    unshare
        .args(["-m", "--propagation", "private"])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1");
    Err(unshare.exec().into())
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(options) => demo::run(options).await,
        Command::Bare(options) => bare::run(options).await,
        Command::Bench(Bench { common, what }) => {
            let all = || {
                vec![
                    What::Storm(storm::Options::default()),
                    What::Floor(floor::Options::default()),
                    What::Exec(exec::Options::default()),
                    What::Memory(memory::Options::default()),
                    What::Restart(restart::Options::default()),
                    What::Logs(logs::Options::default()),
                    What::Api(api::Options::default()),
                ]
            };
            for what in what.map_or_else(all, |what| vec![what]) {
                one(&common, what).await?;
            }
            common
                .report
                .as_deref()
                .map_or(Ok(()), |to| report::write(&common.out, to))
        }
    }
}

async fn one(common: &Common, what: What) -> Result<()> {
    match what {
        What::Storm(options) => storm::run(common, &options).await,
        What::Floor(options) => floor::run(common, &options).await,
        What::Exec(options) => exec::run(common, &options).await,
        What::Restart(options) => restart::run(common, &options).await,
        What::Memory(options) => memory::run(common, &options).await,
        What::Logs(options) => logs::run(common, &options).await,
        What::Api(options) => api::run(common, &options).await,
        What::Report => Ok(()),
    }
}

impl Common {
    /// The daemons among those who are measured.
    fn daemons(&self) -> impl Iterator<Item = Kind> + '_ {
        self.sides.iter().copied().filter(|kind| kind.is_daemon())
    }

    /// Writes the rows of a run where a report finds them.
    fn keep(&self, name: &str, rows: &impl serde::Serialize) -> Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let path = self.out.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_vec_pretty(rows)?)?;
        println!("(JSON in {})", path.display());
        Ok(())
    }

    fn measures(&self, kind: Kind) -> bool {
        self.sides.contains(&kind)
    }
}

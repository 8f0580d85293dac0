//! The Berth daemon: config → build → run → drain. No logic of its own: it wires the supervisor to a socket and to signals.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod containerd;
mod doctor;
mod error;
mod listen;
mod logging;
mod metrics;
mod process;
mod run;
mod settings;
mod stores;
mod systemd;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, ConfigCommand, Flags};
use config::Config;
use error::Error;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(args) = containerd::arguments(&args) {
        return report(as_containerd(args).map(|()| ExitCode::SUCCESS));
    }
    let cli = Cli::parse();
    let done = match cli.command {
        None => serve(&cli.flags, &[]),
        Some(Command::Config(ConfigCommand::Default)) => print(&config::keys::default_file()),
        Some(Command::Config(ConfigCommand::Check { file })) => check(cli.flags, file),
        Some(Command::FailPoints) => fail_points(),
        Some(Command::Doctor(args)) => return report(doctor::run(&cli.flags, &args)),
    };
    report(done.map(|()| ExitCode::SUCCESS))
}

fn report(done: Result<ExitCode, Error>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "berthd: {error}");
            error.exit_code()
        }
    }
}

/// In containerd's place.
fn as_containerd(args: Vec<std::ffi::OsString>) -> Result<(), Error> {
    match containerd::parse(args)? {
        containerd::Wish::Serve { flags, warnings } => serve(&flags, &warnings),
        containerd::Wish::Print(text) => print(&text),
        containerd::Wish::Publish {
            address,
            namespace,
            topic,
            event,
        } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| Error::Io {
                operation: "start",
                what: "the runtime".into(),
                source,
            })?;
            let published = runtime.block_on(berth_api::publish(&address, &namespace, &topic, &event));
            published.map_err(Error::Publish)
        }
    }
}

fn check(flags: Flags, file: Option<std::path::PathBuf>) -> Result<(), Error> {
    let config = file.or(flags.config.clone());
    let name = config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    let named = config.is_some();
    let flags = Flags { config, ..flags };
    for warning in Config::load(&flags)?.missing(&flags)? {
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    if named || name.exists() {
        print(&format!("{} is good\n", name.display()))
    } else {
        print(&format!("there is no {}: the defaults hold\n", name.display()))
    }
}

fn fail_points() -> Result<(), Error> {
    if !cfg!(feature = "failpoints") {
        return Err(Error::NotBuilt { what: "failpoints" });
    }
    let names: String = berth_supervisor::FAIL_POINTS
        .iter()
        .flat_map(|(_, names)| *names)
        .map(|name| format!("{name}\n"))
        .collect();
    print(&names)
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Error::Io {
            operation: "print",
            what: "to stdout".into(),
            source,
        })
}

fn serve(flags: &Flags, warnings: &[String]) -> Result<(), Error> {
    run::hold_signals()?;
    let config = Config::load(flags)?;
    let log = logging::start(&config)?;
    for warning in warnings {
        tracing::warn!(warning, "containerd's configuration");
    }
    process::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .max_blocking_threads(berth_supervisor::BLOCKING_THREADS)
        .thread_name("berthd")
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            operation: "start",
            what: "the runtime's threads".into(),
            source,
        })?;
    let done = runtime.block_on(run::run(config, flags.clone(), log));
    // A thread that hangs on a dead disk must not keep the daemon.
    runtime.shutdown_background();
    done
}

//! `berth`, the command line for people: a client of `berth.v1.Supervisor` and of nothing else.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 141 stdout was closed. `run` and `exec` give the container's own code, 126 or 127
//! for a command that could not be started, and 125 for a failure of Berth's. A panic or a signal never leaves the terminal raw.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod complete;
mod error;
mod human;
mod json;
mod out;
mod session;
mod term;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    // Answers the shell and ends, if it is a shell that asks.
    clap_complete::CompleteEnv::with_factory(args::Cli::command).complete();
    term::restore_on_panic();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Not `error.exit()`: a closed stdout must not become a panic.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // It joins namespaces, which a program with threads may not.
    if let args::Command::CpInside(args) = &cli.command {
        return ExitCode::from(cmd::cp::inside::run(args));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(&format!("cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let is_json = cli.global.json;
    let own_failure = cli.command.own_failure();
    let result = runtime.block_on(cmd::dispatch(cli));
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.report(is_json);
            ExitCode::from(error.exit_code(own_failure))
        }
    }
}

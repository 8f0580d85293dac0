//! The Berth daemon: config → build → run → drain.
#![forbid(unsafe_code)]

mod cli;
mod config;

use clap::Parser;

fn main() {
    let cli = cli::Cli::parse();
    let _ = config::Config::load(&cli.flags);
}

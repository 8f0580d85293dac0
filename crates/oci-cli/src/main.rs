//! `berth-oci`: the embedded OCI runtime as a command line that runc's callers can use in its place.
//!
//! Every call is a process of its own, so it may join namespaces and die. Errors go to stderr as one line and, with
//! `--log`, to a file in runc's text or JSON form, which is where engines read them. Exit code 1, or 127 and 126 for a
//! command that is not there or can't be executed.
#![forbid(unsafe_code)]

mod args;
mod calls;
mod log;
mod preserved;
mod query;
mod spec;
mod update;

use clap::Parser;

fn main() {
    preserved::look();
    let cli = args::Cli::parse();
    let code = match calls::leave_own_file(&cli).and_then(|()| calls::run(&cli)) {
        Ok(code) => code,
        Err(failure) => {
            log::tell(&cli, &failure);
            failure.exit_code
        }
    };
    std::process::exit(code)
}

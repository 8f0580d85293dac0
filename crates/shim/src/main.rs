//! `berth-shim template` forks shims on request; `berth-shim serve --name NS/ID` is one. Inside a container, as `berth-init`, it is the
//! first process.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use berth_shim::{init, serve, template};
use berth_sys::process::inherited_fd;

/// Creators live briefly.
#[global_allocator]
static HEAP: berth_sys::heap::Heap = berth_sys::heap::Heap;

const USAGE: &str = "usage: berth-shim template | berth-shim serve --name NAMESPACE/ID\n\
                     Both are started by berthd, with sockets that they inherit.";

fn main() -> ExitCode {
    if init::is_meant(std::env::args_os().next().as_ref()) {
        return ExitCode::from(init::run(std::env::args_os().skip(1)));
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        // What follows is only room for the titles of its shims.
        ["template", ..] => fd(3).and_then(|daemon| {
            serve::silence()?;
            template::run(daemon)
        }),
        ["serve", "--name", name] => fd(3).and_then(|folder| {
            let first = fd(4)?;
            serve::silence()?;
            serve::serve(name, folder, first)
        }),
        ["fail-points"] => return fail_points(),
        ["--version"] => {
            println!("berth-shim {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints where BERTH_SHIM_KILL_AT can end this program, one name a line.
fn fail_points() -> ExitCode {
    if !cfg!(feature = "failpoints") {
        eprintln!("berth-shim: built without the feature failpoints");
        return ExitCode::FAILURE;
    }
    for name in berth_shim::stage::FAIL_POINTS.iter().flat_map(|(_, names)| *names) {
        println!("{name}");
    }
    ExitCode::SUCCESS
}

fn fd(number: i32) -> Result<std::os::fd::OwnedFd, berth_shim::Error> {
    inherited_fd(number).map_err(|source| berth_shim::Error::Io {
        operation: "start",
        path: format!("inherited fd {number}"),
        source,
    })
}

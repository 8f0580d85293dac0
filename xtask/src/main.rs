//! The project's own checks, run by `./dev lint`: `cargo xtask layers`, `cargo xtask tidy` and `cargo xtask reference` (with `--write` it mends);
//! and `cargo xtask dist`, which makes the packages.
//!
//! Each check is a pure function from what was read to a list of complaints; only this file and the `read` functions touch
//! the disk or start cargo, so that every rule has a test with a planted violation.
#![forbid(unsafe_code)]

mod dist;
mod layers;
mod reference;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace");
    let name = std::env::args().nth(1).unwrap_or_default();
    let result = match name.as_str() {
        "layers" => layers::run(root),
        "tidy" => tidy::run(root),
        "reference" => reference::run(root, std::env::args().any(|argument| argument == "--write")),
        "dist" => dist::run(root, &std::env::args().skip(2).collect::<Vec<_>>()),
        _ => {
            eprintln!("usage: cargo xtask layers | tidy | reference [--write] | dist [--programs DIR] [--version V]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
        Ok(complaints) => {
            for complaint in &complaints {
                eprintln!("{name}: {complaint}");
            }
            eprintln!("{name}: {} to fix", complaints.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

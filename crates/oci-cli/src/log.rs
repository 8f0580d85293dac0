//! How a failure is told: one line on stderr, and one in the `--log` file in the form that engines parse.

use std::io::Write;

use crate::args::{Cli, LogFormat};

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub exit_code: i32,
}

impl From<berth_oci::OciError> for Failure {
    fn from(error: berth_oci::OciError) -> Failure {
        Failure {
            message: error.to_string(),
            exit_code: i32::from(error.exit_code()),
        }
    }
}

impl Failure {
    pub fn new(what: &str, error: impl std::fmt::Display) -> Failure {
        Failure {
            message: format!("{what}: {error}"),
            exit_code: 1,
        }
    }
}

pub fn tell(cli: &Cli, failure: &Failure) {
    eprintln!("berth-oci: {}", failure.message);
    append(cli, "error", &failure.message);
}

/// What was done otherwise than asked for, which is no reason to stop.
pub fn warn(cli: &Cli, message: &str) {
    eprintln!("berth-oci: warning: {message}");
    append(cli, "warning", message);
}

fn append(cli: &Cli, level: &str, message: &str) {
    let Some(path) = &cli.log else { return };
    let time = berth_oci::rfc3339(std::time::SystemTime::now());
    let line = match cli.log_format {
        LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string(),
        LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
    };
    let appended = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // stderr has it already.
    let _ = appended.and_then(|mut file| writeln!(file, "{line}"));
}

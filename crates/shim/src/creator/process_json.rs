//! The OCI process object of an exec.
//!
//! The init's own object is kept in the container's folder when it is created: a caller may remove the bundle at any time after.

use std::os::fd::AsFd;
use std::path::Path;

use berth_core::ErrorCode;
use berth_runtime::{Bundle, Overrides, Rlimit, check_process, exec_process};
use berth_sys::{dir, file};
use berth_wire::shim::ExecOverrides;

use super::job::{Exec, failed};
use super::report::Failed;

/// The init's process object, in the container's folder.
pub const PROCESS_FILE: &str = "process.json";

/// Checks the bundle, and keeps what execs will need of it. Answers its config.json.
pub fn keep(bundle: &Path, terminal: bool, folder: impl AsFd) -> Result<Vec<u8>, Failed> {
    let bundle = Bundle::load(bundle, terminal)?;
    let kept = file::write_aside(folder, PROCESS_FILE, bundle.process(), 0o600);
    kept.map_err(|error| failed(ErrorCode::Resources, format!("create: {PROCESS_FILE}: {error}")))?;
    Ok(bundle.into_config())
}

pub fn for_exec(exec: &Exec, folder: impl AsFd) -> Result<Vec<u8>, Failed> {
    if !exec.process_json.is_empty() {
        check_process(&exec.process_json, exec.terminal)?;
        return Ok(exec.process_json.clone());
    }
    let init = file::read_at(folder, PROCESS_FILE, berth_runtime::CONFIG_LIMIT);
    let init = init.map_err(|error| failed(ErrorCode::Internal, format!("exec: {PROCESS_FILE}: {error}")))?;
    // Needed for names of users only; an init that has just ended has none.
    let root = dir::open_path(Path::new(&format!("/proc/{}/root", exec.init))).ok();
    let root = root.as_ref().map(AsFd::as_fd);
    let process = exec_process(&init, &overrides(&exec.overrides), exec.terminal, root)?;
    Ok(if exec.terminal {
        with_size(&process, exec.size)
    } else {
        process
    })
}

/// The runtime sets the size before the process runs, which the loop can't promise.
fn with_size(process: &[u8], (width, height): (u16, u16)) -> Vec<u8> {
    let mut process: serde_json::Value = serde_json::from_slice(process).unwrap_or_default();
    process["consoleSize"] = serde_json::json!({ "width": width, "height": height });
    process.to_string().into_bytes()
}

fn overrides(wire: &ExecOverrides) -> Overrides {
    let rlimits = wire.rlimits.iter();
    Overrides {
        args: wire.args.clone(),
        env: wire.env.clone(),
        cwd: wire.cwd.clone(),
        user: wire.user.clone(),
        additional_gids: wire.additional_gids.clone(),
        capabilities: wire.set_capabilities.then(|| wire.capabilities.clone()),
        rlimits: rlimits
            .map(|limit| Rlimit {
                kind: limit.r#type.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        no_new_privileges: wire.no_new_privileges,
    }
}

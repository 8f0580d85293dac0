//! What is done with a config.json or a process.json before anything is made, for the fuzz targets: read, checked, worked out. Changes
//! nothing outside of this process.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::cgroup::{Cgroups, settings};
use crate::error::OciError;
use crate::parse::parse;
use crate::plan::SchedulingPlan;
use crate::rootfs::options::MountOptions;
use crate::seccomp::Filter;
use crate::{check, process};

/// Everything short of a container.
///
/// # Errors
/// What `create` would refuse.
pub fn rehearse_config(text: &[u8]) -> Result<(), OciError> {
    let spec: Spec = parse(text, "config.json", &mut |_| {})?;
    check::spec(&spec)?;
    for mount in spec.mounts().iter().flatten() {
        let options = mount.options().as_deref().unwrap_or_default();
        let _ = MountOptions::parse(options.iter().map(String::as_str));
    }
    if let Some(linux) = spec.linux() {
        linux.seccomp().as_ref().map(Filter::compile).transpose()?;
        if let Some(resources) = linux.resources() {
            let _ = settings(resources);
        }
        let path = linux.cgroups_path().as_deref().unwrap_or(Path::new(""));
        let _ = Cgroups::plan(&path.to_string_lossy(), "c")?;
    }
    if let Some(process) = spec.process() {
        work_out(process);
    }
    Ok(())
}

/// Everything short of a process.
///
/// # Errors
/// What `exec` would refuse.
pub fn rehearse_process(text: &[u8]) -> Result<(), OciError> {
    let process: Process = parse(text, "process.json", &mut |_| {})?;
    check::process("process.", &process)?;
    work_out(&process);
    Ok(())
}

fn work_out(process: &Process) {
    let _ = process::capability_bits(process, 40, u64::MAX);
    let _ = SchedulingPlan::of(process);
}

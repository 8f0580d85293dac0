//! AppArmor profiles and SELinux labels: what the kernel has of them, and how a process takes one with its execve.
//!
//! Invariant (CVE-2019-16884, CVE-2025-52881): what is written to is proved to be a file of procfs. A label that can't be given is an
//! error that names it: without it there would be less confinement than was asked for.

use std::os::fd::AsFd;
use std::path::Path;

use berth_sys::{execve, inroot};
use oci_spec::runtime::Process;

use crate::error::{Context, OciError};

/// Whether this kernel confines by AppArmor.
pub(crate) fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether this kernel confines by SELinux.
pub(crate) fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn given(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|label| !label.is_empty())
}

/// `unconfined` is what a process is where there is no AppArmor.
fn profile(process: &Process) -> Option<&str> {
    given(process.apparmor_profile()).filter(|profile| *profile != "unconfined" || has_apparmor())
}

/// `at`: what stands before the names of the process's fields.
pub(crate) fn check(at: &str, process: &Process) -> Result<(), OciError> {
    needs(
        &format!("{at}apparmorProfile"),
        profile(process),
        "AppArmor",
        has_apparmor,
    )?;
    needs(
        &format!("{at}selinuxLabel"),
        given(process.selinux_label()),
        "SELinux",
        has_selinux,
    )
}

pub(crate) fn check_mount_label(label: Option<&str>) -> Result<(), OciError> {
    needs(
        "linux.mountLabel",
        label.filter(|label| !label.is_empty()),
        "SELinux",
        has_selinux,
    )
}

fn needs(field: &str, label: Option<&str>, module: &str, there: fn() -> bool) -> Result<(), OciError> {
    let Some(label) = label else { return Ok(()) };
    if label.contains('\0') {
        return Err(OciError::field(field, format!("{label:?}"), "text without a NUL byte"));
    }
    if there() {
        return Ok(());
    }
    Err(OciError::Unsupported {
        what: format!("{field} {label:?}: {module}"),
    })
}

/// To be called in the container: the calling process has them from its execve on.
pub(crate) fn apply(process: &Process) -> Result<(), OciError> {
    let (profile, label) = (profile(process), given(process.selinux_label()));
    if profile.is_none() && label.is_none() {
        return Ok(());
    }
    let root = inroot::open_host_dir(Path::new("/")).step("open", "/")?;
    // Not through /proc/self, which is a link.
    let own = format!("/proc/{}/attr", std::process::id());
    let write = |file: String, value: &str| execve::write_proc(root.as_fd(), Path::new(&file), value);
    if let Some(profile) = profile {
        let value = format!("exec {profile}");
        let done = match write(format!("{own}/apparmor/exec"), &value) {
            // A kernel from before 5.8 has one file for all modules.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => write(format!("{own}/exec"), &value),
            other => other,
        };
        done.step("take AppArmor profile", profile)?;
    }
    if let Some(label) = label {
        write(format!("{own}/exec"), label).step("take SELinux label", label)?;
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_label_that_can_not_be_given_is_named() {
        let process = |text: &str| -> Process {
            serde_json::from_str(&format!(r#"{{"user":{{}},"cwd":"/",{text}}}"#)).expect("a process")
        };
        assert!(check("", &process(r#""apparmorProfile":"","selinuxLabel":"""#)).is_ok());
        assert!(check("", &process(r#""apparmorProfile":"unconfined""#)).is_ok());
        if !has_apparmor() {
            let told = check("process.", &process(r#""apparmorProfile":"docker-default""#)).expect_err("no AppArmor");
            let text = told.to_string();
            assert!(
                text.contains("process.apparmorProfile \"docker-default\": AppArmor"),
                "{text}"
            );
        }
        if !has_selinux() {
            assert!(check("", &process(r#""selinuxLabel":"a:b:c""#)).is_err());
            assert!(check_mount_label(Some("a:b:c")).is_err());
        }
    }
}

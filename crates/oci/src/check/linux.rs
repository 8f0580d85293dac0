//! The linux object, but for resources.

use std::path::Path;

use berth_sys::namespaces::Namespaces;
use oci_spec::runtime::{Linux, LinuxDeviceType, LinuxIdMapping, MemoryPolicyModeType, Spec};

use super::{Checked, id, path, quoted, require, shown, within};
use crate::error::OciError;
use crate::plan::{self, number_list};
use crate::rootfs::parse_propagation;
use crate::{cgroup, labels};

pub(super) fn linux(spec: &Spec, own: Namespaces) -> Checked {
    let linux = spec.linux().as_ref();
    let linux = linux.ok_or_else(|| OciError::field("linux", "missing", "an object"))?;
    namespaces(linux, own)?;
    crate::sysctl::check(spec)?;
    devices(linux)?;
    cgroup::check_path(linux.cgroups_path().as_deref().unwrap_or(Path::new("")))?;
    if let Some(all) = linux.resources() {
        super::resources("linux.resources.", all)?;
        let unified = all.unified().as_ref().is_some_and(|all| !all.is_empty());
        if unified && !is_v2() {
            return Err(OciError::Unsupported {
                what: "linux.resources.unified on cgroup v1".to_owned(),
            });
        }
    }
    if let Some(wanted) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty()) {
        let allowed = "shared, slave, private, unbindable, or one of them with `r` before it";
        let known = parse_propagation(wanted).is_some();
        require("linux.rootfsPropagation", known, || quoted(wanted), allowed)?;
    }
    for (field, paths) in [
        ("linux.maskedPaths", linux.masked_paths()),
        ("linux.readonlyPaths", linux.readonly_paths()),
    ] {
        for one in paths.iter().flatten() {
            path(field, Path::new(one), true)?;
        }
    }
    let flags = linux.personality().as_ref().and_then(|all| all.flags().as_ref());
    if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
        return Err(OciError::field("linux.personality.flags", format!("{flags:?}"), "none"));
    }
    if let Some(policy) = linux.memory_policy() {
        let field = "linux.memoryPolicy.nodes";
        let nodes = policy.nodes().as_deref().unwrap_or_default();
        let list = nodes.is_empty() || number_list(nodes).is_some();
        require(field, list, || quoted(nodes), "numbers and ranges, such as 0-3,7")?;
        let (right, allowed) = match policy.mode() {
            MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal => {
                (nodes.is_empty(), "none for this mode")
            }
            MemoryPolicyModeType::MpolPreferred => (true, "any"),
            _ => (!nodes.is_empty(), "at least one for this mode"),
        };
        require(field, right, || quoted(nodes), allowed)?;
    }
    labels::check_mount_label(linux.mount_label().as_deref())?;
    for (name, device) in linux.net_devices().iter().flatten() {
        let value = || quoted(name);
        require(
            "linux.netDevices",
            own.contains(Namespaces::NET),
            value,
            "only with a network namespace",
        )?;
        interface(name)?;
        if let Some(new) = device.name().as_deref().filter(|new| !new.is_empty()) {
            interface(new)?;
        }
    }
    crate::rdt::check(spec)
}

/// As the kernel has it (dev_valid_name).
fn interface(name: &str) -> Checked {
    let fits = !name.is_empty() && name.len() < 16 && !matches!(name, "." | "..");
    let plain = !name.contains(['/', ':', '\0']) && !name.contains(char::is_whitespace);
    require(
        "linux.netDevices",
        fits && plain,
        || quoted(name),
        "names of interfaces, at most 15 bytes",
    )
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn namespaces(linux: &Linux, own: Namespaces) -> Checked {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    let mut new = Namespaces::empty();
    for (index, namespace) in all.iter().enumerate() {
        let again = all[..index].iter().any(|other| other.typ() == namespace.typ());
        let value = || format!("{:?} twice", namespace.typ());
        require("linux.namespaces", !again, value, "each type at most once")?;
        match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
            Some(one) => path(&format!("linux.namespaces[{index}].path"), one, true)?,
            None => new = new.union(plan::kind(namespace.typ())),
        }
    }
    require(
        "linux.namespaces",
        own.contains(Namespaces::MOUNT),
        || "no mount".into(),
        "a mount namespace: without one the mounts would be the host's",
    )?;
    for (field, map) in [
        ("linux.uidMappings", linux.uid_mappings()),
        ("linux.gidMappings", linux.gid_mappings()),
    ] {
        let map = map.as_deref().unwrap_or_default();
        mappings(field, map)?;
        let needed = new.contains(Namespaces::USER);
        require(
            field,
            !map.is_empty() || !needed,
            || "missing".into(),
            "at least one, with a new user namespace",
        )?;
        let told = || format!("{} mappings", map.len());
        require(
            field,
            map.is_empty() || own.contains(Namespaces::USER),
            told,
            "none without a user namespace",
        )?;
    }
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let known = matches!(clock.as_str(), "monotonic" | "boottime");
        require("linux.timeOffsets", known, || quoted(clock), "monotonic or boottime")?;
        within(
            format!("linux.timeOffsets.{clock}.nanosecs"),
            offset.nanosecs(),
            0,
            999_999_999,
        )?;
        let value = || clock.clone();
        require(
            "linux.timeOffsets",
            new.contains(Namespaces::TIME),
            value,
            "only with a new time namespace",
        )?;
    }
    Ok(())
}

pub(super) fn mappings(field: &str, map: &[LinuxIdMapping]) -> Checked {
    for (index, one) in map.iter().enumerate() {
        within(format!("{field}[{index}].size"), Some(one.size()), 1, u32::MAX)?;
        let ends = [one.container_id(), one.host_id()].map(|first| first.checked_add(one.size() - 1));
        let value = || format!("{} {} {}", one.container_id(), one.host_id(), one.size());
        require(
            format!("{field}[{index}]"),
            !ends.contains(&None),
            value,
            "ids of 32 bits",
        )?;
    }
    Ok(())
}

fn devices(linux: &Linux) -> Checked {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let at = |field: &str| format!("linux.devices[{index}].{field}");
        path(&at("path"), device.path(), true)?;
        let named = device.path().file_name().is_some();
        require(at("path"), named, || shown(device.path()), "a path with a last part")?;
        let allowed = "c, u, b or p";
        require(at("type"), device.typ() != LinuxDeviceType::A, || quoted("a"), allowed)?;
        // What mknod(2) can take.
        within(at("major"), Some(device.major()), 0, 0xfff)?;
        within(at("minor"), Some(device.minor()), 0, 0xf_ffff)?;
        // Bits of the type may be there, and are not looked at.
        within(at("fileMode"), device.file_mode(), 0, 0o177_777)?;
        id(at("uid"), device.uid())?;
        id(at("gid"), device.gid())?;
    }
    Ok(())
}

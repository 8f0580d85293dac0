//! Reading config.json: a bounded read, the version, and what must be there whatever follows.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Mount, Process, Spec};

use crate::error::OciError;
use crate::parse::parse;
use crate::rootfs::options::{self, MountOptions};

/// Larger than any honest config.json, small enough to be read into memory.
const LIMIT: u64 = 16 << 20;

/// Reads and checks the config.json of a bundle; answers it with its text.
///
/// # Errors
/// No bundle, no config.json, too large, not JSON, a version that this runtime does not know, a missing field.
pub fn load(bundle: &Path) -> Result<(Spec, Vec<u8>), OciError> {
    load_telling(bundle, &mut |_| {})
}

/// The process that is to be executed in a container.
///
/// # Errors
/// As [`load`].
pub fn read_process(text: &[u8], path: &str, warn: &mut dyn FnMut(&str)) -> Result<Process, OciError> {
    parse(text, path, warn)
}

/// As [`load`]; `warn` is told what was left out.
///
/// # Errors
/// As [`load`].
pub fn load_telling(bundle: &Path, warn: &mut dyn FnMut(&str)) -> Result<(Spec, Vec<u8>), OciError> {
    let path: PathBuf = bundle.join("config.json");
    let refuse = |source| OciError::Bundle {
        path: path.display().to_string(),
        source,
    };
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| {
            text.reserve(usize::try_from(file.metadata()?.len().min(LIMIT)).unwrap_or(0) + 32);
            file.take(LIMIT + 1).read_to_end(&mut text)
        })
        .map_err(refuse)?;
    if text.len() as u64 > LIMIT {
        return Err(OciError::field(
            path.display().to_string(),
            "too large",
            format!("at most {LIMIT} bytes"),
        ));
    }
    let spec: Spec = parse(&text, &path.display().to_string(), warn)?;
    check(&spec)?;
    Ok((spec, text))
}

fn check(spec: &Spec) -> Result<(), OciError> {
    let major = spec.version().split('.').next().unwrap_or_default();
    if major != "1" {
        return Err(OciError::field("ociVersion", format!("{:?}", spec.version()), "1.x"));
    }
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| OciError::field("process", "missing", "an object"))?;
    if !process.cwd().is_absolute() {
        return Err(OciError::field(
            "process.cwd",
            process.cwd().display(),
            "an absolute path",
        ));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(OciError::field("process.args", "empty", "at least the command"));
    }
    check_process(process)?;
    crate::sysctl::check(spec)?;
    if spec.root().is_none() {
        return Err(OciError::field("root", "missing", "an object with `path`"));
    }
    if spec.linux().is_none() {
        return Err(OciError::field("linux", "missing", "an object"));
    }
    if let Some(linux) = spec.linux() {
        check_linux(linux)?;
    }
    for mount in spec.mounts().iter().flatten() {
        check_mount(mount, spec)?;
    }
    Ok(())
}

fn check_mount(mount: &Mount, spec: &Spec) -> Result<(), OciError> {
    let at = |field: &str| format!("mounts[{}].{field}", mount.destination().display());
    let options = MountOptions::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().as_deref();
    let bind = options.bind || kind == Some("bind");
    // The kernel would ignore them.
    if let Some(option) = options
        .data
        .iter()
        .find(|option| bind && !options::IGNORED_BY_BIND.contains(&option.as_str()))
    {
        return Err(OciError::field(
            at("options"),
            format!("{option:?}"),
            "an option that a bind mount has",
        ));
    }
    let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
    if options.idmap.is_none() && uids.is_none() && gids.is_none() {
        return Ok(());
    }
    if !bind {
        return Err(OciError::field(
            at("type"),
            format!("{:?}", kind.unwrap_or("")),
            "bind, with ids that are mapped",
        ));
    }
    let own_users = crate::plan::kinds(spec).contains(berth_sys::namespaces::Namespaces::USER);
    let given = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
    let of_container = uids.is_none() && gids.is_none() && own_users;
    if !of_container && !(given(uids) && given(gids)) {
        return Err(OciError::field(
            at("uidMappings and gidMappings"),
            "missing",
            "both, or a user namespace whose maps are taken",
        ));
    }
    Ok(())
}

/// What would be a different container if it were left out.
fn check_linux(linux: &Linux) -> Result<(), OciError> {
    let resources = linux.resources().as_ref();
    let asked = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        (
            "linux.netDevices",
            linux.net_devices().as_ref().is_some_and(|all| !all.is_empty()),
        ),
        (
            "linux.timeOffsets",
            linux.time_offsets().as_ref().is_some_and(|all| !all.is_empty()),
        ),
        (
            "linux.mountLabel",
            linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
        ),
        (
            "linux.resources.unified on cgroup v1",
            resources.is_some_and(|all| all.unified().as_ref().is_some_and(|all| !all.is_empty())),
        ),
    ];
    if let Some((field, _)) = asked.iter().find(|(_, asked)| *asked) {
        return Err(OciError::Unsupported {
            what: (*field).to_owned(),
        });
    }
    let flags = linux.personality().as_ref().and_then(|all| all.flags().as_ref());
    if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
        return Err(OciError::field("linux.personality.flags", format!("{flags:?}"), "none"));
    }
    Ok(())
}

/// What a process object asks for and this runtime can't give: to go on without would be less confinement than was asked for.
pub(crate) fn check_process(process: &Process) -> Result<(), OciError> {
    let labels = [
        ("process.apparmorProfile", process.apparmor_profile()),
        ("process.selinuxLabel", process.selinux_label()),
    ];
    for (field, label) in labels {
        if let Some(label) = label.as_deref().filter(|label| !matches!(*label, "" | "unconfined")) {
            return Err(OciError::Unsupported {
                what: format!("{field} {label:?}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    fn told(process: &str, mounts: &str) -> Option<String> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"linux":{{}},"mounts":[{mounts}],
                "process":{{"cwd":"/","args":["a"],"user":{{"uid":0,"gid":0}}{process}}}}}"#
        );
        let spec: Spec = serde_json::from_str(&text).expect("a spec");
        check(&spec).err().map(|error| error.to_string())
    }

    #[test]
    fn confinement_that_can_not_be_given_is_refused() {
        assert_eq!(told("", ""), None);
        assert_eq!(told(r#","apparmorProfile":"unconfined","selinuxLabel":"""#, ""), None);
        assert!(told(r#","apparmorProfile":"docker-default""#, "").is_some_and(|text| text.contains("docker-default")));
        assert!(told(r#","selinuxLabel":"a:b:c""#, "").is_some());
    }
}

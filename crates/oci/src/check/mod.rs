//! What a config.json may not say: found before anything is made, and told with the field, its value and what is allowed.
//!
//! Types are serde's business; here are ranges, what fields say together, and what must be there. As strict as runc where runc
//! refuses, and where it would let the kernel answer EINVAL half way.

mod linux;
mod process;
mod resources;

use std::path::Path;

use berth_sys::namespaces::Namespaces;
use oci_spec::runtime::{Hook, Mount, Spec};

use crate::error::OciError;
use crate::plan;
use crate::rootfs::options::{self, MountOptions};

pub(crate) use process::process;
pub(crate) use resources::resources;

type Checked = Result<(), OciError>;

/// The kernel's limit for both names of a machine.
const NAME: usize = 64;

/// Checks all of it.
pub(crate) fn spec(spec: &Spec) -> Checked {
    let major = spec.version().split('.').next().unwrap_or_default();
    require("ociVersion", major == "1", || quoted(spec.version()), "1.x")?;
    let process = spec.process().as_ref();
    let process = process.ok_or_else(|| OciError::field("process", "missing", "an object"))?;
    self::process("process.", process)?;
    let root = spec.root().as_ref();
    let root = root.ok_or_else(|| OciError::field("root", "missing", "an object with `path`"))?;
    path("root.path", root.path(), false)?;
    let own = plan::kinds(spec);
    linux::linux(spec, own)?;
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        let fits = name.len() <= NAME && !name.contains('\0');
        require(field, fits, || quoted(name), "at most 64 bytes")?;
        // Else it would be the host's.
        require(
            field,
            own.contains(Namespaces::UTS),
            || quoted(name),
            "a name with a uts namespace only",
        )?;
    }
    for (index, one) in spec.mounts().iter().flatten().enumerate() {
        mount(index, one, own)?;
    }
    hooks(spec)?;
    let annotations = spec.annotations().iter().flatten();
    for (key, value) in annotations {
        require(
            "annotations",
            !key.is_empty(),
            || quoted(value),
            "a key that is not empty",
        )?;
    }
    Ok(())
}

fn mount(index: usize, mount: &Mount, own: Namespaces) -> Checked {
    let at = |field: &str| format!("mounts[{index}].{field}");
    let destination = mount.destination();
    path(&at("destination"), destination, false)?;
    let root = crate::rootfs::target_of(mount) == Path::new("/");
    require(at("destination"), !root, || shown(destination), "a path below the root")?;
    let options = MountOptions::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().as_deref().filter(|kind| !kind.is_empty());
    let bind = options.bind || kind == Some("bind");
    for option in mount.options().iter().flatten() {
        text(&at("options"), option)?;
    }
    if let Some(kind) = kind {
        text(&at("type"), kind)?;
    }
    require(
        at("type"),
        bind || kind.is_some(),
        || "missing".into(),
        "a file system, or `bind`",
    )?;
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    text(&at("source"), &source.to_string_lossy())?;
    require(
        at("source"),
        !bind || !source.as_os_str().is_empty(),
        || "missing".into(),
        "a path on the host",
    )?;
    // The kernel would ignore them.
    let strange = |option: &&String| !options::IGNORED_BY_BIND.contains(&option.as_str());
    if let Some(option) = options.data.iter().find(strange).filter(|_| bind) {
        return Err(OciError::field(
            at("options"),
            quoted(option),
            "an option that a bind mount has",
        ));
    }
    let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
    if options.idmap.is_none() && uids.is_none() && gids.is_none() {
        return Ok(());
    }
    require(
        at("type"),
        bind,
        || quoted(kind.unwrap_or("")),
        "bind, with ids that are mapped",
    )?;
    linux::mappings(&at("uidMappings"), uids.as_deref().unwrap_or_default())?;
    linux::mappings(&at("gidMappings"), gids.as_deref().unwrap_or_default())?;
    let given = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
    let of_container = uids.is_none() && gids.is_none() && own.contains(Namespaces::USER);
    require(
        at("uidMappings and gidMappings"),
        of_container || given(uids) && given(gids),
        || "missing".into(),
        "both, or a user namespace whose maps are taken",
    )
}

fn hooks(spec: &Spec) -> Checked {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "prestart hooks are still what container engines write")]
    let points = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (point, all) in points {
        for (index, hook) in all.iter().flatten().enumerate() {
            one_hook(&format!("hooks.{point}[{index}]"), hook)?;
        }
    }
    Ok(())
}

fn one_hook(at: &str, hook: &Hook) -> Checked {
    path(&format!("{at}.path"), hook.path(), true)?;
    for arg in hook.args().iter().flatten() {
        text(&format!("{at}.args"), arg)?;
    }
    for variable in hook.env().iter().flatten() {
        text(&format!("{at}.env"), variable)?;
    }
    let timeout = hook.timeout().unwrap_or(1);
    require(
        format!("{at}.timeout"),
        timeout > 0,
        || timeout.to_string(),
        "seconds, more than 0",
    )
}

fn require(field: impl Into<String>, right: bool, value: impl FnOnce() -> String, allowed: &str) -> Checked {
    if right {
        Ok(())
    } else {
        Err(OciError::field(field, value(), allowed))
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// The kernel would take it as ended there.
fn text(field: &str, text: &str) -> Checked {
    require(field, !text.contains('\0'), || quoted(text), "text without a NUL byte")
}

fn path(field: &str, path: &Path, absolute: bool) -> Checked {
    text(field, &path.to_string_lossy())?;
    require(field, !path.as_os_str().is_empty(), || "\"\"".into(), "a path")?;
    require(
        field,
        !absolute || path.is_absolute(),
        || shown(path),
        "an absolute path",
    )
}

fn within<N: PartialOrd + std::fmt::Display>(
    field: impl Into<String>,
    value: Option<N>,
    lowest: N,
    highest: N,
) -> Checked {
    match value {
        Some(value) if value < lowest || value > highest => {
            Err(OciError::field(field, value, format!("{lowest} to {highest}")))
        }
        _ => Ok(()),
    }
}

/// "Unchanged" to the kernel.
fn id(field: impl Into<String>, id: Option<u32>) -> Checked {
    within(field, id, 0, u32::MAX - 1)
}

#[cfg(test)]
mod test;

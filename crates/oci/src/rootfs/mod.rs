//! The container's file tree, made by its init process inside its own mount namespace.
//!
//! Order, as runc's: propagation of the old root, the root itself, the mounts in their order, devices, then (after
//! pivot_root) masked and read-only paths. Invariants: a target is resolved once inside the root, by
//! [`berth_sys::inroot`], and used by descriptor; /proc/self/mountinfo is never read; nothing is mounted by path.

mod cgroupfs;
mod devices;
mod given;
mod masks;
mod mounts;
pub(crate) mod options;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::inroot;
use berth_sys::newmount::{self, Attr, Propagation, SetAttr};
use oci_spec::runtime::{Mount, Spec};

use crate::error::{Context, OciError};
use crate::sources::Sources;

pub use given::{RootfsMount, mount_rootfs};
pub(crate) use masks::seal;
pub(crate) use mounts::target_of;

/// A prepared root: everything is mounted in it, it is not yet `/`.
pub(crate) struct Root {
    pub fd: OwnedFd,
    /// Made writable for the set-up, read-only at the end.
    late_readonly: Vec<OwnedFd>,
}

/// What happens in the container's mount namespace from here on does not reach the host.
pub(crate) fn part_from_host(spec: &Spec) -> Result<(), OciError> {
    let linux = spec.linux().as_ref();
    set_old_root_propagation(linux.and_then(|linux| linux.rootfs_propagation().as_deref()))
}

/// Builds the tree. The caller is in the container's mount namespace, and in its cgroups if it has a cgroup namespace of its own.
/// `sources`: bind mounts that are made already. `groups`: controllers and folder of the container's cgroups in each hierarchy of
/// version 1; none = whoever needs them looks.
pub(crate) fn prepare(
    spec: &Spec,
    bundle: &Path,
    mut sources: Sources,
    groups: &[(String, PathBuf)],
) -> Result<Root, OciError> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| OciError::field("root", "missing", "an object with `path`"))?;
    let path = bundle.join(root.path());
    let place = inroot::open_host_dir(&path).step("open root filesystem", path.display())?;
    // A mount of its own, so that it can be pivoted into and made read-only without touching the host's.
    let tree = newmount::clone_tree(place.as_fd(), true).step("clone root filesystem", path.display())?;
    newmount::attach(tree.as_fd(), place.as_fd()).step("mount root filesystem", path.display())?;

    let mut prepared = Root {
        fd: tree,
        late_readonly: Vec::new(),
    };
    let mounts: &[Mount] = spec.mounts().as_deref().unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        mounts::mount(spec, bundle, &mut prepared, mount, sources.remove(&index), groups)?;
    }
    let dev_is_the_hosts = mounts.iter().any(|mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        mounts::target_of(mount) == Path::new("/dev")
            && (mount.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind"))
    });
    if !dev_is_the_hosts {
        devices::make(spec, prepared.fd.as_fd())?;
    }
    Ok(prepared)
}

/// Makes the prepared tree the root of this mount namespace.
pub(crate) fn enter(root: &Root, spec: &Spec, pivot: bool) -> Result<(), OciError> {
    if pivot {
        newmount::pivot_into(root.fd.as_fd()).step("pivot into", "root filesystem")?;
    } else {
        newmount::move_root(root.fd.as_fd()).step("move into", "root filesystem")?;
    }
    for mount in &root.late_readonly {
        let change = SetAttr {
            set: Attr::RDONLY,
            ..SetAttr::default()
        };
        newmount::set_attr(mount.as_fd(), change).step("make read-only", "/dev")?;
    }
    // The root's own propagation as config.json wants it; slave was only for the set-up.
    let wanted = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.rootfs_propagation().as_deref());
    if let Some((propagation, recursive)) = wanted.and_then(parse_propagation)
        && propagation != Propagation::Slave
    {
        newmount::set_root_propagation(propagation, recursive).step("set propagation of", "/")?;
    }
    if let Some(process) = spec.process() {
        // Made if it is missing, as runc does. If it can't be, the change to it says so.
        let _ = inroot::ensure_dir(root.fd.as_fd(), process.cwd());
    }
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        let change = SetAttr {
            set: Attr::RDONLY,
            ..SetAttr::default()
        };
        newmount::set_attr(root.fd.as_fd(), change).step("make read-only", "/")?;
    }
    Ok(())
}

/// What happens inside must not reach the host: slave unless config.json says private.
fn set_old_root_propagation(wanted: Option<&str>) -> Result<(), OciError> {
    let propagation = match wanted {
        None | Some("") => Propagation::Slave,
        Some(text) => match parse_propagation(text) {
            Some((Propagation::Private | Propagation::Unbindable, _)) => Propagation::Private,
            Some(_) => Propagation::Slave,
            None => {
                let allowed = "shared, slave, private, unbindable, or one of them with `r` before it";
                return Err(OciError::field("linux.rootfsPropagation", format!("{text:?}"), allowed));
            }
        },
    };
    newmount::set_root_propagation(propagation, true).step("set propagation of", "/")
}

pub(crate) fn parse_propagation(text: &str) -> Option<(Propagation, bool)> {
    Some(match text {
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

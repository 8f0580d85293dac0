//! A mount of type `cgroup`: the container's own view of the hierarchies.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use berth_sys::inroot;
use berth_sys::newmount::{self, Attr, SetAttr};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::mounts;
use super::options::MountOptions;
use crate::cgroup;
use crate::error::{Context, OciError};

/// A mount of type `cgroup` or `cgroup2`, as the machine has it, at `place`. `groups`: see [`super::prepare`].
pub(super) fn mount(
    spec: &Spec,
    groups: &[(String, PathBuf)],
    place: BorrowedFd<'_>,
    target: &Path,
    options: &MountOptions,
) -> Result<(), OciError> {
    if groups.is_empty() && cgroup::unified() {
        mount_unified(spec, place, target, options)
    } else {
        mount_v1(spec, groups, place, target, options)
    }
}

/// cgroup v2. With a cgroup namespace of its own: a new mount, whose root is the container's cgroup. Without: the host's mount
/// again, and not a new one, which would change the options that the host's has (nsdelegate).
fn mount_unified(spec: &Spec, place: BorrowedFd<'_>, target: &Path, options: &MountOptions) -> Result<(), OciError> {
    let what = || format!("cgroup2 on {}", target.display());
    let again = |folder: &Path| {
        let opened = inroot::open_host_path(folder)?;
        let tree = newmount::clone_tree(opened.as_fd(), false)?;
        let change = SetAttr {
            set: options.set,
            ..SetAttr::default()
        };
        newmount::set_attr(tree.as_fd(), change)?;
        Ok(tree)
    };
    let host = Path::new("/sys/fs/cgroup");
    let mounted = if has_own_namespace(spec) {
        match newmount::new_filesystem("cgroup2", Some("cgroup"), &[], options.set) {
            // A namespace of this kind that a foreign user namespace owns.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ResourceBusy) => again(host),
            other => other,
        }
    } else {
        again(host)
    };
    let mounted = mounted.step("mount", what())?;
    newmount::attach(mounted.as_fd(), place).step("mount", what())?;
    mounts::set_propagation(mounted.as_fd(), options).step("set propagation of", what())
}

fn has_own_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|all| all.iter().any(|one| one.typ() == LinuxNamespaceType::Cgroup))
}

/// cgroup v1 and hybrid: a tmpfs with one folder a hierarchy of v1, and links for names that share one. As runc: the tmpfs itself
/// stays writable, `ro` is for the hierarchies, and a hybrid machine's v2 hierarchy is not shown.
fn mount_v1(
    spec: &Spec,
    groups: &[(String, PathBuf)],
    place: BorrowedFd<'_>,
    target: &Path,
    options: &MountOptions,
) -> Result<(), OciError> {
    let what = || format!("cgroup on {}", target.display());
    let attr = Attr::NOSUID.union(Attr::NODEV).union(Attr::NOEXEC);
    let tmpfs = newmount::new_filesystem("tmpfs", Some("tmpfs"), &["mode=755"], attr).step("mount", what())?;
    newmount::attach(tmpfs.as_fd(), place).step("mount", what())?;

    let own_namespace = has_own_namespace(spec);
    let set = options.set.union(attr);
    let found;
    let groups = if groups.is_empty() {
        found = own_groups()?;
        &found
    } else {
        groups
    };
    for (controllers, own) in groups {
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        if name.is_empty() {
            continue;
        }
        let folder_name = Path::new(name);
        let sub = inroot::ensure_dir(tmpfs.as_fd(), folder_name).step("make mount target", folder_name.display())?;
        let mounted = if own_namespace {
            // A mount made inside the cgroup namespace shows the container's cgroup as its root.
            if controllers.starts_with("name=") {
                newmount::new_filesystem("cgroup", Some(name), &["none", controllers], set)
            } else {
                let names: Vec<&str> = controllers.split(',').collect();
                newmount::new_filesystem("cgroup", Some("cgroup"), &names, set)
            }
        } else {
            inroot::open_host_path(own)
                .and_then(|opened| newmount::clone_tree(opened.as_fd(), false))
                .and_then(|tree| {
                    newmount::set_attr(
                        tree.as_fd(),
                        SetAttr {
                            set,
                            ..SetAttr::default()
                        },
                    )?;
                    Ok(tree)
                })
        };
        let mounted = mounted.step("mount", format!("cgroup {controllers} on {}", target.display()))?;
        newmount::attach(mounted.as_fd(), sub.as_fd()).step("mount", what())?;
        for link in name.split(',').filter(|single| *single != name) {
            // A link that is there already came with another hierarchy.
            let _ = inroot::make_link(tmpfs.as_fd(), link.as_ref(), name);
        }
    }
    mounts::set_propagation(tmpfs.as_fd(), options).step("set propagation of", what())
}

/// Controllers and folder in each hierarchy of v1 that is mounted, of a process that nobody has made groups for.
fn own_groups() -> Result<Vec<(String, PathBuf)>, OciError> {
    let memberships = berth_sys::file::read_text("/proc/self/cgroup").step("read", "/proc/self/cgroup")?;
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, own) = (fields.next()?, fields.next()?);
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        let host = PathBuf::from("/sys/fs/cgroup").join(name);
        let there = !name.is_empty() && host.is_dir();
        there.then(|| (controllers.to_owned(), host.join(own.trim_start_matches('/'))))
    };
    Ok(memberships.lines().filter_map(of_line).collect())
}

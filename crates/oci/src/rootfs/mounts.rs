//! One mount of config.json: bind mounts, new file systems, and cgroup trees.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_sys::inroot::{self, FileKind, Place};
use berth_sys::newmount::{self, Attr, SetAttr};
use berth_sys::unguarded::without;
use oci_spec::runtime::{Mount, Spec};

use super::options::MountOptions;
use super::{Root, cgroupfs};
use crate::error::{Context, OciError};

/// Performs one mount below the root. `made`: a bind mount that the creator has made; `groups`: see [`super::prepare`].
pub(super) fn mount(
    spec: &Spec,
    bundle: &Path,
    root: &mut Root,
    mount: &Mount,
    made: Option<OwnedFd>,
    groups: &[(String, PathBuf)],
) -> Result<(), OciError> {
    let target = &target_of(mount);
    let raw = mount.options().as_deref().unwrap_or_default();
    let options = MountOptions::parse(raw.iter().map(String::as_str));
    let kind = mount.typ().as_deref().unwrap_or(if options.bind { "bind" } else { "" });
    let shown = target.display();
    match kind {
        _ if options.bind || kind == "bind" => bind(bundle, root, mount, target, &options, made),
        "" => Err(OciError::field(
            format!("mounts[{shown}].type"),
            "missing",
            "a file system, or `bind`",
        )),
        "cgroup" | "cgroup2" => {
            let place = inroot::ensure_folder(root.fd.as_fd(), target).step("make mount target", shown)?;
            check_proc(root, &place, target, false)?;
            cgroupfs::mount(spec, groups, place.as_fd(), target, &options)
        }
        kind => new_filesystem(spec, root, kind, mount, target, options),
    }
}

/// The destination from the root of the container, without `.` and `..`: what a `..` would lead out of is the root itself, and the
/// component before it need not be there.
pub(crate) fn target_of(mount: &Mount) -> PathBuf {
    let mut target = PathBuf::from("/");
    for component in mount.destination().components() {
        match component {
            Component::Normal(part) => target.push(part),
            Component::ParentDir => _ = target.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    target
}

/// What may be mounted over in /proc: files that say something of the machine, for which others may stand in (lxcfs).
const MAY_COVER: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
];

/// Refuses a mount that hides or replaces what /proc is trusted for: masks, labels, sysctls (CVE-2019-16884). `is_proc`: a procfs is
/// mounted there. The place is already resolved, so links in the root file system lead nowhere else.
fn check_proc(root: &Root, place: &Place, target: &Path, is_proc: bool) -> Result<(), OciError> {
    // A write for /proc is guarded here too: to see the other guard alone, this one must go.
    if without("proc-targets") || without("procfs") {
        return Ok(());
    }
    let below = if place.straight {
        target.to_owned()
    } else {
        inroot::path_below(root.fd.as_fd(), place.as_fd()).step("look at mount target", target.display())?
    };
    let refuse = |allowed: &str| Err(OciError::field("mounts.destination", target.display(), allowed));
    match below.strip_prefix("/proc") {
        Err(_) => Ok(()),
        Ok(rest) if rest.as_os_str().is_empty() && is_proc => Ok(()),
        Ok(rest) if rest.as_os_str().is_empty() => refuse("only a procfs on /proc"),
        Ok(_) if MAY_COVER.iter().any(|name| Path::new(name) == below) => Ok(()),
        Ok(_) => refuse("not inside of /proc, but for a few files such as /proc/cpuinfo"),
    }
}

fn bind(
    bundle: &Path,
    root: &Root,
    mount: &Mount,
    target: &Path,
    options: &MountOptions,
    made: Option<OwnedFd>,
) -> Result<(), OciError> {
    let source = mount.source().as_ref().ok_or_else(|| {
        OciError::field(
            format!("mounts[{}].source", target.display()),
            "missing",
            "a path on the host",
        )
    })?;
    let source = bundle.join(source);
    let what = || format!("{} on {}", source.display(), target.display());
    let tree = match made {
        Some(tree) => tree,
        None => inroot::open_host_path(&source)
            .and_then(|opened| newmount::clone_tree(opened.as_fd(), options.recursive_bind))
            .step("mount", what())?,
    };
    let folder = inroot::kind_of(tree.as_fd()).step("mount", what())? == FileKind::Folder;
    let place = place(root.fd.as_fd(), target, folder).step("make mount target", target.display())?;
    let magic = newmount::filesystem_magic(tree.as_fd()).step("look at", source.display())?;
    check_proc(root, &place, target, magic == newmount::PROC_MAGIC)?;
    set_flags(tree.as_fd(), options).step("set mount flags of", what())?;
    newmount::attach(tree.as_fd(), place.as_fd()).step("mount", what())?;
    set_propagation(tree.as_fd(), options).step("set propagation of", what())
}

fn new_filesystem(
    spec: &Spec,
    root: &mut Root,
    kind: &str,
    mount: &Mount,
    target: &Path,
    mut options: MountOptions,
) -> Result<(), OciError> {
    let what = || format!("{kind} on {}", target.display());
    let place = if matches!(kind, "proc" | "sysfs") {
        // A link here would let the root filesystem choose where the real /proc is.
        inroot::ensure_plain_folder(root.fd.as_fd(), target)
    } else {
        // A tmpfs takes the mode of what it covers, unless told.
        if kind == "tmpfs"
            && !options.data.iter().any(|option| option.starts_with("mode="))
            && let Ok(covered) = inroot::open_path(root.fd.as_fd(), target)
            && let Ok(mode) = inroot::mode_of(covered.as_fd())
        {
            options.data.push(format!("mode={mode:o}"));
        }
        inroot::ensure_folder(root.fd.as_fd(), target)
    };
    let place = place.step("make mount target", target.display())?;
    check_proc(root, &place, target, kind == "proc")?;
    let source = mount
        .source()
        .as_ref()
        .map(|source| source.to_string_lossy().into_owned());
    if let Some(label) = label_of(spec).filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue")) {
        options.data.push(format!("context={label}"));
    }
    let mut data: Vec<&str> = options.data.iter().map(String::as_str).collect();
    // /dev is filled first and made read-only after.
    let read_only = options.set.contains(Attr::RDONLY);
    let late = target == Path::new("/dev") && read_only;
    let attr = if late {
        options.set.without(Attr::RDONLY)
    } else {
        options.set
    };
    if read_only && !late && kind != "tmpfs" {
        // mount(2) of old makes the file system itself read-only too; a tmpfs is filled first, and only its mount is.
        data.push("ro");
    }
    let fs = newmount::new_filesystem(kind, source.as_deref(), &data, attr).step("mount", what())?;
    newmount::attach(fs.as_fd(), place.as_fd()).step("mount", what())?;
    if let Some(label) = label_of(spec).filter(|_| kind == "mqueue") {
        // It takes no option for it.
        inroot::set_label(fs.as_fd(), label).step("label", what())?;
    }
    if options.tmpcopyup {
        copy_up(place.as_fd(), fs.as_fd()).step("copy up", target.display())?;
    }
    set_propagation(fs.as_fd(), &options).step("set propagation of", what())?;
    if late {
        root.late_readonly.push(fs);
    }
    Ok(())
}

fn label_of(spec: &Spec) -> Option<&str> {
    let label = spec.linux().as_ref()?.mount_label().as_deref()?;
    (!label.is_empty()).then_some(label)
}

/// Where a mount goes, made if it is missing.
pub(super) fn place(root: BorrowedFd<'_>, target: &Path, folder: bool) -> io::Result<Place> {
    if folder {
        inroot::ensure_folder(root, target)
    } else {
        inroot::ensure_file(root, target)
    }
}

pub(super) fn set_flags(tree: BorrowedFd<'_>, options: &MountOptions) -> io::Result<()> {
    if !options.set_recursive.is_empty() || !options.clear_recursive.is_empty() {
        let change = SetAttr {
            set: options.set_recursive,
            clear: options.clear_recursive,
            recursive: true,
            ..SetAttr::default()
        };
        newmount::set_attr(tree, change)?;
    }
    if !options.set.is_empty() || !options.clear.is_empty() {
        newmount::set_attr(
            tree,
            SetAttr {
                set: options.set,
                clear: options.clear,
                ..SetAttr::default()
            },
        )?;
    }
    Ok(())
}

pub(super) fn set_propagation(tree: BorrowedFd<'_>, options: &MountOptions) -> io::Result<()> {
    for (propagation, recursive) in &options.propagation {
        let change = SetAttr {
            propagation: Some(*propagation),
            recursive: *recursive,
            ..SetAttr::default()
        };
        newmount::set_attr(tree, change)?;
    }
    Ok(())
}

/// Copies what a tmpfs covers into it (tmpcopyup): plain files, folders and links, as runc does.
fn copy_up(covered: BorrowedFd<'_>, into: BorrowedFd<'_>) -> io::Result<()> {
    berth_sys::inroot::copy_tree(covered, into)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_target_stays_below_the_root() {
        let target = |destination: &str| {
            let mut mount = Mount::default();
            mount.set_destination(destination.into());
            target_of(&mount)
        };
        assert_eq!(target("/mnt/../x"), Path::new("/x"));
        assert_eq!(target("a/./b/"), Path::new("/a/b"));
        assert_eq!(target("/../../etc/.."), Path::new("/"));
    }
}

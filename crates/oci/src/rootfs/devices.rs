//! /dev: the default devices, those of config.json, the usual links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use berth_sys::inroot::{self, NodeKind};
use berth_sys::newmount;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Spec};

use super::mounts;
use crate::error::{Context, OciError};

/// OCI runtime specification, "Default Devices".
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) fn make(spec: &Spec, root: BorrowedFd<'_>) -> Result<(), OciError> {
    let dev = inroot::ensure_dir(root, Path::new("/dev")).step("open", "/dev")?;
    let linux = spec.linux().as_ref();
    let own_users = linux
        .and_then(|linux| linux.namespaces().as_ref())
        .is_some_and(|all| all.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User));
    for (name, major, minor) in DEFAULTS {
        let kind = NodeKind::Char(major, minor);
        let made = node(dev.as_fd(), OsStr::new(name), kind, 0o666, None, own_users);
        made.step("make device", format!("/dev/{name}"))?;
    }
    for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
        from_spec(root, device, own_users).step("make device", device.path().display())?;
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), OsStr::new(name), target).step("make link", format!("/dev/{name}"))?;
    }
    // Only where the kernel has it: a dangling link would break tools that copy /dev.
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), OsStr::new("core"), "/proc/kcore").step("make link", "/dev/core")?;
    }
    Ok(())
}

fn from_spec(root: BorrowedFd<'_>, device: &LinuxDevice, own_users: bool) -> io::Result<()> {
    let number = |value: i64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let kind = match device.typ() {
        LinuxDeviceType::B => NodeKind::Block(number(device.major())?, number(device.minor())?),
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Char(number(device.major())?, number(device.minor())?),
        LinuxDeviceType::P => NodeKind::Fifo,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "type must be c, u, b or p")),
    };
    let owner = match (device.uid(), device.gid()) {
        (None, None) => None,
        (uid, gid) => Some((uid.unwrap_or(0), gid.unwrap_or(0))),
    };
    let (folder, name) = inroot::parent_of(root, device.path())?;
    let mode = device.file_mode().map(|mode| mode & 0o7777);
    if !node(folder.as_fd(), name, kind, mode.unwrap_or(0o666), owner, own_users)? {
        // The root file system brought it with a mode and an owner of its own.
        inroot::change_node(folder.as_fd(), name, kind, mode, owner)?;
    }
    Ok(())
}

/// False if it was there.
fn node(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    kind: NodeKind,
    mode: u32,
    owner: Option<(u32, u32)>,
    bind: bool,
) -> io::Result<bool> {
    if bind {
        // A user namespace may not make devices: the host's own is bound in its place, as runc does.
        let host = inroot::open_host_path(&Path::new("/dev").join(name))?;
        let place = mounts::place(folder, Path::new(name), false)?;
        let tree = newmount::clone_tree(host.as_fd(), false)?;
        newmount::attach(tree.as_fd(), place.as_fd())?;
        return Ok(true);
    }
    match inroot::make_node(folder, name, kind, mode) {
        Ok(()) => {}
        // The root filesystem brought one: it must be the same device, else the config's word would be a lie.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            inroot::check_node(folder, name, kind)?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    if let Some((uid, gid)) = owner {
        inroot::own_node(folder, name, uid, gid)?;
    }
    Ok(true)
}

fn link(dev: BorrowedFd<'_>, name: &OsStr, target: &str) -> io::Result<()> {
    match inroot::make_link(dev, name, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

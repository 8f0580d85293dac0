//! Bind mounts that a container's init can't make itself: id-mapped ones, and in a user namespace those whose source its root may
//! not reach.
//!
//! A process with the creator's rights on the host joins the init's mount namespace, opens the sources there and hands the mounts
//! over. In that namespace, because there the flags of the host's mounts are locked: a copy made on the host could be made writable
//! by the root of the user namespace.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use berth_sys::newmount::{self, Attr, SetAttr};
use berth_sys::{inroot, process as proc, socket};
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use crate::create::mapping_text;
use crate::error::{Context, OciError};
use crate::rootfs::options::{Idmap, MountOptions};

const LONGEST: usize = 4096;

/// Detached mounts by their number in `mounts`.
pub(crate) type Sources = HashMap<usize, OwnedFd>;

/// Whether the init needs any.
pub(crate) fn wanted(spec: &Spec, own_users: bool) -> bool {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    mounts
        .iter()
        .any(|mount| is_wanted(mount, &options_of(mount), own_users))
}

fn options_of(mount: &Mount) -> MountOptions {
    MountOptions::parse(mount.options().iter().flatten().map(String::as_str))
}

fn is_wanted(mount: &Mount, options: &MountOptions, own_users: bool) -> bool {
    let bind = options.bind || mount.typ().as_deref() == Some("bind");
    bind && (own_users || is_mapped(mount, options))
}

fn is_mapped(mount: &Mount, options: &MountOptions) -> bool {
    options.idmap.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some()
}

/// The creator's side. `init`: the process, which waits in [`receive`].
pub(crate) fn send(
    spec: &Spec,
    bundle: &Path,
    own_users: bool,
    init: (u32, &OwnedFd),
    socket: &OwnedFd,
) -> Result<(), OciError> {
    let clone = CloneOptions::default();
    match namespaces::clone_process(clone).step("clone", "process for mounts")? {
        Cloned::Child => {
            let done = send_all(spec, bundle, own_users, init, socket);
            let last = match &done {
                Ok(()) => b"D".to_vec(),
                Err(error) => {
                    let text = error.to_string();
                    [&b"F"[..], &text.as_bytes()[..text.len().min(LONGEST - 1)]].concat()
                }
            };
            let told = socket::send_fds(socket, &last, &[]);
            proc::exit_now(i32::from(told.is_err()))
        }
        Cloned::Parent { pid, pidfd } => {
            // The init gives up on an error and says so itself.
            let _ = proc::wait_until_ended(&pidfd, None);
            proc::reap(pid).step("reap", "process for mounts")?;
            Ok(())
        }
    }
}

fn send_all(
    spec: &Spec,
    bundle: &Path,
    own_users: bool,
    (pid, pidfd): (u32, &OwnedFd),
    socket: &OwnedFd,
) -> Result<(), OciError> {
    // Before the view of /proc may change.
    let users = File::open(format!("/proc/{pid}/ns/user")).step("open user namespace of", pid)?;
    let mut maps = HashMap::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let (Some(uids), Some(gids)) = (mount.uid_mappings(), mount.gid_mappings()) else {
            continue;
        };
        maps.insert(index, users_with(uids, gids)?);
    }
    namespaces::join(pidfd.as_fd(), Namespaces::MOUNT).step("join mount namespace of", pid)?;
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = options_of(mount);
        if !is_wanted(mount, &options, own_users) {
            continue;
        }
        let source = bundle.join(mount.source().as_deref().unwrap_or(Path::new("")));
        let what = || format!("{} on {}", source.display(), mount.destination().display());
        let opened = inroot::open_host_path(&source).step("mount", what())?;
        let tree = newmount::clone_tree(opened.as_fd(), options.recursive_bind).step("mount", what())?;
        if is_mapped(mount, &options) {
            let change = SetAttr {
                set: Attr::IDMAP,
                userns: Some(maps.get(&index).unwrap_or(&users).as_fd()),
                recursive: options.idmap == Some(Idmap::Recursive),
                ..SetAttr::default()
            };
            newmount::set_attr(tree.as_fd(), change).step("map the ids of", what())?;
        }
        let message = [&b"T"[..], &(index as u32).to_be_bytes()].concat();
        socket::send_fds(socket, &message, &[tree.as_fd()]).step("hand over mount", what())?;
    }
    Ok(())
}

/// A user namespace with these maps, held by nothing but its descriptor.
fn users_with(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<File, OciError> {
    let (ours, theirs) = socket::stream_pair(false).step("make", "socketpair")?;
    let clone = CloneOptions {
        namespaces: Namespaces::USER,
        ..CloneOptions::default()
    };
    match namespaces::clone_process(clone).step("clone", "process for an id-mapped mount")? {
        Cloned::Child => {
            drop(ours);
            // Until the other end closes.
            let _ = File::from(theirs).read(&mut [0]);
            proc::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let write = |file: &str, map: &[LinuxIdMapping]| {
                let text = mapping_text(map);
                std::fs::write(format!("/proc/{pid}/{file}"), &text).step("map the ids of a mount to", text.trim_end())
            };
            let made = write("uid_map", uids)
                .and_then(|()| write("gid_map", gids))
                .and_then(|()| File::open(format!("/proc/{pid}/ns/user")).step("open user namespace of", pid));
            drop(ours);
            let _ = proc::wait_until_ended(&pidfd, None);
            let _ = proc::reap(pid);
            made
        }
    }
}

/// The init's side.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Sources, OciError> {
    let mut all = Sources::new();
    loop {
        let mut buffer = [0u8; LONGEST];
        let mut received = socket::recv_fds(socket, &mut buffer).step("receive", "mounts")?;
        match (&buffer[..received.len], received.fds.pop()) {
            ([b'T', index @ ..], Some(tree)) => {
                let index = index.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
                all.insert(index, tree);
            }
            ([b'D'], _) => return Ok(all),
            ([b'F', text @ ..], _) => {
                return Err(OciError::Init {
                    message: String::from_utf8_lossy(text).into_owned(),
                    exit_code: 1,
                });
            }
            _ => return Err(OciError::InitLost),
        }
    }
}

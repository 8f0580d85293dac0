//! The container's first process from its making to its execve: it builds its own surroundings, because only it is inside.
//!
//! Invariants: it runs in the creator's forked copy, single-threaded; every descriptor it holds closes at execve but 0, 1,
//! 2 and the preserved ones; it never returns to the creator's code.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::namespaces::{self, Namespaces};
use berth_sys::unguarded::without;
use berth_sys::{credentials, limits};
use oci_spec::runtime::{Process, Spec};

use crate::channel::{Channel, Message};
use crate::console;
use crate::error::{Context, OciError};
use crate::guard;
use crate::hooks;
use crate::last::LastSteps;
use crate::plan::Plan;
use crate::rootfs;
use crate::sources::{self, Sources};
use crate::sysctl;

/// What the init process is given by the creator.
pub(crate) struct Inside<'a> {
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub plan: &'a Plan,
    pub channel: Channel,
    /// Its cgroups of version 1, as [`rootfs::prepare`] wants them.
    pub groups: Vec<(String, PathBuf)>,
    /// Where mounts come from that the creator makes.
    pub mounts: Option<OwnedFd>,
    /// Where the start is heard: a listening socket in the container's state folder; `None` = over the channel.
    pub ear: Option<OwnedFd>,
    /// Where the terminal's master goes.
    pub console: Option<OwnedFd>,
    /// Instead of the creator's own.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    pub pivot: bool,
    pub new_keyring: bool,
    /// The first descriptor after 0–2 and those that the caller wants kept.
    pub first_closed: u32,
    pub container_id: &'a str,
}

/// Becomes the container's process, or tells why not and ends.
pub(crate) fn run(mut inside: Inside<'_>) -> ! {
    let error = match become_container(&mut inside) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let failed = Message::Failed {
        exit_code: error.exit_code(),
        text: error.to_string(),
    };
    // If the creator is gone there is nobody to tell.
    let _ = inside.channel.send(&failed);
    berth_sys::process::exit_now(i32::from(error.exit_code()))
}

fn become_container(inside: &mut Inside<'_>) -> Result<Infallible, OciError> {
    let spec = inside.spec;
    let plan = inside.plan;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| OciError::field("process", "missing", "an object"))?;
    if let Some(stdio) = inside.stdio {
        berth_sys::execve::set_stdio(stdio).step("set", "standard descriptors")?;
    }
    let needed = [Some(inside.channel.as_fd()), inside.ear.as_ref().map(AsFd::as_fd)];
    let console = inside.console.as_ref().map(AsFd::as_fd);
    let mounts = inside.mounts.as_ref().map(AsFd::as_fd);
    let joined = plan.join.iter().map(|(_, namespace, _)| Some(namespace.as_fd()));
    let keep: Vec<BorrowedFd<'_>> = needed
        .into_iter()
        .chain([console, mounts])
        .chain(joined)
        .flatten()
        .collect();
    guard::shield(inside.first_closed, &keep)?;
    if !without("descriptors") {
        limits::close_on_exec_from(inside.first_closed).step("close", "file descriptors")?;
    }
    // What is made in the root filesystem gets exactly the modes it is made with.
    limits::set_umask(0);
    limits::new_session().step("start", "session")?;
    if !plan.own_users() {
        plan.join(Namespaces::ALL.without(Plan::JOINED_BEFORE))?;
    }
    if plan.maps_users {
        inside.channel.expect(&Message::Mapped)?;
        // Until now this was nobody; what follows is done as the namespace's root.
        credentials::set_uid(0).step("become", "root of the user namespace")?;
        if plan.setgroups {
            credentials::set_groups(0, &[]).step("become", "root of the user namespace")?;
        } else {
            credentials::set_gid(0).step("become", "root of the user namespace")?;
        }
    }
    if plan.join_first {
        inside.channel.expect(&Message::Joined)?;
    }
    if plan.new.contains(Namespaces::CGROUP) {
        namespaces::unshare(Namespaces::CGROUP).step("unshare", "cgroup namespace")?;
    }
    if inside.new_keyring
        && let Some(keyring) = session_keyring(inside.container_id)?
    {
        let allowed = credentials::allow_keyring_search(keyring, plan.maps_users);
        allowed.step("set permissions of", "session keyring")?;
    }
    if plan.new.contains(Namespaces::NET) {
        namespaces::loopback_up().step("bring up", "lo")?;
    }
    let hooks = spec.hooks().as_ref();
    if plan.new.contains(Namespaces::MOUNT) {
        rootfs::part_from_host(spec)?;
        let mut mounts = Sources::new();
        if let Some(socket) = inside.mounts.take() {
            inside.channel.send(&Message::Mounts).step("ask for", "mounts")?;
            mounts = sources::receive(socket.as_fd())?;
        }
        let root = rootfs::prepare(spec, inside.bundle, mounts, &inside.groups)?;
        if plan.hooks_before_pivot {
            inside.channel.send(&Message::Hooks).step("ask for", "hooks")?;
            inside.channel.expect(&Message::Hooked)?;
            if let Some(all) = hooks.and_then(|hooks| hooks.create_container().as_ref()) {
                hooks::run_all("createContainer", all, &plan.state_json("creating", std::process::id()))?;
            }
        }
        rootfs::enter(&root, spec, inside.pivot)?;
        guard::own_null(root.fd.as_fd())?;
        if let Some(socket) = &inside.console {
            console::set_up(root.fd.as_fd(), socket.as_fd(), process)?;
        }
        names(spec)?;
        sysctl::apply(spec, root.fd.as_fd())?;
        rootfs::seal(spec, &root.fd)?;
    } else {
        names(spec)?;
    }
    finish(inside, process)
}

/// From the finished surroundings to the execve.
fn finish(inside: &mut Inside<'_>, process: &Process) -> Result<Infallible, OciError> {
    let plan = inside.plan;
    let last = LastSteps {
        process,
        scheduling: &plan.scheduling,
        personality: inside
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.personality().as_ref()),
        memory_policy: inside
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.memory_policy().as_ref()),
        seccomp: plan.seccomp.as_ref(),
        setgroups: plan.setgroups,
        keep_affinity: false,
        limits_from_outside: plan.own_users(),
    };
    let command = last.prepare(&mut inside.channel)?;
    inside.channel.send(&Message::Ready).step("report", "ready")?;
    if !plan.join_first {
        inside.channel.expect(&Message::Joined)?;
    }
    if let Some(ear) = &inside.ear {
        let connected = berth_sys::execve::accept_root(ear.as_fd()).step("wait for", "start")?;
        inside.channel = Channel::from_fd(connected);
    }
    inside.channel.expect(&Message::Start)?;
    if let Some(all) = inside
        .spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.start_container().as_ref())
    {
        hooks::run_all("startContainer", all, &plan.state_json("created", std::process::id()))?;
    }
    last.execute(&command, &mut inside.channel)
}

/// Joins the container's session keyring, which is made if there is none of that name.
pub(crate) fn session_keyring(id: &str) -> Result<Option<i32>, OciError> {
    match credentials::new_session_keyring(&format!("_ses.{id}")) {
        Ok(serial) => Ok(Some(serial)),
        // A kernel without keyrings, or a quota that is used up: runc goes on too.
        Err(error) if matches!(error.raw_os_error(), Some(libc_errno::ENOSYS | libc_errno::EDQUOT)) => Ok(None),
        Err(error) => Err(error).step("join", "session keyring"),
    }
}

mod libc_errno {
    //! The two error numbers that have no `io::ErrorKind`; the same on every Linux architecture of ours.
    pub const ENOSYS: i32 = 38;
    pub const EDQUOT: i32 = 122;
}

fn names(spec: &Spec) -> Result<(), OciError> {
    let given = |name: &&String| !name.is_empty();
    if let Some(name) = spec.hostname().as_ref().filter(given) {
        namespaces::set_hostname(name).step("set hostname", name)?;
    }
    if let Some(name) = spec.domainname().as_ref().filter(given) {
        namespaces::set_domainname(name).step("set domainname", name)?;
    }
    Ok(())
}

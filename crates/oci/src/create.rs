//! Making a container: from a spec to a process that waits for its start.
//!
//! Runs in a creator, a forked single-threaded process that may block and that joins namespaces without a way back. What
//! fails undoes everything: the init process is killed, the cgroups that were made are removed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use berth_sys::process;
use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::between;
use crate::cgroup::Cgroups;
use crate::channel::{Channel, Message};
use crate::error::{Context, OciError};
use crate::hooks;
use crate::init::{self, Inside};
use crate::netdev;
use crate::plan::{OwnNamespaces, Plan};
use crate::process as process_settings;
use crate::rdt;
use crate::seccomp::Filter;
use crate::sources;
use crate::state::{self, Container};

/// What to make and how.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// Where the runtime keeps its state, a folder a container.
    pub root: &'a Path,
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    pub spec: &'a Spec,
    /// The same as text, kept for `exec`.
    pub spec_text: &'a [u8],
    /// The container's stdin, stdout and stderr; `None` = the caller's own.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// A connected socket that gets the terminal's master, if `process.terminal`.
    pub console: Option<OwnedFd>,
    /// pivot_root(2); otherwise the root is moved and chroot'ed into.
    pub pivot: bool,
    pub new_keyring: bool,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// The init process becomes the child of the caller's parent.
    pub sibling: bool,
    /// A folder of the caller's where compiled seccomp programs are kept.
    pub filters: Option<&'a Path>,
    /// systemd makes the cgroup.
    pub systemd_cgroup: bool,
}

/// Makes the container.
///
/// # Errors
/// See [`OciError`]; nothing is left behind.
pub fn create(options: CreateOptions<'_>) -> Result<Container, OciError> {
    make(options, true).map(|made| made.container)
}

/// Makes the container and lets it run, if `go` says so once it is made. What [`create`] and [`Container::start`] do in two processes
/// that must find each other again is one conversation here.
///
/// # Errors
/// As [`create`] until `go` was asked, and if it says no; from then on as [`Container::start`], and the container is the caller's to
/// delete.
pub fn run(options: CreateOptions<'_>, go: &mut dyn FnMut(&Container) -> bool) -> Result<Container, OciError> {
    let (spec, root, id, sibling) = (options.spec, options.root, options.id, options.sibling);
    let Made {
        container,
        pidfd,
        mut channel,
    } = make(options, false)?;
    if !go(&container) {
        kill(container.pid, &pidfd, sibling);
        container.cgroups.undo();
        let _ = rdt::remove(spec, id);
        // The caller has given it up; a later delete finds what would not go.
        let _ = state::forget(root, id);
        return Err(OciError::InitLost);
    }
    container.let_run(&mut channel, &|| Ok(Cow::Borrowed(spec)))?;
    container.poststart(spec)?;
    Ok(container)
}

/// A container whose init process waits for its start.
struct Made {
    container: Container,
    pidfd: OwnedFd,
    channel: Channel,
}

/// `listens`: the start comes over a socket in the container's folder, and not over the channel.
fn make(options: CreateOptions<'_>, listens: bool) -> Result<Made, OciError> {
    let plan = Plan::new(options.spec, options.id, options.bundle, options.filters)?;
    let folder = state::claim(options.root, options.id)?;
    let (root, id) = (options.root, options.id);
    make_in(folder, options, &plan, listens).inspect_err(|_| {
        // What kept the folder from going is what kept the container from coming: the first error is the one to tell.
        let _ = state::forget(root, id);
    })
}

fn make_in(folder: PathBuf, options: CreateOptions<'_>, plan: &Plan, listens: bool) -> Result<Made, OciError> {
    let (id, bundle, text, sibling) = (options.id, options.bundle, options.spec_text, options.sibling);
    let ear = listens.then(|| state::listen(&folder)).transpose()?;
    let linux = options.spec.linux().as_ref();
    let path = linux
        .and_then(|linux| linux.cgroups_path().as_ref())
        .map(|path| path.to_string_lossy().into_owned());
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let path = path.as_deref().unwrap_or("");
    let cgroups = if options.systemd_cgroup {
        let none = HashMap::new();
        Cgroups::plan_scope(path, id, options.spec.annotations().as_ref().unwrap_or(&none))?
    } else {
        Cgroups::plan(path, id)?
    };
    // Written down before they are made: whoever finds this half done knows what to remove.
    let mut container = Container::new(folder, id, bundle, cgroups);
    container.save(text)?;
    container.cgroups.make(resources)?;
    let Init {
        pid,
        pidfd,
        start_time,
        channel,
    } = make_process(options, plan, &container.cgroups, ear).inspect_err(|_| container.cgroups.undo())?;
    container.has_init(pid, start_time).inspect_err(|_| {
        kill(pid, &pidfd, sibling);
        container.cgroups.undo();
    })?;
    Ok(Made {
        container,
        pidfd,
        channel,
    })
}

/// Ends an init process that will not be used. It may have ended by itself: then there is nothing to kill.
fn kill(pid: u32, pidfd: &OwnedFd, sibling: bool) {
    let _ = process::pidfd_send_signal(pidfd, berth_sys::signal::SIGKILL);
    let _ = process::wait_until_ended(pidfd, Some(Duration::from_secs(10)));
    if !sibling {
        let _ = process::reap(pid);
    }
}

/// The init process.
struct Init {
    pid: u32,
    pidfd: OwnedFd,
    start_time: u64,
    channel: Channel,
}

/// Read while the process is known to live: its parent may reap it at any moment, and the number be another's then.
fn start_time(pid: u32, pidfd: &OwnedFd) -> Result<u64, OciError> {
    let found = process::start_time(pid);
    match process::has_ended(pidfd).step("look at init process", pid)? {
        false => found.step("read start time of", pid),
        true => Err(OciError::InitLost),
    }
}

fn make_process(
    options: CreateOptions<'_>,
    plan: &Plan,
    cgroups: &Cgroups,
    ear: Option<OwnedFd>,
) -> Result<Init, OciError> {
    let (ours, theirs) = Channel::pair().step("make", "socketpair")?;
    let mounts = plan.sources.then(|| berth_sys::socket::seqpacket_pair(false));
    let (to_init, from_creator) = mounts.transpose().step("make", "socketpair")?.unzip();
    let sibling = options.sibling;
    let (spec, bundle) = (options.spec, options.bundle);
    let inside = |channel| Inside {
        spec,
        bundle,
        plan,
        channel,
        groups: cgroups.folders(),
        mounts: from_creator,
        ear,
        console: options.console,
        stdio: options.stdio,
        pivot: options.pivot,
        new_keyring: options.new_keyring,
        first_closed: 3 + options.preserve_fds,
        container_id: options.id,
    };
    let mut cradle = None;
    let (pid, pidfd, ours, own) = if plan.joins_users {
        let (pid, pidfd) = between::make_init(plan, sibling, || inside(theirs))?;
        (pid, pidfd, ours, None)
    } else {
        // What only a child can take on is joined here; the rest the init process joins itself, so that the caller keeps its
        // own view of /proc. With a user namespace of its own it could not: then everything is joined before.
        cradle = cgroups.cradle()?;
        let before = if plan.maps_users {
            Namespaces::ALL
        } else {
            Plan::JOINED_BEFORE
        };
        let own = plan.own(before)?;
        plan.join(before)?;
        let clone = CloneOptions {
            namespaces: plan.at_clone()?,
            sibling,
            cgroup: cradle.as_ref().map(AsFd::as_fd),
        };
        match namespaces::clone_process(clone).step("clone", "init process")? {
            Cloned::Child => {
                drop((ours, cradle, own));
                init::run(inside(theirs))
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                (pid, pidfd, ours, Some(own))
            }
        }
    };
    let mut channel = ours;
    let outside = cradle.is_none().then_some(cgroups);
    let attended = own
        .map_or(Ok(()), OwnNamespaces::rejoin)
        .and_then(|()| attend(spec, bundle, plan, outside, (pid, &pidfd), to_init, &mut channel));
    match attended.and_then(|()| start_time(pid, &pidfd)) {
        Ok(start_time) => Ok(Init {
            pid,
            pidfd,
            start_time,
            channel,
        }),
        Err(error) => {
            // One that has ended by itself knows better than whoever ran into its end.
            let ended = matches!(process::has_ended(&pidfd), Ok(true));
            let said = if ended { channel.last_words() } else { None };
            kill(pid, &pidfd, sibling);
            // What keeps it from going is what kept the container from coming.
            let _ = rdt::remove(spec, plan.id());
            Err(said.unwrap_or(error))
        }
    }
}

/// The creator's side of the conversation with the init process.
fn attend(
    spec: &Spec,
    bundle: &Path,
    plan: &Plan,
    outside: Option<&Cgroups>,
    (pid, pidfd): (u32, &OwnedFd),
    mounts: Option<OwnedFd>,
    channel: &mut Channel,
) -> Result<(), OciError> {
    let score = spec.process().as_ref().and_then(|process| process.oom_score_adj());
    process_settings::set_oom_score(pid, score)?;
    if plan.maps_users {
        write_mappings(spec, pid)?;
        channel.tell(&Message::Mapped)?;
    }
    // One that was not born in its cgroups.
    if let Some(cgroups) = outside {
        let linux = spec.linux().as_ref();
        cgroups.join(pid, linux.and_then(|linux| linux.resources().as_ref()))?;
    }
    rdt::join(spec, plan.id(), pid)?;
    netdev::move_all(spec, plan, pid)?;
    channel.tell(&Message::Joined)?;
    if let Some(socket) = mounts {
        channel.expect(&Message::Mounts)?;
        sources::send(spec, bundle, plan.own_users(), (pid, pidfd), &socket)?;
    }
    if plan.hooks_before_pivot {
        channel.expect(&Message::Hooks)?;
        if let Some(all) = spec.hooks() {
            let state = plan.state_json("creating", pid);
            #[allow(deprecated, reason = "prestart hooks are still what container engines write")]
            hooks::run_all("prestart", all.prestart().as_deref().unwrap_or_default(), &state)?;
            hooks::run_all(
                "createRuntime",
                all.create_runtime().as_deref().unwrap_or_default(),
                &state,
            )?;
        }
        channel.tell(&Message::Hooked)?;
    }
    if let Some(process) = spec.process().as_ref().filter(|_| plan.own_users()) {
        channel.expect(&Message::Limits)?;
        process_settings::set_limits(pid, process)?;
        channel.tell(&Message::Limited)?;
    }
    let introduce = |number| match plan.seccomp.as_ref().and_then(Filter::listener) {
        Some(listener) => listener.introduce(pid, number, &plan.state("creating", pid)),
        None => Err(OciError::InitLost),
    };
    match channel.receive_introducing(&introduce)? {
        Some(Message::Ready) => Ok(()),
        _ => Err(OciError::InitLost),
    }
}

/// As uid_map and gid_map take it.
pub(crate) fn mapping_text(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |text, mapping| {
        text + &format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size())
    })
}

fn write_mappings(spec: &Spec, pid: u32) -> Result<(), OciError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for (file, mappings) in [("gid_map", linux.gid_mappings()), ("uid_map", linux.uid_mappings())] {
        let text = mapping_text(mappings.as_deref().unwrap_or_default());
        if text.is_empty() {
            let field = format!("linux.{}Mappings", &file[..3]);
            return Err(OciError::field(
                field,
                "missing",
                "at least one mapping, with a new user namespace",
            ));
        }
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &text).step("write", format!("{path}: {}", text.trim_end()))?;
    }
    Ok(())
}

//! Making a container: from a spec to a process that waits for its start, and the start itself.
//!
//! Runs in a creator, a forked single-threaded process that may block and that joins namespaces without a way back. What
//! fails undoes everything: the init process is killed, the cgroups that were made are removed.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::cgroup::Cgroups;
use crate::channel::{Channel, Message};
use crate::error::{Context, OciError};
use crate::hooks;
use crate::init::{self, Inside};
use crate::plan::Plan;

/// What to make and how.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    pub spec: &'a Spec,
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
}

/// A container before its start.
#[derive(Debug)]
pub struct Created {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroups: Cgroups,
    channel: Channel,
}

impl Created {
    /// Where [`start`] says its word; whoever holds it can start the container.
    #[must_use]
    pub fn into_start_fd(self) -> OwnedFd {
        self.channel.into_fd()
    }

    /// Lets the process execve and waits until it has.
    ///
    /// # Errors
    /// What kept it from running, as the process itself told.
    pub fn start(&mut self) -> Result<(), OciError> {
        start_on(&mut self.channel)
    }
}

/// As [`Created::start`], by the descriptor of [`Created::into_start_fd`].
///
/// # Errors
/// See there.
pub fn start(fd: OwnedFd) -> Result<(), OciError> {
    start_on(&mut Channel::from_fd(fd))
}

fn start_on(channel: &mut Channel) -> Result<(), OciError> {
    channel.send(&Message::Start).step("start", "container")?;
    match channel.receive().step("start", "container")? {
        None => Ok(()),
        Some(Message::Failed { exit_code, text }) => Err(OciError::Init {
            message: text,
            exit_code,
        }),
        Some(_) => Err(OciError::InitLost),
    }
}

/// Makes the container.
///
/// # Errors
/// See [`OciError`]; nothing is left behind.
pub fn create(options: CreateOptions<'_>) -> Result<Created, OciError> {
    let spec = options.spec;
    let plan = Plan::new(spec, options.id, options.bundle)?;
    let linux = spec.linux().as_ref();
    let path = linux
        .and_then(|linux| linux.cgroups_path().as_ref())
        .map(|path| path.to_string_lossy().into_owned());
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let cgroups = Cgroups::create(path.as_deref().unwrap_or(""), options.id, resources)?;
    match make_process(options, &plan, &cgroups) {
        Ok((pid, pidfd, channel)) => Ok(Created {
            pid,
            pidfd,
            cgroups,
            channel,
        }),
        Err(error) => {
            cgroups.undo();
            Err(error)
        }
    }
}

fn make_process(
    options: CreateOptions<'_>,
    plan: &Plan,
    cgroups: &Cgroups,
) -> Result<(u32, OwnedFd, Channel), OciError> {
    for (kind, namespace, path) in &plan.join {
        use std::os::fd::AsFd;
        namespaces::join(namespace.as_fd(), *kind).step("join namespace", path.display())?;
    }
    let (ours, theirs) = Channel::pair().step("make", "socketpair")?;
    let clone = CloneOptions {
        // The cgroup namespace is made when the process is in its cgroups: its root is what it is in then.
        namespaces: plan.new.without(Namespaces::CGROUP),
        sibling: options.sibling,
        cgroup: None,
    };
    match namespaces::clone_process(clone).step("clone", "init process")? {
        Cloned::Child => {
            drop(ours);
            init::run(Inside {
                spec: options.spec,
                bundle: options.bundle,
                plan,
                channel: theirs,
                console: options.console,
                stdio: options.stdio,
                pivot: options.pivot,
                new_keyring: options.new_keyring,
                first_closed: 3 + options.preserve_fds,
                container_id: options.id,
            })
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut channel = ours;
            match attend(options.spec, plan, cgroups, pid, &mut channel) {
                Ok(()) => Ok((pid, pidfd, channel)),
                Err(error) => {
                    // It may have ended by itself: then there is nothing to kill.
                    let _ = berth_sys::process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGKILL);
                    let _ = berth_sys::process::wait_until_ended(&pidfd, Some(std::time::Duration::from_secs(10)));
                    if !options.sibling {
                        let _ = berth_sys::process::reap(pid);
                    }
                    Err(error)
                }
            }
        }
    }
}

/// The creator's side of the conversation with the init process.
fn attend(spec: &Spec, plan: &Plan, cgroups: &Cgroups, pid: u32, channel: &mut Channel) -> Result<(), OciError> {
    if plan.maps_users {
        write_mappings(spec, pid)?;
        channel.send(&Message::Mapped).step("talk to", "init process")?;
    }
    cgroups.join(pid)?;
    channel.send(&Message::Joined).step("talk to", "init process")?;
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
        channel.send(&Message::Hooked).step("talk to", "init process")?;
    }
    channel.expect(&Message::Ready)
}

fn write_mappings(spec: &Spec, pid: u32) -> Result<(), OciError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let text = |mappings: &Option<Vec<LinuxIdMapping>>| {
        mappings.iter().flatten().fold(String::new(), |text, mapping| {
            text + &format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size())
        })
    };
    for (file, mappings) in [("gid_map", linux.gid_mappings()), ("uid_map", linux.uid_mappings())] {
        let text = text(mappings);
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

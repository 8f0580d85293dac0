//! One more process in a container that runs: its namespaces joined, its cgroups entered, its identity taken.
//!
//! Runs in a creator. Invariants: the init process is opened once, by pidfd with its start time checked, and namespaces
//! are joined through that; cgroups are opened before the host's hierarchies go out of sight; the container's seccomp
//! filter is on the new process too.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::limits;
use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use berth_sys::{credentials, process as proc};
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxNamespaceType, LinuxPersonality, Process, Spec};

use crate::channel::{Channel, Message};
use crate::console;
use crate::error::{Context, OciError};
use crate::guard;
use crate::init::session_keyring;
use crate::last::LastSteps;
use crate::plan::{Affinity, SchedulingPlan};
use crate::process;
use crate::seccomp::Filter;
use crate::state::{Container, Status};

/// What to start.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    pub process: &'a Process,
    /// Also in a paused container.
    pub ignore_paused: bool,
    /// Its stdin, stdout and stderr; `None` = the caller's own.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// A connected socket that gets the terminal's master, if `process.terminal`.
    pub console: Option<OwnedFd>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// The process becomes the child of the caller's parent.
    pub sibling: bool,
    /// A folder of the caller's where compiled seccomp programs are kept.
    pub filters: Option<&'a Path>,
}

/// A process object without capabilities gets those of the container; one that is to have none says so with empty sets.
fn with_capabilities<'a>(process: &'a Process, spec: &Spec) -> Cow<'a, Process> {
    let mut whole = Cow::Borrowed(process);
    if process.capabilities().is_none() {
        let of_container = spec
            .process()
            .as_ref()
            .and_then(|process| process.capabilities().clone());
        whole.to_mut().set_capabilities(of_container);
    }
    whole
}

/// Starts the process and answers its pid once it was exec'ed.
///
/// # Errors
/// [`OciError::WrongState`] if the container does not run; what kept the process from running, as it told itself.
pub fn exec(container: &Container, options: ExecOptions<'_>) -> Result<u32, OciError> {
    let wrong = |status: Status| OciError::WrongState {
        operation: "exec in",
        id: container.id.clone(),
        status: status.name(),
    };
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        other => return Err(wrong(other)),
    }
    crate::check::process("process.", options.process)?;
    let spec = container.spec()?;
    let whole = with_capabilities(options.process, &spec);
    let options = ExecOptions {
        process: &whole,
        ..options
    };
    let linux = spec.linux().as_ref();
    let seccomp = linux
        .and_then(|linux| linux.seccomp().as_ref())
        .map(|profile| Filter::compile_once(profile, options.filters))
        .transpose()?;
    let doors = container.cgroups.doors()?;
    let mut cradle = container.cgroups.cradle_of_exec()?;
    let init = container.init()?.ok_or_else(|| wrong(Status::Stopped))?;
    let scheduling = SchedulingPlan::of(options.process);
    let affinity = Affinity::of(options.process)?;

    // Every namespace that config.json gave the container; the others are the host's, and so is this process.
    let mut kinds = Namespaces::empty();
    for namespace in linux
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
    {
        kinds = kinds.union(crate::plan::kind(namespace.typ()));
    }
    // A process gets its pid namespace at its making; the others it joins itself, so that the caller keeps its own view.
    let here = kinds.intersection(Namespaces::PID);
    join(&init, here, &container.id)?;
    let maps_users = linux
        .and_then(|linux| linux.namespaces().as_ref())
        .is_some_and(|all| all.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User));

    let process = options.process;
    let score = process.oom_score_adj();
    let (mut ours, theirs) = Channel::pair().step("make", "socketpair")?;
    let clone = |cradle: &Option<OwnedFd>| {
        namespaces::clone_process(CloneOptions {
            namespaces: Namespaces::empty(),
            sibling: options.sibling,
            cgroup: cradle.as_ref().map(AsFd::as_fd),
        })
    };
    let cloned = match clone(&cradle) {
        // The container has groups of its own below this one, which can then hold no process.
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && cradle.is_some() => {
            cradle = Some(crate::cgroup::cradle_beside(container.pid)?);
            clone(&cradle)
        }
        other => other,
    };
    match cloned.step("clone", "process")? {
        Cloned::Child => {
            drop((ours, cradle));
            let inside = Inside {
                options,
                channel: theirs,
                seccomp: seccomp.as_ref(),
                scheduling: &scheduling,
                personality: linux.and_then(|linux| linux.personality().as_ref()),
                memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()),
                affinity: &affinity,
                maps_users,
                container: container.id.as_str(),
                init: &init,
                namespaces: kinds.without(here),
            };
            run(inside)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let introduce = |number| match seccomp.as_ref().and_then(Filter::listener) {
                Some(listener) => listener.introduce(pid, number, &container.state(Status::Running, &spec)),
                None => Err(OciError::InitLost),
            };
            let joined = crate::rdt::join(&spec, &container.id, pid);
            let limited = maps_users.then_some(process);
            let mut done = joined.and_then(|()| attend(&mut ours, &doors, pid, score, limited, &introduce));
            if done.is_err() {
                // One that has ended by itself knows better than whoever ran into its end.
                if matches!(proc::has_ended(&pidfd), Ok(true))
                    && let Some(said) = ours.last_words()
                {
                    done = Err(said);
                }
                let _ = proc::pidfd_send_signal(&pidfd, berth_sys::signal::SIGKILL);
                let _ = proc::wait_until_ended(&pidfd, Some(std::time::Duration::from_secs(10)));
                if !options.sibling {
                    let _ = proc::reap(pid);
                }
            }
            done.map(|()| pid)
        }
    }
}

fn attend(
    channel: &mut Channel,
    doors: &[(String, std::fs::File)],
    pid: u32,
    score: Option<i32>,
    limited: Option<&Process>,
    introduce: &dyn Fn(i32) -> Result<(), OciError>,
) -> Result<(), OciError> {
    process::set_oom_score(pid, score)?;
    for (path, door) in doors {
        let mut door: &std::fs::File = door;
        door.write_all(pid.to_string().as_bytes()).step("join cgroup", path)?;
    }
    channel.tell(&Message::Joined)?;
    if let Some(process) = limited {
        channel.expect(&Message::Limits)?;
        process::set_limits(pid, process)?;
        channel.tell(&Message::Limited)?;
    }
    let Some(Message::Ready) = channel.receive_introducing(introduce)? else {
        return Err(OciError::InitLost);
    };
    // End of file: the execve closed it.
    match channel.receive_introducing(introduce)? {
        None => Ok(()),
        Some(_) => Err(OciError::InitLost),
    }
}

fn join(init: &OwnedFd, kinds: Namespaces, id: &str) -> Result<(), OciError> {
    if kinds.is_empty() {
        return Ok(());
    }
    namespaces::join(init.as_fd(), kinds).step("join namespaces of", id)
}

/// What the new process has on its way to the execve.
struct Inside<'a> {
    options: ExecOptions<'a>,
    channel: Channel,
    seccomp: Option<&'a Filter>,
    scheduling: &'a SchedulingPlan,
    personality: Option<&'a LinuxPersonality>,
    memory_policy: Option<&'a LinuxMemoryPolicy>,
    affinity: &'a Affinity,
    maps_users: bool,
    container: &'a str,
    init: &'a OwnedFd,
    namespaces: Namespaces,
}

fn run(mut inside: Inside<'_>) -> ! {
    let error = match become_process(&mut inside) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let failed = Message::Failed {
        exit_code: error.exit_code(),
        text: error.to_string(),
    };
    // If the creator is gone there is nobody to tell.
    let _ = inside.channel.send(&failed);
    proc::exit_now(i32::from(error.exit_code()))
}

fn become_process(inside: &mut Inside<'_>) -> Result<Infallible, OciError> {
    let Inside {
        options,
        channel,
        seccomp,
        scheduling,
        maps_users,
        personality,
        memory_policy,
        affinity,
        ..
    } = inside;
    let process = options.process;
    affinity.apply_initial()?;
    if let Some(stdio) = options.stdio {
        berth_sys::execve::set_stdio(stdio).step("set", "standard descriptors")?;
    }
    let first_closed = 3 + options.preserve_fds;
    let console = options.console.as_ref().map(AsFd::as_fd);
    let needed = [Some(channel.as_fd()), Some(inside.init.as_fd()), console];
    let keep: Vec<BorrowedFd<'_>> = needed.into_iter().flatten().collect();
    guard::shield(first_closed, &keep)?;
    limits::close_on_exec_from(first_closed).step("close", "file descriptors")?;
    channel.expect(&Message::Joined)?;
    join(inside.init, inside.namespaces, inside.container)?;
    limits::new_session().step("start", "session")?;
    if inside.namespaces.contains(Namespaces::MOUNT) {
        let root = berth_sys::inroot::open_host_dir(Path::new("/")).step("open", "/")?;
        guard::own_null(root.as_fd())?;
    }
    if *maps_users {
        credentials::set_uid(0).step("become", "root of the user namespace")?;
        credentials::set_groups(0, &[]).step("become", "root of the user namespace")?;
    }
    // Not the keys of whoever calls, but the container's: it is found by its name.
    session_keyring(inside.container)?;
    if let Some(socket) = &options.console {
        console::set_up_exec(socket.as_fd(), process)?;
    }
    let last = LastSteps {
        process,
        scheduling,
        personality: *personality,
        memory_policy: *memory_policy,
        seccomp: *seccomp,
        setgroups: true,
        keep_affinity: affinity.decides(),
        limits_from_outside: *maps_users,
    };
    affinity.apply_final()?;
    let command = last.prepare(channel)?;
    channel.send(&Message::Ready).step("report", "ready")?;
    last.execute(&command, channel)
}

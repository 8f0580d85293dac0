//! What each command does: a call of the library, and its answer in runc's form.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_oci::oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use berth_oci::{Container, CreateOptions, ExecOptions};

use crate::args::{Cli, Command, Create, Exec};
use crate::log::{Failure, warn};
use crate::{preserved, query, spec, update};

/// What goes into a container must not be a file of the host's (CVE-2019-5736).
pub fn leave_own_file(cli: &Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Create(_) | Command::Run { .. } | Command::Exec(_) => Ok(berth_oci::leave_own_file()?),
        _ => Ok(()),
    }
}

const NO_CRIU: &str = "not supported by this runtime (its features say so)";

/// Does it; answers the exit code.
pub fn run(cli: &Cli) -> Result<i32, Failure> {
    let root = cli.root.as_path();
    match &cli.command {
        Command::Create(create) => self::create(cli, create).map(|_| 0),
        Command::Start { id } => load(root, id)?.start().map(|()| 0).map_err(Failure::from),
        Command::Run { create, detach } => run_whole(cli, create, *detach),
        Command::Exec(exec) => self::exec(cli, exec),
        Command::Kill { all, id, signal } => kill(root, id, signal, *all),
        Command::Delete { force, id } => {
            // runc tells an unknown container, unless forced; the library takes it as done.
            if !*force {
                load(root, id)?;
            }
            berth_oci::delete(root, id, *force)?;
            Ok(0)
        }
        Command::State { id } => {
            let container = load(root, id)?;
            println!("{:#}", container.describe(container.status()?)?);
            Ok(0)
        }
        Command::List { format, quiet } => query::list(root, format, *quiet),
        Command::Pause { id } => load(root, id)?.pause().map(|()| 0).map_err(Failure::from),
        Command::Resume { id } => load(root, id)?.resume().map(|()| 0).map_err(Failure::from),
        Command::Ps { format, id } => query::ps(root, id, format),
        Command::Update(update) => update::update(root, update),
        Command::Events { stats, interval, id } => query::events(root, id, *stats, interval),
        Command::Spec { bundle, for_rootless } => spec::write(bundle, *for_rootless).map(|()| 0),
        Command::Features => {
            query::features();
            Ok(0)
        }
        Command::Checkpoint { .. } => Err(Failure::new("checkpoint", NO_CRIU)),
        Command::Restore { .. } => Err(Failure::new("restore", NO_CRIU)),
    }
}

pub fn load(root: &Path, id: &str) -> Result<Container, Failure> {
    Ok(Container::load(root, id)?)
}

fn connect(socket: Option<&PathBuf>) -> Result<Option<OwnedFd>, Failure> {
    let connect = |path: &PathBuf| {
        UnixStream::connect(path)
            .map(OwnedFd::from)
            .map_err(|e| Failure::new(&format!("socket {}", path.display()), e))
    };
    socket.map(connect).transpose()
}

/// Beside the containers, under a name that none of them can have.
fn filters(root: &Path) -> PathBuf {
    root.join("@seccomp")
}

fn write_pid(file: Option<&PathBuf>, pid: u32) -> Result<(), Failure> {
    let Some(path) = file else { return Ok(()) };
    let tell = |e| Failure::new(&format!("pid file {}", path.display()), e);
    // Renamed into place: who waits for the file must never read half a number.
    let aside = path.with_extension("berth-oci-new");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&aside)
        .and_then(|mut file| std::io::Write::write_all(&mut file, pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&aside, path))
        .map_err(tell)
}

fn tell_pidfd(socket: Option<&OwnedFd>, pid: u32, what: &str) -> Result<(), Failure> {
    let Some(socket) = socket else { return Ok(()) };
    Ok(berth_oci::send_pidfd(socket.as_fd(), pid, what)?)
}

/// The descriptors that the process keeps: those that systemd activated and those that the caller asks for. The process is told of
/// the former, as runc does.
fn given_on(spec: &mut Spec, asked: u32) -> Result<u32, Failure> {
    let (listen, all) = preserved::count(asked)?;
    if listen > 0
        && let Some(process) = spec.process_mut()
    {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
    Ok(all)
}

fn create(cli: &Cli, create: &Create) -> Result<Container, Failure> {
    let root = cli.root.as_path();
    let bundle = create
        .bundle
        .canonicalize()
        .map_err(|e| Failure::new(&format!("bundle {}", create.bundle.display()), e))?;
    let (mut spec, text) = berth_oci::load_telling(&bundle, &mut |warning| warn(cli, warning))?;
    let preserve_fds = given_on(&mut spec, create.preserve_fds)?;
    let pidfd_socket = connect(create.pidfd_socket.as_ref())?;
    let container = berth_oci::create(CreateOptions {
        root,
        id: &create.id,
        bundle: &bundle,
        spec: &spec,
        spec_text: &text,
        stdio: None,
        console: connect(create.console_socket.as_ref())?,
        pivot: !create.no_pivot,
        new_keyring: !create.no_new_keyring,
        preserve_fds,
        sibling: false,
        filters: Some(&filters(root)),
        systemd_cgroup: cli.systemd_cgroup,
    })?;
    let told = tell_pidfd(pidfd_socket.as_ref(), container.pid, "standard");
    if let Err(failure) = told.and_then(|()| write_pid(create.pid_file.as_ref(), container.pid)) {
        let _ = berth_oci::delete(root, &create.id, true);
        return Err(failure);
    }
    Ok(container)
}

fn run_whole(cli: &Cli, create: &Create, detach: bool) -> Result<i32, Failure> {
    let root = cli.root.as_path();
    // What the container leaves behind comes here, and goes with it.
    if !detach {
        berth_oci::adopt_orphans()?;
    }
    let container = self::create(cli, create)?;
    if let Err(error) = container.start() {
        let _ = berth_oci::delete(root, &create.id, true);
        return Err(error.into());
    }
    if detach {
        return Ok(0);
    }
    let code = berth_oci::wait(container.pid)?;
    berth_oci::delete(root, &create.id, true)?;
    Ok(code)
}

fn exec(cli: &Cli, exec: &Exec) -> Result<i32, Failure> {
    let container = load(&cli.root, &exec.id)?;
    let process: Process = match &exec.process {
        Some(path) => {
            let text = std::fs::read(path).map_err(|e| Failure::new(&path.display().to_string(), e))?;
            berth_oci::read_process(&text, &path.display().to_string(), &mut |warning| warn(cli, warning))?
        }
        None => from_flags(&container, exec)?,
    };
    let pidfd_socket = connect(exec.pidfd_socket.as_ref())?;
    let filters = filters(&cli.root);
    let options = ExecOptions {
        process: &process,
        ignore_paused: exec.ignore_paused,
        stdio: None,
        console: connect(exec.console_socket.as_ref())?,
        preserve_fds: preserved::count(exec.preserve_fds)?.1,
        sibling: false,
        filters: Some(&filters),
    };
    let pid = berth_oci::exec(&container, options)?;
    tell_pidfd(pidfd_socket.as_ref(), pid, "setns")?;
    write_pid(exec.pid_file.as_ref(), pid)?;
    if exec.detach {
        Ok(0)
    } else {
        berth_oci::wait(pid).map_err(Failure::from)
    }
}

/// The container's own process with what the flags change.
fn from_flags(container: &Container, exec: &Exec) -> Result<Process, Failure> {
    let spec = container.spec()?;
    let mut process = spec.process().clone().unwrap_or_default();
    if exec.tty && exec.console_socket.is_none() {
        return Err(Failure::new(
            "--tty",
            "needs --console-socket, where the terminal goes to",
        ));
    }
    process.set_terminal(Some(exec.console_socket.is_some()));
    process.set_args(Some(exec.args.clone()));
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(exec.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(user) = &exec.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| Failure::new("--user", format!("{user:?}: UID[:GID]")))
        };
        process.user_mut().set_uid(number(uid)?).set_gid(number(gid)?);
    }
    if !exec.additional_gids.is_empty() {
        let mut all = process.user().additional_gids().clone().unwrap_or_default();
        all.extend(&exec.additional_gids);
        process.user_mut().set_additional_gids(Some(all));
    }
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &exec.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &exec.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    add_capabilities(&mut process, &exec.cap)?;
    Ok(process)
}

/// As runc: in every set but the inheritable one, and the ambient one of a process that has one.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None).set_effective(None).set_permitted(None);
        none.set_inheritable(None).set_ambient(None);
        none
    });
    for name in names {
        let capability: Capability = serde_json::from_value(name.as_str().into())
            .map_err(|_| Failure::new("--cap", format!("{name:?}: a capability, such as CAP_NET_ADMIN")))?;
        let with = |set: &Option<berth_oci::oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<i32, Failure> {
    let container = load(root, id)?;
    let number = berth_oci::signal_by_name(signal)
        .ok_or_else(|| Failure::new("kill", format!("{signal:?}: a signal's name, or 1 to 64")))?;
    if all {
        container.kill_all(number)?;
        return Ok(0);
    }
    container.signal(number)?;
    Ok(0)
}

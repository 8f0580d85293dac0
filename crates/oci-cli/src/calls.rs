//! What each command does: a call of the library, and its answer in runc's form.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_oci::oci_spec::runtime::{LinuxResources, Process};
use berth_oci::{Container, CreateOptions, ExecOptions, Status};
use serde_json::{Value, json};

use crate::args::{Cli, Command, Create, Exec, Update};
use crate::log::Failure;

/// What goes into a container must not be a file of the host's (CVE-2019-5736).
pub fn leave_own_file(cli: &Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Create(_) | Command::Run { .. } | Command::Exec(_) => Ok(berth_oci::leave_own_file()?),
        _ => Ok(()),
    }
}

/// Does it; answers the exit code.
pub fn run(cli: &Cli) -> Result<i32, Failure> {
    let root = cli.root.as_path();
    match &cli.command {
        Command::Create(create) => self::create(root, create).map(|_| 0),
        Command::Start { id } => load(root, id)?.start().map(|()| 0).map_err(Failure::from),
        Command::Run { create, detach } => self::run_whole(root, create, *detach),
        Command::Exec(exec) => self::exec(root, exec),
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
            println!("{}", container.state_json(container.status()?));
            Ok(0)
        }
        Command::List { format, quiet } => list(root, format, *quiet),
        Command::Pause { id } => load(root, id)?.pause().map(|()| 0).map_err(Failure::from),
        Command::Resume { id } => load(root, id)?.resume().map(|()| 0).map_err(Failure::from),
        Command::Ps { format, id } => ps(root, id, format),
        Command::Update(update) => self::update(root, update),
    }
}

fn load(root: &Path, id: &str) -> Result<Container, Failure> {
    Ok(Container::load(root, id)?)
}

fn connect(socket: Option<&PathBuf>) -> Result<Option<OwnedFd>, Failure> {
    let connect = |path: &PathBuf| {
        UnixStream::connect(path)
            .map(OwnedFd::from)
            .map_err(|e| Failure::new(&format!("console socket {}", path.display()), e))
    };
    socket.map(connect).transpose()
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

fn create(root: &Path, create: &Create) -> Result<Container, Failure> {
    let bundle = create
        .bundle
        .canonicalize()
        .map_err(|e| Failure::new(&format!("bundle {}", create.bundle.display()), e))?;
    let (spec, text) = berth_oci::load(&bundle)?;
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
        preserve_fds: create.preserve_fds,
        sibling: false,
    })?;
    if let Err(failure) = write_pid(create.pid_file.as_ref(), container.pid) {
        let _ = berth_oci::delete(root, &create.id, true);
        return Err(failure);
    }
    Ok(container)
}

fn run_whole(root: &Path, create: &Create, detach: bool) -> Result<i32, Failure> {
    // What the container leaves behind comes here, and goes with it.
    if !detach {
        berth_oci::adopt_orphans()?;
    }
    let container = self::create(root, create)?;
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

fn exec(root: &Path, exec: &Exec) -> Result<i32, Failure> {
    let container = load(root, &exec.id)?;
    let process: Process = match &exec.process {
        Some(path) => {
            let text = std::fs::read(path).map_err(|e| Failure::new(&path.display().to_string(), e))?;
            serde_json::from_slice(&text).map_err(|e| Failure::new(&path.display().to_string(), e))?
        }
        None => from_flags(&container, exec)?,
    };
    let options = ExecOptions {
        process: &process,
        stdio: None,
        console: connect(exec.console_socket.as_ref())?,
        preserve_fds: exec.preserve_fds,
        sibling: false,
    };
    let pid = berth_oci::exec(&container, options)?;
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
    Ok(process)
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

fn list(root: &Path, format: &str, quiet: bool) -> Result<i32, Failure> {
    let mut rows: Vec<(Container, Status)> = Vec::new();
    for id in berth_oci::list(root)? {
        // One that is just being made or removed is not there.
        if let Ok(container) = Container::load(root, &id)
            && let Ok(status) = container.status()
        {
            rows.push((container, status));
        }
    }
    match (quiet, format) {
        (true, _) => rows.iter().for_each(|(container, _)| println!("{}", container.id)),
        (false, "json") => {
            let all: Vec<Value> = rows
                .iter()
                .map(|(c, s)| serde_json::from_str(&c.state_json(*s)).unwrap_or_default())
                .collect();
            println!("{}", json!(all));
        }
        (false, _) => {
            println!("{:<24} {:<10} {:<10} BUNDLE", "ID", "PID", "STATUS");
            for (container, status) in &rows {
                let pid = if *status == Status::Stopped { 0 } else { container.pid };
                println!(
                    "{:<24} {pid:<10} {:<10} {}",
                    container.id,
                    status.name(),
                    container.bundle.display()
                );
            }
        }
    }
    Ok(0)
}

fn ps(root: &Path, id: &str, format: &str) -> Result<i32, Failure> {
    let pids = load(root, id)?.cgroups.processes().map_err(|e| Failure::new("ps", e))?;
    if format == "json" {
        println!("{}", json!(pids));
        return Ok(0);
    }
    println!("{:<10} COMMAND", "PID");
    for pid in pids {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        println!("{pid:<10} {}", name.trim_end());
    }
    Ok(0)
}

fn update(root: &Path, update: &Update) -> Result<i32, Failure> {
    let container = load(root, &update.id)?;
    let resources: LinuxResources = match &update.resources {
        Some(path) => {
            let mut text = Vec::new();
            let read = if path == Path::new("-") {
                std::io::stdin().take(1 << 20).read_to_end(&mut text)
            } else {
                std::fs::File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut text))
            };
            read.map_err(|e| Failure::new(&path.display().to_string(), e))?;
            serde_json::from_slice(&text).map_err(|e| Failure::new(&path.display().to_string(), e))?
        }
        None => {
            let mut all = json!({});
            let mut put = |group: &str, name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    all[group][name] = value;
                }
            };
            put("memory", "limit", update.memory.map(Value::from));
            put("memory", "swap", update.memory_swap.map(Value::from));
            put("cpu", "shares", update.cpu_share.map(Value::from));
            put("cpu", "period", update.cpu_period.map(Value::from));
            put("cpu", "quota", update.cpu_quota.map(Value::from));
            put("cpu", "cpus", update.cpuset_cpus.clone().map(Value::from));
            put("cpu", "mems", update.cpuset_mems.clone().map(Value::from));
            put("pids", "limit", update.pids_limit.map(Value::from));
            serde_json::from_value(all).map_err(|e| Failure::new("update", e))?
        }
    };
    container.update(&resources)?;
    Ok(0)
}

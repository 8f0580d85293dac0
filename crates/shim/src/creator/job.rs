//! What a creator does. It blocks, it may be killed anywhere, and whatever it leaves half done a later Delete removes.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_core::ErrorCode;
use berth_runtime::{self as runtime, Call, CreateArgs, Driver, ExecArgs};
use berth_sys::cgroup::Hierarchies;
use berth_sys::{file, process, signal};
use berth_wire::shim::{self, ExecOverrides, driver::Kind};

use super::report::{Created, Failed, Report, StageTime};
use super::{Setting, first, process_json};
use crate::cgroup::Place;
use crate::stdio::{Ends, Opened};

#[derive(Debug)]
pub enum Job {
    Create {
        start: bool,
    },
    Start,
    Exec(Exec),
    Pause,
    Resume,
    Update {
        resources: Vec<u8>,
    },
    Delete(Delete),
    /// To every process of the container.
    SignalAll {
        cgroup: Place,
        signal: i32,
    },
}

#[derive(Debug)]
pub struct Exec {
    pub exec_id: String,
    /// A whole OCI process object; empty = the init's own, changed by `overrides`.
    pub process_json: Vec<u8>,
    pub overrides: ExecOverrides,
    pub terminal: bool,
    /// Width and height of the terminal.
    pub size: (u16, u16),
    /// The init, in whose root names of users are looked up.
    pub init: u32,
}

#[derive(Debug)]
pub struct Delete {
    /// Killed first.
    pub victims: Vec<Victim>,
    /// A frozen process does not end.
    pub thaw: bool,
    pub cgroup: Place,
}

/// A process that a delete ends.
#[derive(Debug)]
pub struct Victim {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

impl Job {
    /// Fds that the creator needs for it.
    pub fn fds(&self) -> Vec<RawFd> {
        match self {
            Job::Delete(delete) => delete.victims.iter().map(|victim| victim.pidfd.as_raw_fd()).collect(),
            _ => Vec::new(),
        }
    }
}

pub(super) fn failed(code: ErrorCode, message: impl Into<String>) -> Failed {
    Failed {
        code: code.number(),
        message: message.into(),
        ..Failed::default()
    }
}

impl From<runtime::Error> for Failed {
    fn from(error: runtime::Error) -> Failed {
        Failed {
            code: error.code().number(),
            message: error.to_string(),
            runtime_message: error.runtime_message().to_owned(),
            exit_code: error.exit_code(),
        }
    }
}

fn driver(of: &shim::Driver, work: &Path) -> Result<Box<dyn Driver>, Failed> {
    match &of.kind {
        Some(Kind::Command(command)) => Ok(Box::new(runtime::Command {
            binary: command.binary.clone().into(),
            args: command.args.clone(),
            root: command.root.clone().into(),
            systemd_cgroup: command.systemd_cgroup,
            no_pivot_root: command.no_pivot_root,
            no_new_keyring: command.no_new_keyring,
        })),
        Some(Kind::Embedded(embedded)) => Ok(Box::new(runtime::Embedded {
            root: embedded.root.clone().into(),
            systemd_cgroup: embedded.systemd_cgroup,
            no_pivot_root: embedded.no_pivot_root,
            no_new_keyring: embedded.no_new_keyring,
            // From STATE/c/NS:ID.
            filters: Some(work.join("../..").join(berth_record::FILTERS)),
        })),
        None => Err(failed(ErrorCode::InvalidArgument, "no driver")),
    }
}

/// Everything that a job needs while it runs.
struct At<'a> {
    setting: &'a Setting,
    work: PathBuf,
    driver: Box<dyn Driver>,
    shim: &'a OwnedFd,
    stages: Vec<StageTime>,
}

/// Does the job and tells how it went; the last report is `done` or `failed`.
pub fn run(setting: &Setting, job: &Job, ends: Option<&Ends>, shim: &OwnedFd) {
    let work = PathBuf::from(format!("/proc/self/fd/{}", setting.folder.as_raw_fd()));
    let driver = match driver(&setting.driver, &work) {
        Ok(driver) => driver,
        Err(failed) => {
            return Report {
                failed: Some(failed),
                ..Report::default()
            }
            .send(shim);
        }
    };
    let mut at = At {
        setting,
        work,
        driver,
        shim,
        stages: Vec::new(),
    };
    let done = at.run(job, ends);
    let stages = std::mem::take(&mut at.stages);
    let last = match done {
        Ok(left) => Report {
            done: true,
            stages,
            left,
            ..Report::default()
        },
        Err(failed) => Report {
            failed: Some(failed),
            stages,
            ..Report::default()
        },
    };
    last.send(shim);
}

impl At<'_> {
    fn run(&mut self, job: &Job, ends: Option<&Ends>) -> Result<Vec<String>, Failed> {
        let (setting, work) = (self.setting, self.work.clone());
        let call = Call {
            id: &setting.id,
            work: &work,
            timeout: setting.timeout,
        };
        match job {
            Job::Create { start } => {
                self.create(&call, ends, *start)?;
            }
            Job::Start => self.stage("start", |at| at.driver.start(&call))?,
            Job::Exec(exec) => self.exec(&call, exec, ends)?,
            Job::Pause => self.driver.pause(&call)?,
            Job::Resume => self.driver.resume(&call)?,
            Job::Update { resources } => self.driver.update(&call, resources)?,
            Job::Delete(delete) => return self.delete(&call, delete),
            Job::SignalAll { cgroup, signal } => {
                let done = cgroup.signal_all(*signal);
                done.map_err(|error| {
                    failed(
                        ErrorCode::WrongState,
                        format!("signal: cgroup {:?}: {error}", cgroup.name),
                    )
                })?;
            }
        }
        Ok(Vec::new())
    }

    fn stage<T, E>(&mut self, name: &str, work: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        let begun = Instant::now();
        let done = work(self);
        self.note(name, begun.elapsed());
        done
    }

    fn note(&mut self, stage: &str, took: Duration) {
        self.stages.push(StageTime {
            name: stage.into(),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
    }

    fn create(&mut self, call: &Call<'_>, ends: Option<&Ends>, start: bool) -> Result<(), Failed> {
        let setting = self.setting;
        let console = self.console(ends);
        let opened = self.opened(ends, None)?;
        let stdio = stdio(ends, opened.as_ref(), console.as_deref())?;
        if !setting.rootfs.is_empty() {
            self.stage("rootfs", |_| {
                runtime::mount_rootfs(&setting.bundle, &rootfs(&setting.rootfs))
            })?;
        }
        let config = self.stage("bundle", |_| {
            process_json::keep(&setting.bundle, stdio.terminal(), &setting.folder)
        })?;
        let ours = match &setting.init {
            Some(init) => Some(first::bundle(&setting.bundle, init, &setting.folder)?),
            None => None,
        };
        let args = CreateArgs {
            call: *call,
            bundle: ours.as_deref().unwrap_or(&setting.bundle),
            // With an init of ours it is another one.
            config: ours.is_none().then_some(&config),
            stdio,
        };
        if !start {
            let created = self.stage("create", |at| at.driver.create(&args))?;
            return self.tell_or_undo(call, &created);
        }
        let (begun, mut made, mut refusal) = (Instant::now(), None, None);
        let run = self.driver.run(&args, &mut |created| {
            made = Some(begun.elapsed());
            let told = self.tell_or_undo(call, created);
            refusal = told.and_then(|()| self.wait_for_loop()).err();
            refusal.is_none()
        });
        let create = made.unwrap_or_else(|| begun.elapsed());
        self.note("create", create);
        if let Some(failed) = refusal {
            return Err(failed);
        }
        self.note("start", begun.elapsed().saturating_sub(create));
        run.map(drop).map_err(Failed::from)
    }

    fn exec(&mut self, call: &Call<'_>, exec: &Exec, ends: Option<&Ends>) -> Result<(), Failed> {
        let console = self.console(ends);
        let opened = self.opened(ends, Some(&exec.exec_id))?;
        let stdio = stdio(ends, opened.as_ref(), console.as_deref())?;
        let process = process_json::for_exec(exec, &self.setting.folder)?;
        let args = ExecArgs {
            call: *call,
            exec_id: &exec.exec_id,
            process: &process,
            stdio,
        };
        let created = self.stage("exec", |at| at.driver.exec(&args))?;
        self.tell_created(&created)
    }

    /// Until the loop has taken note of the init: its record is written and its terminal has its size before it runs.
    fn wait_for_loop(&self) -> Result<(), Failed> {
        match file::read_some(self.shim, &mut [0; 8]) {
            Ok(Some(1..)) => Ok(()),
            _ => Err(failed(ErrorCode::Internal, "create: the shim is gone")),
        }
    }

    fn console(&self, ends: Option<&Ends>) -> Option<PathBuf> {
        match ends {
            Some(Ends::Console { name, .. }) => Some(self.work.join(name)),
            Some(Ends::Fds { .. } | Ends::File(_) | Ends::Fifo(_) | Ends::Logger(_)) | None => None,
        }
    }

    /// What is named by a path is opened here, because a disk may hold whoever opens it; the loop gets its ends before there is a
    /// process.
    fn opened(&self, ends: Option<&Ends>, exec_id: Option<&str>) -> Result<Option<[OwnedFd; 3]>, Failed> {
        let opened = match ends {
            Some(Ends::File(path)) => {
                let problem = |error| {
                    failed(
                        ErrorCode::InvalidArgument,
                        format!("stdio: {}: {error}", path.display()),
                    )
                };
                return open_log(path).map(Some).map_err(problem);
            }
            Some(Ends::Logger(logger)) => {
                let problem = |error| failed(ErrorCode::InvalidArgument, format!("stdio: start the logger: {error}"));
                let id = exec_id.unwrap_or(&self.setting.id);
                return logger.start(&self.setting.namespace, id).map(Some).map_err(problem);
            }
            Some(Ends::Fifo(fifos)) => fifos.open_plain(),
            Some(Ends::Console { fifos: Some(fifos), .. }) => fifos.open_terminal(),
            Some(Ends::Fds { .. } | Ends::Console { fifos: None, .. }) | None => return Ok(None),
        };
        let Opened { given, kept } = opened.map_err(|error| Failed {
            code: error.code(),
            message: error.to_string(),
            ..Failed::default()
        })?;
        let unable = |error| failed(ErrorCode::Internal, format!("stdio: hand over FIFOs: {error}"));
        Report::send_fifos(self.shim, &kept).map_err(unable)?;
        Ok(given)
    }

    fn tell_or_undo(&self, call: &Call<'_>, made: &runtime::Created) -> Result<(), Failed> {
        let told = self.tell_created(made);
        if told.is_err() {
            // Whatever it has made, nobody will supervise it.
            let _ = self.driver.delete(call, true);
        }
        told
    }

    fn tell_created(&self, made: &runtime::Created) -> Result<(), Failed> {
        let pid = made.pid;
        let gone = |error| {
            failed(
                ErrorCode::Runtime,
                format!("the runtime named process {pid}, but: {error}"),
            )
        };
        // One whose making this process knows all about was made as the shim's child.
        if made.known.is_none() && !is_the_shims(pid).map_err(gone)? {
            return Err(failed(
                ErrorCode::Runtime,
                format!(
                    "the runtime named process {pid}, which is no child of the shim's: its exit could never be told"
                ),
            ));
        }
        // Nobody reaps it before the loop knows it, so it is there even if it has ended.
        let start_time = match &made.known {
            Some(known) => known.start_time,
            None => process::start_time(pid).map_err(gone)?,
        };
        let place = Place::of(pid).unwrap_or_default();
        // The counters of a group that was made for it begin with it.
        let fresh = made.known.as_ref().is_some_and(|known| known.has_new_group);
        let oom_kills = if fresh { 0 } else { place.oom_kills() };
        let own_pid_namespace = made.known.as_ref().is_some_and(|known| known.has_new_pids) || has_own_pids(pid);
        let created = Created {
            pid,
            start_time,
            cgroup: place.name,
            oom_kills,
            own_pid_namespace,
            membership: place.membership,
        };
        Report {
            created: Some(created),
            ..Report::default()
        }
        .send(self.shim);
        Ok(())
    }

    fn delete(&mut self, call: &Call<'_>, delete: &Delete) -> Result<Vec<String>, Failed> {
        let mut left = Vec::new();
        for victim in &delete.victims {
            // It may have ended.
            let _ = process::pidfd_send_signal(&victim.pidfd, signal::SIGKILL);
        }
        // Refused if it is not the container's alone.
        let _ = delete.cgroup.signal_all(signal::SIGKILL);
        if delete.thaw {
            // What is not frozen can't be resumed; either is fine.
            let _ = self.driver.resume(call);
        }
        let until = Instant::now() + self.setting.timeout.min(Duration::from_secs(10));
        for victim in &delete.victims {
            // Somebody else may have frozen its group, and a frozen process does not die.
            if !matches!(process::wait_until_ended(&victim.pidfd, Some(QUICK)), Ok(true)) {
                thaw(victim.pid);
            }
            let patience = until.saturating_duration_since(Instant::now());
            if !matches!(process::wait_until_ended(&victim.pidfd, Some(patience)), Ok(true)) {
                let state = process::stat(victim.pid).map_or('?', |stat| stat.state);
                left.push(format!("process {} does not end (state {state})", victim.pid));
            }
        }
        if left.is_empty() {
            self.driver.delete(call, true)?;
            if delete.cgroup == Place::default() {
                self.remove_planned_cgroup();
            } else {
                delete.cgroup.remove();
            }
        }
        Ok(left)
    }

    /// A runtime that was killed before it wrote its state down knows nothing of the group that it had made. Only empty folders go: the
    /// name may be one that others use.
    fn remove_planned_cgroup(&self) {
        let config = file::read(&self.setting.bundle.join("config.json"), runtime::CONFIG_LIMIT).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
        match config["linux"]["cgroupsPath"].as_str() {
            // What runc and crun call it then.
            None | Some("") => Place::named(&format!("/{}", self.setting.id)).remove_empty(),
            Some(path) if path.starts_with('/') => Place::named(path).remove_empty(),
            // Below the runtime's own, or systemd's.
            Some(_) => {}
        }
    }
}

fn has_own_pids(pid: u32) -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    // A zombie has no namespaces any more, and nothing that could outlive it.
    match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(its), Ok(ours)) => its != ours,
        _ => true,
    }
}

/// How long the process that has made another one may take to end.
const MAKER: Duration = Duration::from_secs(1);

/// Whether this process is a child of our parent's, or will be: one whose maker ends goes to the shim, which is a subreaper.
fn is_the_shims(pid: u32) -> std::io::Result<bool> {
    let (shim, until) = (process::getppid(), Instant::now() + MAKER);
    loop {
        let parent = process::stat(pid)?.parent;
        if parent == shim {
            return Ok(true);
        }
        let Ok(maker) = process::pidfd_open(parent) else {
            // It may have gone between these two lines.
            return Ok(process::stat(pid)?.parent == shim);
        };
        let patience = until.saturating_duration_since(Instant::now());
        if !process::wait_until_ended(&maker, Some(patience))? {
            return Ok(false);
        }
    }
}

/// How long a killed process takes that nothing holds.
const QUICK: Duration = Duration::from_millis(200);

fn thaw(pid: u32) {
    // If it is gone meanwhile, or its group can't be thawed, the wait that follows says so.
    if let Ok(hierarchies) = Hierarchies::usual()
        && let Ok(group) = hierarchies.group_of(pid)
        && matches!(group.is_frozen(), Ok(true))
    {
        let _ = group.set_frozen(false);
    }
}

fn rootfs(mounts: &[shim::Mount]) -> Vec<runtime::RootfsMount> {
    let mount = |mount: &shim::Mount| runtime::RootfsMount {
        kind: mount.r#type.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    };
    mounts.iter().map(mount).collect()
}

/// A file for the output of a process.
fn open_log(path: &Path) -> std::io::Result<[OwnedFd; 3]> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let stdout: OwnedFd = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)?
        .into();
    let stderr = file::duplicate(&stdout)?;
    Ok([file::dev_null()?, stdout, stderr])
}

fn stdio<'a>(
    ends: Option<&'a Ends>,
    opened: Option<&'a [OwnedFd; 3]>,
    console: Option<&'a Path>,
) -> Result<runtime::Stdio<'a>, Failed> {
    use std::os::fd::AsFd;
    if let Some([stdin, stdout, stderr]) = opened {
        return Ok(runtime::Stdio::Fds {
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
        });
    }
    match (ends, console) {
        (_, Some(socket)) => Ok(runtime::Stdio::Console { socket }),
        (Some(Ends::Fds { stdin, stdout, stderr }), None) => Ok(runtime::Stdio::Fds {
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
        }),
        _ => Err(failed(ErrorCode::Internal, "a process without stdio")),
    }
}

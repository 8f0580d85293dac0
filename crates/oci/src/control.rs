//! Calls on a container that exists: start, signals, pause, update, delete.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_sys::{process, signal};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Value, json};

use crate::channel::{Channel, Message};
use crate::error::{Context, OciError};
use crate::hooks;
use crate::seccomp::Filter;
use crate::state::{self, Container, Status};

/// How long processes that were killed may take to leave their cgroups.
const LEAVE: Duration = Duration::from_secs(5);

impl Container {
    /// Lets a created container's process execve, and waits until it has.
    ///
    /// # Errors
    /// [`OciError::WrongState`] if it is not `created`; what kept the process from running, as it told itself.
    pub fn start(&self) -> Result<(), OciError> {
        let status = self.status()?;
        if status != Status::Created {
            return Err(self.wrong_state("start", status));
        }
        let mut channel = Channel::from_fd(self.connect()?);
        let outcome = self.let_run(&mut channel, &|| self.spec().map(Cow::Owned));
        self.started()?;
        outcome?;
        self.poststart(&self.spec()?)
    }

    /// Says to the init process that it may execve, and waits until it has.
    pub(crate) fn let_run<'a>(
        &self,
        channel: &mut Channel,
        spec: &dyn Fn() -> Result<Cow<'a, Spec>, OciError>,
    ) -> Result<(), OciError> {
        channel.tell(&Message::Start)?;
        let introduce = |number| {
            let spec = spec()?;
            let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
            let filter = profile.map(Filter::compile).transpose()?;
            match filter.as_ref().and_then(Filter::listener) {
                Some(listener) => listener.introduce(self.pid, number, &self.state(Status::Created, &spec)),
                None => Err(OciError::InitLost),
            }
        };
        match channel.receive_introducing(&introduce) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(OciError::InitLost),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn poststart(&self, spec: &Spec) -> Result<(), OciError> {
        match spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref()) {
            Some(all) => hooks::run_all("poststart", all, &self.state(Status::Running, spec).to_string()),
            None => Ok(()),
        }
    }

    /// Signals the init process.
    ///
    /// # Errors
    /// [`OciError::WrongState`] if it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), OciError> {
        // The text of runc, which engines look for.
        let gone = || OciError::NotRunning;
        let init = self.init()?.ok_or_else(gone)?;
        process::pidfd_send_signal(&init, signal).step("signal", &self.id)
    }

    /// Signals every process in the container's cgroups. None there is success.
    ///
    /// # Errors
    /// As pidfd_send_signal(2), but for a process that has just ended.
    pub fn kill_all(&self, signal: i32) -> Result<(), OciError> {
        self.cgroups.signal_all(signal).step("signal processes of", &self.id)
    }

    /// # Errors
    /// [`OciError::WrongState`]; a freezer that is not there or does not finish.
    pub fn pause(&self) -> Result<(), OciError> {
        match self.status()? {
            Status::Running | Status::Created => self.cgroups.freeze(true),
            other => Err(self.wrong_state("pause", other)),
        }
    }

    /// # Errors
    /// [`OciError::WrongState`] if it is not paused.
    pub fn resume(&self) -> Result<(), OciError> {
        match self.status()? {
            Status::Paused => self.cgroups.freeze(false),
            other => Err(self.wrong_state("resume", other)),
        }
    }

    /// Changes limits.
    ///
    /// # Errors
    /// A limit that the kernel refuses, by file and value.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), OciError> {
        match self.status()? {
            Status::Stopped => Err(self.wrong_state("update", Status::Stopped)),
            _ => {
                crate::check::resources("", resources)?;
                self.cgroups.update(resources)
            }
        }
    }

    fn wrong_state(&self, operation: &'static str, status: Status) -> OciError {
        OciError::WrongState {
            operation,
            id: self.id.clone(),
            status: status.name(),
        }
    }

    /// The specification's state.
    #[must_use]
    pub fn state(&self, status: Status, spec: &Spec) -> Value {
        let pid = if status == Status::Stopped { 0 } else { self.pid };
        json!({
            "ociVersion": crate::SPEC_VERSION,
            "id": self.id,
            "status": status.name(),
            "pid": pid,
            "bundle": self.bundle,
            "annotations": spec.annotations().clone().unwrap_or_default(),
        })
    }

    /// The same with what runc tells besides: the root file system, since when, and whose.
    ///
    /// # Errors
    /// The copy of its config.json is missing or damaged.
    pub fn describe(&self, status: Status) -> Result<Value, OciError> {
        let spec = self.spec()?;
        let mut all = self.state(status, &spec);
        if let Some(root) = spec.root() {
            all["rootfs"] = json!(self.bundle.join(root.path()));
        }
        all["created"] = json!(crate::clock::rfc3339(self.created()?));
        all["owner"] = json!("");
        Ok(all)
    }
}

/// Removes a container: its processes with `force`, its cgroups, its folder. Can be repeated; an unknown id is success.
///
/// # Errors
/// [`OciError::WrongState`] if it runs and `force` is not given; a cgroup that can't be removed, by name.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<(), OciError> {
    let container = match Container::load(root, id) {
        Ok(container) => container,
        // A create that was killed leaves a folder without a state: there is nothing else to find.
        Err(OciError::NotFound { .. }) => return state::forget(root, id),
        Err(error) => return Err(error),
    };
    let status = container.status()?;
    if status != Status::Stopped && !force && status != Status::Created {
        return Err(container.wrong_state("delete", status));
    }
    if status == Status::Paused {
        // A frozen process does not die; this thaws it.
        container.kill_all(signal::SIGKILL)?;
    }
    if let Some(init) = container.init()? {
        process::pidfd_send_signal(&init, signal::SIGKILL).step("kill", id)?;
        process::wait_until_ended(&init, Some(LEAVE)).step("wait for", id)?;
    }
    empty(&container)?;
    container.cgroups.remove()?;
    if let Ok(spec) = container.spec() {
        crate::rdt::remove(&spec, id)?;
    }
    if let Ok(spec) = container.spec()
        && let Some(all) = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref())
    {
        // The container is gone whatever a hook says; what it says is for its own log.
        for hook in all {
            let _ = hooks::run_all(
                "poststop",
                std::slice::from_ref(hook),
                &container.state(Status::Stopped, &spec).to_string(),
            );
        }
    }
    state::forget(root, id)
}

/// Kills what the init process left in the cgroups (without a pid namespace of its own it may leave something).
fn empty(container: &Container) -> Result<(), OciError> {
    let deadline = Instant::now() + LEAVE;
    loop {
        let left = container.cgroups.processes().step("list processes of", &container.id)?;
        let Some(pid) = left.first().copied() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut)).step("wait for the end of process", pid);
        }
        container.kill_all(signal::SIGKILL)?;
        if let Ok(pidfd) = process::pidfd_open(pid) {
            // It may be another's number by now: then this waits in vain, for a moment.
            let _ = process::wait_until_ended(&pidfd, Some(Duration::from_millis(100)));
        }
    }
}

/// Ids below `root`, in order.
///
/// # Errors
/// As readdir(3); a root that is not there has none.
pub fn list(root: &Path) -> Result<Vec<String>, OciError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).step("list", root.display()),
    };
    let mut ids: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        // What is not a container's has a name that none can have.
        .filter(|name| state::check_id(name).is_ok())
        .collect();
    ids.sort();
    Ok(ids)
}

//! The embedded runtime: the library `berth_oci`, called in this process.
//!
//! The processes that it makes are siblings of the creator, so that they are the shim's own children at once.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    time::Duration,
};

use berth_core::ErrorCode;
use berth_oci::{Container, CreateOptions, ExecOptions, OciError, oci_spec::runtime as spec};

use crate::{Call, CreateArgs, Created, Driver, Error, ExecArgs, Features, Known, State, Status, Stdio};

/// The driver's parameters; it holds nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Embedded {
    /// Where it keeps a folder a container.
    pub root: PathBuf,
    /// systemd makes the cgroups.
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    /// A folder where compiled seccomp programs are kept, for all containers.
    pub filters: Option<PathBuf>,
}

impl Embedded {
    fn load(&self, operation: &'static str, call: &Call<'_>) -> Result<Container, Error> {
        Container::load(&self.root, call.id).map_err(|error| refused(operation, call.id, &error))
    }

    fn make(
        &self,
        args: &CreateArgs<'_>,
        how: impl FnOnce(CreateOptions<'_>) -> Result<Container, OciError>,
    ) -> Result<Created, Error> {
        let id = args.call.id;
        let fail = |error: OciError| refused("create", id, &error);
        let read;
        let (spec, text) = match args.config {
            Some(text) => (berth_oci::load_text(args.bundle, text).map_err(fail)?, text),
            None => {
                read = berth_oci::load(args.bundle).map_err(fail)?;
                (read.0, read.1.as_slice())
            }
        };
        let (stdio, console) = ends("create", id, args.stdio)?;
        let container = how(CreateOptions {
            root: &self.root,
            id,
            bundle: args.bundle,
            spec: &spec,
            spec_text: text,
            stdio,
            console,
            pivot: !self.no_pivot_root,
            new_keyring: !self.no_new_keyring,
            preserve_fds: 0,
            sibling: true,
            filters: self.filters.as_deref(),
            systemd_cgroup: self.systemd_cgroup,
        });
        container
            .map(|container| made(&container, has_new_pids(&spec)))
            .map_err(fail)
    }
}

impl Driver for Embedded {
    fn create(&self, args: &CreateArgs<'_>) -> Result<Created, Error> {
        self.make(args, berth_oci::create)
    }

    fn run(&self, args: &CreateArgs<'_>, go: &mut dyn FnMut(&Created) -> bool) -> Result<Created, Error> {
        self.make(args, |options| {
            let new_pids = has_new_pids(options.spec);
            berth_oci::run(options, &mut |container| go(&made(container, new_pids)))
        })
    }

    fn start(&self, call: &Call<'_>) -> Result<(), Error> {
        self.load("start", call)?
            .start()
            .map_err(|error| refused("start", call.id, &error))
    }

    fn exec(&self, args: &ExecArgs<'_>) -> Result<Created, Error> {
        let id = args.call.id;
        let process =
            berth_oci::read_process(args.process, "process", &mut |_| {}).map_err(|error| Error::Invalid {
                operation: "exec",
                problem: error.to_string(),
            })?;
        let container = self.load("exec", &args.call)?;
        let (stdio, console) = ends("exec", id, args.stdio)?;
        let options = ExecOptions {
            process: &process,
            ignore_paused: false,
            stdio,
            console,
            preserve_fds: 0,
            sibling: true,
            filters: self.filters.as_deref(),
        };
        let pid = berth_oci::exec(&container, options).map_err(|error| refused("exec", id, &error))?;
        Ok(Created { pid, known: None })
    }

    fn kill_all(&self, call: &Call<'_>, signal: u32) -> Result<(), Error> {
        let container = match self.load("kill", call) {
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(()),
            other => other?,
        };
        let signal = i32::try_from(signal).unwrap_or(0);
        container
            .kill_all(signal)
            .map_err(|error| refused("kill", call.id, &error))
    }

    fn pause(&self, call: &Call<'_>) -> Result<(), Error> {
        self.load("pause", call)?
            .pause()
            .map_err(|error| refused("pause", call.id, &error))
    }

    fn resume(&self, call: &Call<'_>) -> Result<(), Error> {
        self.load("resume", call)?
            .resume()
            .map_err(|error| refused("resume", call.id, &error))
    }

    fn update(&self, call: &Call<'_>, resources: &[u8]) -> Result<(), Error> {
        let resources: spec::LinuxResources = serde_json::from_slice(resources).map_err(|error| Error::Invalid {
            operation: "update",
            problem: format!("resources: {error}"),
        })?;
        self.load("update", call)?
            .update(&resources)
            .map_err(|error| refused("update", call.id, &error))
    }

    fn delete(&self, call: &Call<'_>, force: bool) -> Result<(), Error> {
        berth_oci::delete(&self.root, call.id, force).map_err(|error| refused("delete", call.id, &error))
    }

    fn state(&self, call: &Call<'_>) -> Result<State, Error> {
        let container = self.load("state", call)?;
        let status = match container.status().map_err(|error| refused("state", call.id, &error))? {
            berth_oci::Status::Created => Status::Created,
            berth_oci::Status::Running => Status::Running,
            berth_oci::Status::Paused => Status::Paused,
            berth_oci::Status::Stopped => Status::Stopped,
        };
        Ok(State {
            pid: if status == Status::Stopped { 0 } else { container.pid },
            status,
        })
    }

    fn features(&self, _: Duration) -> Result<Features, Error> {
        let version = format!("berth {}", env!("CARGO_PKG_VERSION"));
        let features = berth_oci::features(&version);
        Ok(Features { version, features })
    }
}

/// A container with its init process, as the driver tells of it.
fn made(container: &Container, has_new_pids: bool) -> Created {
    let known = Some(Known {
        start_time: container.start_time,
        has_new_group: container.cgroups.has_new_memory_group(),
        has_new_pids,
    });
    Created {
        pid: container.pid,
        known,
    }
}

fn has_new_pids(spec: &spec::Spec) -> bool {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let is_new = |one: &spec::LinuxNamespace| {
        one.typ() == spec::LinuxNamespaceType::Pid && one.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    };
    all.is_some_and(|all| all.iter().any(is_new))
}

type Ends<'a> = (Option<[std::os::fd::BorrowedFd<'a>; 3]>, Option<OwnedFd>);

fn ends<'a>(operation: &'static str, id: &str, stdio: Stdio<'a>) -> Result<Ends<'a>, Error> {
    match stdio {
        Stdio::Fds { stdin, stdout, stderr } => Ok((Some([stdin, stdout, stderr]), None)),
        Stdio::Console { socket } => {
            let connected = UnixStream::connect(socket);
            let connected = connected.map_err(|source| Error::io(operation, id, "connect to the console", source))?;
            Ok((None, Some(connected.into())))
        }
    }
}

/// The library's error as the driver tells errors.
fn refused(operation: &'static str, id: &str, error: &OciError) -> Error {
    let code = match error {
        OciError::CommandNotFound { .. } => ErrorCode::CommandNotFound,
        OciError::CommandNotExecutable { .. } => ErrorCode::CommandNotExecutable,
        OciError::Init { exit_code: 127, .. } => ErrorCode::CommandNotFound,
        OciError::Init { exit_code: 126, .. } => ErrorCode::CommandNotExecutable,
        OciError::Exists { .. } => ErrorCode::AlreadyExists,
        OciError::NotFound { .. } => ErrorCode::NotFound,
        OciError::WrongState { .. } | OciError::NotRunning => ErrorCode::WrongState,
        OciError::Spec { .. } | OciError::Bundle { .. } | OciError::Json { .. } => ErrorCode::Bundle,
        OciError::Step { source, .. } if is_full(source) => ErrorCode::Resources,
        OciError::Step { .. } | OciError::Unsupported { .. } | OciError::Hook { .. } => ErrorCode::Runtime,
        OciError::Init { .. } | OciError::InitLost => ErrorCode::Runtime,
    };
    Error::Refused {
        operation,
        id: id.to_owned(),
        status: i32::from(error.exit_code()),
        code,
        last_line: error.to_string(),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::OutOfMemory)
}

//! Which runtime a name means.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_core::{ContainerKey, ErrorCode};
use berth_record::{DriverKind, RuntimeRecord};

use crate::types::{RuntimeInfo, RuntimeOptions};
use crate::{Error, Runtime, RuntimeConfig};

/// The runtime that is part of the shim: it needs no program.
const EMBEDDED: &str = "embedded";

/// Where programs are looked for if the environment does not say.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Looked for in this order where the configuration names no default.
pub const KNOWN: [&str; 5] = [EMBEDDED, "runc", "crun", "youki", "runsc"];

/// How to call the runtime that a request asks for; `folder` is the container's own.
pub(crate) fn resolve(
    config: &RuntimeConfig,
    wanted: &str,
    options: &RuntimeOptions,
    operation: &'static str,
    key: &ContainerKey,
    folder: &Path,
) -> Result<RuntimeRecord, Error> {
    let mut record = find_record(config, wanted, options.allow_path, operation, key, folder)?;
    record.systemd_cgroup |= options.systemd_cgroup || config.systemd_cgroup;
    record.no_pivot_root |= options.no_pivot_root;
    record.no_new_keyring |= options.no_new_keyring;
    // The embedded one's state goes with the container's folder, and nobody else reads it.
    if let (Some(root), DriverKind::Command) = (&options.root, record.kind) {
        record.root = root.join(key.namespace.as_str());
    }
    Ok(record)
}

fn find_record(
    config: &RuntimeConfig,
    wanted: &str,
    allow_path: bool,
    operation: &'static str,
    key: &ContainerKey,
    folder: &Path,
) -> Result<RuntimeRecord, Error> {
    let error = |code, message: String| Err(Error::new(code, operation, key, message));
    if wanted.contains('/') && !config.runtimes.contains_key(wanted) {
        if !config.allow_paths && !allow_path {
            let message =
                "a runtime is named by its name; the configuration does not allow paths (runtime.allow_paths)";
            return error(ErrorCode::InvalidArgument, message.into());
        }
        if !Path::new(wanted).is_absolute() {
            return error(
                ErrorCode::InvalidArgument,
                format!("the runtime's path {wanted:?} is not absolute"),
            );
        }
        let runtime = Runtime {
            path: wanted.into(),
            ..Runtime::default()
        };
        return Ok(record(config, wanted, wanted.into(), &runtime, key, folder));
    }
    let name = match (wanted, config.default.as_str()) {
        ("", "") => match KNOWN.into_iter().find(|name| find(config, name).is_some()) {
            Some(name) => name,
            None => {
                let message =
                    "no runtime found: install runc or crun, or name one in the configuration ([runtimes.NAME])";
                return error(ErrorCode::Runtime, message.into());
            }
        },
        ("", default) => default,
        (wanted, _) => wanted,
    };
    let known = config.runtimes.get(name);
    if known.is_none() && !KNOWN.contains(&name) && !allow_path {
        let message = format!("runtime {name:?} is not in the configuration; add [runtimes.{name}] with its path");
        return error(ErrorCode::InvalidArgument, message);
    }
    let Some(path) = find(config, name) else {
        return error(
            ErrorCode::Runtime,
            format!("runtime {name}: no such program on PATH; install it, or set runtimes.{name}.path"),
        );
    };
    Ok(record(
        config,
        name,
        path,
        &known.cloned().unwrap_or_default(),
        key,
        folder,
    ))
}

fn record(
    config: &RuntimeConfig,
    name: &str,
    binary: PathBuf,
    runtime: &Runtime,
    key: &ContainerKey,
    folder: &Path,
) -> RuntimeRecord {
    // Runtimes know no namespaces: one id in two of them must not meet in one root.
    let shared = runtime.root.as_ref().map(|root| root.join(key.namespace.as_str()));
    RuntimeRecord {
        name: name.to_owned(),
        kind: if is_embedded(config, name) {
            DriverKind::Embedded
        } else {
            DriverKind::Command
        },
        binary,
        args: runtime.args.clone(),
        root: shared.unwrap_or_else(|| folder.join("runtime")),
        systemd_cgroup: runtime.systemd_cgroup,
        timeout_ms: u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX),
        ..RuntimeRecord::default()
    }
}

/// The configuration may give the name to a program of its own.
fn is_embedded(config: &RuntimeConfig, name: &str) -> bool {
    name == EMBEDDED && !config.runtimes.contains_key(name)
}

/// Where a runtime's binary is; empty for the embedded one. An absolute path from the configuration is believed: the runtime's own call says what is wrong with it.
fn find(config: &RuntimeConfig, name: &str) -> Option<PathBuf> {
    if is_embedded(config, name) {
        return Some(PathBuf::new());
    }
    let path = config
        .runtimes
        .get(name)
        .map(|r| r.path.clone())
        .filter(|p| !p.as_os_str().is_empty());
    let path = path.unwrap_or_else(|| name.into());
    if path.is_absolute() {
        return Some(path);
    }
    let executable =
        |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let folders = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    std::env::split_paths(&folders)
        .filter(|p| p.is_absolute())
        .map(|folder| folder.join(&path))
        .find(executable)
}

/// All that can be used, the default one first. Runs `--version` of each, so it may take a moment.
pub(crate) fn list(config: &RuntimeConfig) -> Vec<RuntimeInfo> {
    let mut names: Vec<&str> = config.runtimes.keys().map(String::as_str).collect();
    names.extend(KNOWN.into_iter().filter(|name| !config.runtimes.contains_key(*name)));
    let found = names.into_iter().filter_map(|name| Some((name, find(config, name)?)));
    let mut list: Vec<RuntimeInfo> = found
        .map(|(name, path)| RuntimeInfo {
            name: name.into(),
            version: if path.as_os_str().is_empty() {
                env!("CARGO_PKG_VERSION").into()
            } else {
                version(&path)
            },
            path,
            default: false,
        })
        .collect();
    let default = match config.default.as_str() {
        "" => KNOWN
            .into_iter()
            .find(|known| list.iter().any(|r| r.name == *known))
            .unwrap_or_default(),
        name => name,
    };
    for runtime in &mut list {
        runtime.default = runtime.name == default;
    }
    list.sort_by_key(|r| !r.default);
    list
}

/// First line of what it says, or nothing.
fn version(path: &Path) -> String {
    use berth_sys::file::dev_null;
    use berth_sys::spawn::{Capture, Keep, Program, spawn};
    use std::ffi::OsStr;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    let ask = || {
        let (null, (capture, out)) = (dev_null()?, Capture::new(Keep::Head, 256)?);
        let program = Program {
            path,
            name: None,
            args: &[OsStr::new("--version")],
            env: &[],
            stdio: [null.as_fd(), out.as_fd(), null.as_fd()],
        };
        let running = spawn(&program)?;
        drop(out);
        let mut captures = [capture];
        running.wait(Instant::now() + Duration::from_secs(2), &mut captures)?;
        let [capture] = captures;
        std::io::Result::Ok(
            String::from_utf8_lossy(&capture.into_parts().0)
                .lines()
                .next()
                .unwrap_or_default()
                .into(),
        )
    };
    ask().unwrap_or_default()
}

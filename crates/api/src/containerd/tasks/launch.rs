//! From a container's record and a CreateTask to a start of the supervisor's: the runtime that is meant, the bundle, the stdio.

use berth_core::{ContainerKey, StdioTo, TerminalSize};
use berth_supervisor::{Config, MadeBundle, RootfsMount, RunSpec, RuntimeOptions};
use berth_wire::containerd::services::containers::v1::Container;
use berth_wire::containerd::services::tasks::v1::CreateTaskRequest;
use berth_wire::containerd::{runc, types, unpack};
use prost_types::Any;
use serde::Deserialize;
use tonic::Status;

use super::stdio;

/// What is meant by an empty `binary_name`.
const RUNC: &str = "runc";

/// The few fields of a spec that concern more than the runtime.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    process: Option<Process>,
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    console_size: Option<ConsoleSize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConsoleSize {
    width: u16,
    height: u16,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
}

fn invalid(message: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{message}: invalid argument"))
}

fn size(size: Option<ConsoleSize>) -> TerminalSize {
    match size {
        Some(ConsoleSize { width, height }) if width > 0 && height > 0 => TerminalSize { width, height },
        _ => TerminalSize::default(),
    }
}

pub fn spec(
    key: ContainerKey,
    container: Container,
    request: CreateTaskRequest,
    config: &Config,
) -> Result<RunSpec, Status> {
    let text = container
        .spec
        .ok_or_else(|| invalid("the container has no spec"))?
        .value;
    let parsed: Spec = serde_json::from_slice(&text).map_err(|error| invalid(format!("spec: {error}")))?;
    let runtime = container
        .runtime
        .ok_or_else(|| invalid("the container has no runtime"))?;
    if !request.runtime_path.is_empty() {
        let message = "runtime_path: only the runtimes of the configuration and io.containerd.runc.v2 are supported";
        return Err(Status::unimplemented(message));
    }
    let options = request.options.filter(|options| !options.value.is_empty());
    let options = runc_options(options.or(runtime.options))?;
    let mut spec = RunSpec::new(key, "");
    spec.stdio = stdio::parse(&request.stdin, &request.stdout, &request.stderr, request.terminal)?;
    spec.stdio.size = size(parsed.process.and_then(|process| process.console_size));
    if let StdioTo::Fifo(fifo) = &mut spec.stdio.to
        && !request.terminal
        && (options.io_uid, options.io_gid) != (0, 0)
    {
        fifo.owner = Some((options.io_uid, options.io_gid));
    }
    spec.runtime = driver(&runtime.name, &options.binary_name, config)?;
    spec.runtime_options = RuntimeOptions {
        allow_path: true,
        root: (!options.root.is_empty()).then(|| options.root.into()),
        systemd_cgroup: options.systemd_cgroup,
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
    };
    let mappings = parsed.linux.and_then(|linux| linux.gid_mappings).unwrap_or_default();
    spec.made = Some(MadeBundle {
        config: text,
        rootfs: request.rootfs.into_iter().map(mount).collect(),
        group: mappings.iter().find(|m| m.inside == 0).map(|m| m.outside),
    });
    spec.labels = container.labels;
    Ok(spec)
}

fn mount(mount: types::Mount) -> RootfsMount {
    RootfsMount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}

fn runc_options(options: Option<Any>) -> Result<runc::Options, Status> {
    let Some(options) = options.filter(|options| !options.type_url.is_empty()) else {
        return Ok(runc::Options::default());
    };
    match unpack::<runc::Options>(&options) {
        Some(decoded) => decoded.map_err(|error| invalid(format!("runtime options: {error}"))),
        None => Err(invalid(format!(
            "runtime options of type {:?}, not containerd.runc.v1.Options",
            options.type_url
        ))),
    }
}

/// Our name or path of the runtime that a client of containerd's means.
fn driver(name: &str, binary: &str, config: &Config) -> Result<String, Status> {
    let table = &config.containerd_runtimes;
    if let Some(driver) = table.get(name) {
        return Ok(driver.clone());
    }
    if !matches!(name, "io.containerd.runc.v2" | "io.containerd.runc.v1") {
        let shim = match name.rsplit('.').take(2).collect::<Vec<_>>().as_slice() {
            [version, runtime] => format!("containerd-shim-{runtime}-{version}"),
            _ => return Err(invalid(format!("invalid runtime name {name}"))),
        };
        // Other shims are not started yet.
        let message = format!("runtime {name:?} binary not installed {shim:?}: file does not exist");
        return Err(Status::unknown(message));
    }
    let binary = if binary.is_empty() { RUNC } else { binary };
    Ok(table.get(binary).cloned().unwrap_or_else(|| binary.to_owned()))
}

/// The process of an exec as JSON, with the terminal that the request says, and the terminal's size.
pub fn process(spec: Option<Any>, terminal: bool) -> Result<(Vec<u8>, TerminalSize), Status> {
    let spec = spec.ok_or_else(|| invalid("a process is needed"))?.value;
    let mut process: serde_json::Value =
        serde_json::from_slice(&spec).map_err(|error| invalid(format!("process: {error}")))?;
    let of = Process::deserialize(&process).map_err(|error| invalid(format!("process: {error}")))?;
    let size = size(of.console_size);
    // serde takes a list for a struct, too.
    let Some(object) = process.as_object_mut() else {
        return Err(invalid("process: an object expected"));
    };
    if object.get("terminal").is_some_and(|asked| *asked == true) == terminal {
        return Ok((spec, size));
    }
    object.insert("terminal".into(), terminal.into());
    Ok((process.to_string().into_bytes(), size))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn runtimes_as_docker_names_them() {
        let config = Config::new("/s", "/r", "/shim");
        let driver = |name: &str, binary: &str| driver(name, binary, &config);
        assert_eq!(driver("io.containerd.runc.v2", "").expect("known"), "embedded");
        assert_eq!(driver("io.containerd.runc.v2", "runc").expect("known"), "embedded");
        assert_eq!(
            driver("io.containerd.runc.v2", "/usr/bin/runc").expect("known"),
            "/usr/bin/runc"
        );
        assert_eq!(driver("io.containerd.runc.v2", "crun").expect("known"), "crun");
        let refused = driver("io.containerd.kata.v2", "").expect_err("not there");
        assert!(
            refused
                .message()
                .contains("\"containerd-shim-kata-v2\": file does not exist")
        );
        assert!(driver("x", "").is_err());
    }

    #[test]
    fn an_execs_terminal_is_the_requests() {
        let any = |value: &str| {
            Some(Any {
                type_url: String::new(),
                value: value.into(),
            })
        };
        let kept = r#"{"cwd":"/",  "args":["a"],"consoleSize":{"height":3,"width":4}}"#;
        let (bytes, size) = process(any(kept), false).expect("valid");
        assert_eq!(
            (bytes.as_slice(), size),
            (kept.as_bytes(), TerminalSize { width: 4, height: 3 })
        );
        let (bytes, _) = process(any(kept), true).expect("valid");
        assert!(String::from_utf8_lossy(&bytes).contains(r#""terminal":true"#));
        assert!(process(any("[]"), true).is_err());
        assert!(process(None, true).is_err());
    }
}

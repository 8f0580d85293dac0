//! `berth spec`: a config.json to start from, with the restrictions that Docker gives by default. Needs no berthd.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::error::{CliError, Result};
use crate::out::complain;

const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Folder to write config.json to
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// With a terminal, for `berth run -it`; this is the default where no command is given
    #[arg(long = "tty", short = 't')]
    pub terminal: bool,
    /// What to run [default: sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

pub fn spec(context: &Context, args: SpecArgs) -> Result<u8> {
    let path = args.bundle.join("config.json");
    let failed = |source| CliError::File {
        operation: "write",
        path: path.clone(),
        source,
    };
    let terminal = args.terminal || args.command.is_empty();
    let command = if args.command.is_empty() {
        vec!["sh".to_owned()]
    } else {
        args.command
    };
    // Never over a config.json that is there.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed)?;
    file.write_all(format!("{:#}\n", config(&command, terminal)).as_bytes())
        .map_err(failed)?;
    if context.out.json {
        context.out.object(&json!({ "path": path }))?;
    } else if !args.bundle.join("rootfs").exists() {
        complain(&format!(
            "wrote {}; now put a root filesystem into {}",
            path.display(),
            args.bundle.join("rootfs").display()
        ));
    }
    Ok(0)
}

fn config(command: &[String], terminal: bool) -> Value {
    let mut process = json!({
        "terminal": terminal,
        "user": { "uid": 0, "gid": 0 },
        "args": command,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
        "noNewPrivileges": true,
    });
    if terminal && let Some(environment) = process["env"].as_array_mut() {
        environment.push(json!("TERM=xterm"));
    }
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    json!({
        // The lowest that has all of this: every runtime reads it.
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "berth",
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
                "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_command_and_the_terminal_are_in_it() {
        let value = config(&["sleep".into(), "1".into()], false);
        assert_eq!(value["process"]["args"], json!(["sleep", "1"]));
        assert_eq!(value["process"]["env"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            config(&["sh".into()], true)["process"]["env"].as_array().map(Vec::len),
            Some(2)
        );
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = std::env::temp_dir().join(format!("berth-spec-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("folder");
        let context = Context {
            out: crate::out::Out { json: false },
            namespace: String::new(),
            address: PathBuf::new(),
        };
        let args = || SpecArgs {
            bundle: folder.clone(),
            terminal: false,
            command: vec!["true".into()],
        };
        let first = spec(&context, args());
        let second = spec(&context, args());
        let text = std::fs::read_to_string(folder.join("config.json"));
        std::fs::remove_dir_all(&folder).expect("clean");
        assert!(matches!(first, Ok(0)));
        assert!(
            matches!(second, Err(CliError::File { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists)
        );
        assert!(serde_json::from_str::<Value>(&text.expect("file")).is_ok());
    }
}

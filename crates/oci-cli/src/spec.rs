//! `spec`: a config.json to begin with, the same as runc's.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::log::Failure;

/// Writes it; one that is there stays.
pub fn write(bundle: &Path, rootless: bool) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    let tell = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new("File config.json exists", "Remove it first"),
        _ => Failure::new(&path.display().to_string(), error),
    };
    let mut file = std::fs::File::create_new(&path).map_err(tell)?;
    let text = format!("{:#}\n", config(rootless));
    file.write_all(text.as_bytes()).map_err(tell)
}

fn config(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut config = json!({
        "ociVersion": berth_oci::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "berth",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if rootless {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        let linux = &mut config["linux"];
        linux["resources"] = json!({});
        linux["namespaces"] = namespaces(&["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
        let mounts = &mut config["mounts"];
        // gid 5 is not mapped, and a sysfs needs a network namespace of its own.
        mounts[2] = mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        );
        mounts[5] = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    }
    config
}

fn mount(at: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({ "destination": at, "type": kind, "source": source });
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

fn namespaces(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn it_is_a_config_that_this_runtime_takes() {
        let folder = std::env::temp_dir().join(format!("berth-oci-spec-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for rootless in [false, true] {
            write(&folder, rootless).expect("written");
            assert!(write(&folder, rootless).is_err_and(|told| told.message.contains("exists")));
            berth_oci::load(&folder).expect("legal");
            std::fs::remove_file(folder.join("config.json")).expect("removed");
        }
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}

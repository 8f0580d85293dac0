//! Bundles: the default configuration of a Docker-like engine, over one root filesystem of one static busybox.

use crate::error::{BenchError, Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const APPLETS: &[&str] = &["sh", "sleep", "true", "cat", "echo", "usleep", "dd", "ls"];

/// Docker's 14.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// One container to be: its id, its folder and the specification in it.
#[derive(Debug)]
pub struct Bundle {
    pub id: String,
    pub path: PathBuf,
    pub spec: Vec<u8>,
    /// Output goes into FIFOs whose read ends are held here; otherwise nowhere.
    pub fifos: Option<Fifos>,
    /// Output goes into files that Berth keeps.
    pub logs: bool,
}

#[derive(Debug)]
pub struct Fifos {
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    _readers: [OwnedFd; 2],
}

impl Bundle {
    /// The same with files for its output. Only Berth has them.
    pub fn with_logs(mut self) -> Bundle {
        self.logs = true;
        self
    }

    /// The same with FIFOs for standard output and error, made and opened as a client does before it asks for a start.
    pub fn with_fifos(mut self) -> Result<Bundle> {
        let make = |name: &str| -> Result<(PathBuf, OwnedFd)> {
            let path = self.path.join(name);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            let reader = rustix::fs::open(
                &path,
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            Ok((path, reader))
        };
        let ((stdout, out), (stderr, err)) = (make("stdout")?, make("stderr")?);
        self.fifos = Some(Fifos {
            stdout,
            stderr,
            _readers: [out, err],
        });
        Ok(self)
    }
}

/// Makes the root filesystem that all bundles share, once.
pub fn make_rootfs(rootfs: &Path) -> Result<()> {
    let bin = rootfs.join("bin");
    for folder in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
        std::fs::create_dir_all(rootfs.join(folder))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(Path::new)
        .find(|path| path.exists());
    let busybox = busybox.ok_or_else(|| BenchError::new("busybox is missing: apt-get install busybox-static"))?;
    std::fs::copy(busybox, bin.join("busybox"))?;
    std::fs::set_permissions(bin.join("busybox"), PermissionsExt::from_mode(0o755))?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

/// Writes a bundle whose process is `args`, below `bundles`.
pub fn write(
    bundles: &Path,
    rootfs: &Path,
    cgroup: &str,
    id: &str,
    args: &[&str],
    seccomp: Option<Value>,
) -> Result<Bundle> {
    let path = bundles.join(id);
    std::fs::create_dir_all(&path).context(path.display())?;
    let mut spec = spec(rootfs, &format!("{cgroup}/{id}"), id, args);
    if let Some(profile) = seccomp {
        spec["linux"]["seccomp"] = profile;
    }
    let spec = serde_json::to_vec(&spec)?;
    std::fs::write(path.join("config.json"), &spec).context(path.display())?;
    Ok(Bundle {
        id: id.to_owned(),
        path,
        spec,
        fifos: None,
        logs: false,
    })
}

/// The OCI process object of a command in a container made by [`write()`].
pub fn process(args: &[&str]) -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "oomScoreAdj": 0,
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
    })
}

fn spec(rootfs: &Path, cgroup: &str, hostname: &str, args: &[&str]) -> Value {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let device = |kind: &str, major: i64, minor: Option<i64>| {
        let mut rule = json!({"allow": true, "type": kind, "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    };
    json!({
        "ociVersion": "1.0.2",
        "process": process(args),
        "root": {"path": rootfs},
        "hostname": hostname,
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                device("c", 1, Some(3)),
                device("c", 1, Some(5)),
                device("c", 1, Some(7)),
                device("c", 1, Some(8)),
                device("c", 1, Some(9)),
                device("c", 5, Some(0)),
                device("c", 5, Some(1)),
                device("c", 5, Some(2)),
                device("c", 136, None),
            ]},
        },
    })
}

//! OCI bundles on one shared, read-only root file system of busybox.
use crate::v1::{ContainerSpec, Stdio};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A bundle of its own cgroup, `PARENT/ID`, with `DIR/out` mounted on `/out`.
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
    pub stdio: Option<Stdio>,
}

impl Bundle {
    pub fn new(parent: &Path, cgroup: &str, id: &str, args: &[&str]) -> Bundle {
        let dir = parent.join(id);
        std::fs::create_dir_all(dir.join("out")).expect("bundle folder");
        let config = config(&dir, &format!("{cgroup}/{id}"), args);
        let bundle = Bundle {
            id: id.to_owned(),
            dir,
            config,
            stdio: None,
        };
        bundle.write();
        bundle
    }

    fn write(&self) {
        std::fs::write(self.dir.join("config.json"), self.config.to_string()).expect("config.json");
    }

    /// Changes config.json.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.config);
        self.write();
        self
    }

    pub fn stdio(mut self, stdio: Stdio) -> Bundle {
        self.stdio = Some(stdio);
        self
    }

    /// A terminal, in config.json and in the stdio.
    pub fn terminal(mut self) -> Bundle {
        let stdio = self.stdio.take().unwrap_or_default();
        self.stdio = Some(Stdio {
            terminal: true,
            ..stdio
        });
        self.edit(|c| c["process"]["terminal"] = json!(true))
    }

    /// A hook of the runtime's namespace ("createRuntime", "poststop") that runs a shell line on the host.
    pub fn hook(self, kind: &str, line: &str) -> Bundle {
        self.edit(|c| c["hooks"][kind] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", line] }]))
    }

    /// A user namespace of its own, whose root is user 100,000 outside.
    pub fn own_users(self) -> Bundle {
        self.edit(|c| {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            (c["linux"]["uidMappings"], c["linux"]["gidMappings"]) = (map.clone(), map);
            let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.push(json!({ "type": "user" }));
        })
    }

    pub fn memory(self, limit: u64) -> Bundle {
        self.edit(|c| c["linux"]["resources"]["memory"] = json!({ "limit": limit, "swap": limit }))
    }

    /// The whole basic request.
    pub fn spec(&self) -> ContainerSpec {
        ContainerSpec {
            id: self.id.clone(),
            bundle: self.dir.to_str().expect("utf-8").to_owned(),
            stdio: self.stdio.clone(),
            ..ContainerSpec::default()
        }
    }

    /// A file of the container's /out.
    pub fn out(&self, name: &str) -> PathBuf {
        self.dir.join("out").join(name)
    }

    /// The text of a file in /out once it is there and ends with a newline.
    pub async fn line(&self, name: &str) -> String {
        let path = self.out(name);
        crate::until(&format!("a line in {}", path.display()), || {
            std::fs::read_to_string(&path)
                .ok()?
                .strip_suffix('\n')
                .map(str::to_owned)
        })
        .await
    }
}

fn config(dir: &Path, cgroup: &str, args: &[&str]) -> Value {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "HOME=/", "FROM=bundle"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
        },
        "root": { "path": rootfs(), "readonly": true },
        "hostname": "berth",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/tmp", "tmpfs", &["nosuid"]),
            { "destination": "/out", "type": "bind", "source": dir.join("out"), "options": ["rbind", "rw"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
            ],
            "resources": {},
        },
    })
}

const CAPABILITIES: &[&str] = &[
    "CAP_KILL",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_NET_BIND_SERVICE",
];

/// Made once beside the test binary and used by all; nothing can write to it through a container.
pub fn rootfs() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let exe = std::env::current_exe().expect("the test binary");
        let root = exe.with_file_name("e2e-rootfs-1");
        if !root.exists() {
            let new = exe.with_file_name(format!("e2e-rootfs.{}", std::process::id()));
            fill(&new).unwrap_or_else(|e| panic!("{}: {e} (apt-get install -y busybox-static)", new.display()));
            if std::fs::rename(&new, &root).is_err() {
                // Another test binary was first.
                let _ = std::fs::remove_dir_all(&new);
            }
        }
        root
    })
}

fn fill(root: &Path) -> std::io::Result<()> {
    for dir in ["bin", "dev", "etc", "out", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let applets = std::process::Command::new(root.join("bin/busybox"))
        .arg("--list")
        .output()?;
    for applet in String::from_utf8_lossy(&applets.stdout)
        .lines()
        .filter(|a| *a != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nalice:x:1000:1000:Alice:/tmp:/bin/sh\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nalice:x:1000:\ncrew:x:2000:alice\n")?;
    std::fs::write(root.join("bin/not-executable"), "#!/bin/sh\n")?;
    std::fs::set_permissions(root.join("bin/not-executable"), PermissionsExt::from_mode(0o644))
}

//! A bundle with busybox and a state folder, both gone afterwards, and the real berth-oci on it. Needs root, cgroups and busybox.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

pub struct Place {
    pub path: PathBuf,
    pub id: String,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "berth-oci-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(&id);
        let root = path.join("bundle/rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp", "mnt", "etc"] {
            std::fs::create_dir_all(root.join(folder)).expect("rootfs");
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        std::fs::copy(busybox.expect("busybox is installed"), root.join("bin/busybox")).expect("busybox");
        for applet in [
            "sh", "cat", "env", "hostname", "ls", "id", "sleep", "grep", "stat", "mount", "true",
        ] {
            symlink("busybox", root.join("bin").join(applet)).expect("link");
        }
        Place { path, id }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path.join("bundle/rootfs")
    }

    /// A config that runs `script`; tests change what they are about.
    pub fn config(&self, script: &str) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "process": {
                "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                "user": { "uid": 0, "gid": 0 },
            },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            },
        })
    }

    pub fn write(&self, config: &Value) {
        std::fs::write(self.path.join("bundle/config.json"), config.to_string()).expect("config.json");
    }

    /// `berth-oci run` to its end.
    pub fn run(&self, config: &Value) -> Said {
        self.write(config);
        let bundle = self.path.join("bundle");
        self.call(&["run", "--bundle", &bundle.display().to_string(), &self.id])
    }

    pub fn call(&self, args: &[&str]) -> Said {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Files and not pipes: what a container holds open would keep the reader waiting.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| self.path.join(format!("{name}-{number}"));
        let open = |name: &str| File::create(file(name)).expect("a file");
        let read = |name: &str| String::from_utf8_lossy(&std::fs::read(file(name)).expect("a file")).into_owned();
        let status = Command::new(env!("CARGO_BIN_EXE_berth-oci"))
            .arg("--root")
            .arg(self.path.join("state"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(open("out"))
            .stderr(open("err"))
            .status()
            .expect("berth-oci runs");
        Said {
            code: status.code(),
            out: read("out"),
            err: read("err"),
        }
    }

    /// What a failed call must not leave: a state folder, a cgroup.
    pub fn assert_nothing_left(&self) {
        assert!(
            !self.path.join("state").join(&self.id).exists(),
            "its state folder is there"
        );
        for entry in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            assert!(
                !entry.path().join(&self.id).exists(),
                "{} has its cgroup",
                entry.path().display()
            );
        }
    }
}

impl Said {
    /// The text of a container that went well.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// The text of a refusal.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        self.err
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.id]);
        // What a test that failed has left says more than an error here.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

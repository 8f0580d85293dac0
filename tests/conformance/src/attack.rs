//! Where an attack takes place: a bundle that the attacker may prepare, a folder of the host's that it must not reach, and berth-oci,
//! with all its guards or without the one that keeps this attack out.
//!
//! Without a guard the attack must succeed: else it is the attack that is broken, or the guard that is idle.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::case;

/// See the head of the file.
#[derive(Debug)]
pub struct Stage {
    pub folder: PathBuf,
    name: String,
    berth: PathBuf,
    without: Option<String>,
}

/// How the container went.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Stage {
    /// # Panics
    /// As everything here: if the machine does not let it.
    pub fn new(name: &str, without: Option<&str>) -> Stage {
        let name = format!("berth-attack-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        let _ = fs::remove_dir_all(&folder);
        let root = folder.join("rootfs");
        for sub in ["bin", "dev", "proc", "sys", "tmp", "etc", "mnt", "vol"] {
            fs::create_dir_all(root.join(sub)).expect("a folder");
        }
        for sub in ["bundle", "outside", "vol"] {
            fs::create_dir_all(folder.join(sub)).expect("a folder");
        }
        fs::write(folder.join("outside/secret"), "the host's secret\n").expect("a file");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        for applet in [
            "sh", "cat", "ls", "readlink", "stat", "id", "mkfifo", "true", "sleep", "mount", "touch",
        ] {
            symlink("busybox", root.join("bin").join(applet)).expect("a link");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
        // A copy: one attack is on the program itself.
        let berth = folder.join("berth-oci");
        fs::copy(&crate::bench::runtimes()[0].program, &berth).expect("berth-oci");
        Stage {
            folder,
            name,
            berth,
            without: without.map(str::to_owned),
        }
    }

    /// For the runtime inside, which must lack the guard as the one outside does.
    pub fn environment(&self) -> Value {
        let without = self.without.as_deref().unwrap_or_default();
        json!(["PATH=/bin", format!("{}={without}", berth_sys::unguarded::VARIABLE)])
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    pub fn program(&self) -> &Path {
        &self.berth
    }

    /// Writes a config.json: a shell script as its process, and changes as a case has them.
    pub fn config(&self, script: &str, changes: &Value) {
        let mut config = case::base();
        case::merge(&mut config, &json!({"process": {"args": ["/bin/sh", "-c", script]}}));
        case::merge(&mut config, changes);
        let text = config.to_string().replace("@DIR@", &self.folder.display().to_string());
        let text = text.replace("@PARENT@", &self.name).replace("@ID@", "c");
        fs::write(self.folder.join("bundle/config.json"), text).expect("written");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=2", "30"])
            .arg(&self.berth)
            .arg("--root")
            .arg(self.folder.join("state"));
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(guard) = &self.without {
            command.env(berth_sys::unguarded::VARIABLE, guard);
        }
        command
    }

    pub fn bundle(&self) -> String {
        self.folder.join("bundle").display().to_string()
    }

    /// Runs the container to its end.
    pub fn run(&self, flags: &[&str]) -> Ran {
        let bundle = self.bundle();
        let mut args = vec!["run", "--bundle", &bundle];
        args.extend(flags);
        args.push("c");
        self.finish(self.command(&args))
    }

    pub fn call(&self, args: &[&str]) -> Ran {
        self.finish(self.command(args))
    }

    pub fn finish(&self, mut command: Command) -> Ran {
        let done = command.output().expect("berth-oci runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            ok: done.status.success(),
            out: text(&done.stdout),
            err: text(&done.stderr),
        }
    }

    /// Creates a container with a terminal, starts it, and answers what it writes there.
    pub fn run_with_terminal(&self) -> Ran {
        let socket = self.folder.join("console.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (bundle, socket) = (self.bundle(), socket.display().to_string());
        let mut create = self.command(&["create", "--bundle", &bundle, "--console-socket", &socket, "c"]);
        // The container keeps them: to wait for their end is to wait for its end.
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !create.status().expect("berth-oci runs").success() {
            return Ran {
                ok: false,
                out: String::new(),
                err: "not created".to_owned(),
            };
        }
        let (stream, _) = listener.accept().expect("a connection");
        let got = berth_sys::socket::recv_fds(&stream, &mut [0; 64]).expect("a message");
        let master: Option<OwnedFd> = got.fds.into_iter().next();
        let started = self.call(&["start", "c"]);
        let mut out = Vec::new();
        // Ends with an error when the last of the other end closes.
        let _ = fs::File::from(master.expect("a terminal")).read_to_end(&mut out);
        Ran {
            out: String::from_utf8_lossy(&out).into_owned(),
            ..started
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.without = None;
        let _ = fs::copy(&crate::bench::runtimes()[0].program, &self.berth);
        let _ = self.call(&["delete", "--force", "c"]);
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for group in [self.name.clone(), format!("{}-other", self.name)] {
                let group = hierarchy.path().join(group);
                for inner in fs::read_dir(&group).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(inner.path());
                }
                let _ = fs::remove_dir(group);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Exchanges the two paths as fast as it goes while `work` is done.
pub fn while_swapping<R>(one: &Path, other: &Path, work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags);
            }
        });
        let answer = work();
        done.store(true, Ordering::Relaxed);
        answer
    })
}

/// Holds the guard against the attack: kept out with it, let in without. `attack` answers whether it succeeded.
pub fn guards(guard: &str, attack: impl Fn(&Stage) -> bool) {
    let stage = Stage::new(guard, None);
    assert!(
        !attack(&stage),
        "the attack succeeds, whatever the guard `{guard}` does"
    );
    drop(stage);
    let stage = Stage::new(guard, Some(guard));
    assert!(
        attack(&stage),
        "without the guard `{guard}` the attack must succeed; was berth-oci built with --features berth-oci-cli/unguarded?"
    );
}

//! One container of one config with one runtime, and what can be seen of it: from inside by the probe, from outside in the cgroups,
//! the state, the hooks' files, and what is left when it is gone.
//!
//! A bench is a folder with one bundle at one place, so that paths are the same for all runtimes; the root filesystem is made
//! anew for each container. Nothing outlives it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::Value;

use crate::case::{self, Case};
use crate::facts::{Facts, plain};

/// A program with runc's command line.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub name: &'static str,
    pub program: PathBuf,
}

/// berth-oci, runc, crun.
///
/// # Panics
/// If one is missing.
pub fn runtimes() -> [Runtime; 3] {
    let built = match std::env::var_os("BERTH_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let own = std::env::current_exe().expect("the test's file");
            own.ancestors().nth(2).expect("target folder").to_owned()
        }
    };
    let installed = |name: &'static str| Runtime {
        name,
        program: ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{name} is not installed: apt-get install runc crun")),
    };
    let berth = Runtime {
        name: "berth-oci",
        program: built.join("berth-oci"),
    };
    assert!(berth.program.exists(), "{} is not built", berth.program.display());
    [berth, installed("runc"), installed("crun")]
}

/// See the head of the file.
#[derive(Debug)]
pub struct Bench {
    folder: PathBuf,
    parent: String,
    number: u32,
    disk: (u32, u32),
    machine: String,
}

/// Replaced in what is seen of the container, so it must be part of nothing else there: a cgroup above may be named by hexadecimal digits.
fn container_id(number: u32) -> String {
    format!("case-{number:05}")
}

impl Bench {
    /// `probe`: the static program that runs in the containers.
    ///
    /// # Panics
    /// As everything here: if the machine does not let it.
    pub fn new(name: &str, probe: &Path) -> Bench {
        // What a runtime does to the machine's name must not be done to the machine's name.
        berth_sys::namespaces::unshare(berth_sys::namespaces::Namespaces::UTS).expect("a namespace");
        let own = format!("berth-conformance-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(&own);
        let _ = fs::remove_dir_all(&folder);
        for sub in ["bin", "bundle", "out", "src/d/sub"] {
            fs::create_dir_all(folder.join(sub)).expect("a folder");
        }
        fs::copy(probe, folder.join("bin/probe")).expect("the probe");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static"), folder.join("bin/busybox")).expect("busybox");
        for file in ["src/f", "src/d/file"] {
            fs::write(folder.join(file), file).expect("a file");
        }
        Bench {
            folder,
            parent: own,
            number: 0,
            disk: disk(),
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }

    /// Makes the container, looks, and takes it away.
    pub fn look(&mut self, runtime: &Runtime, case: &Case) -> Facts {
        self.number += 1;
        let id = container_id(self.number);
        self.fresh_rootfs();
        let sandbox = case.sandbox.then(Sandbox::start);
        let config = self.fill(&case.whole(), &id, sandbox.as_ref());
        fs::write(self.folder.join("bundle/config.json"), &config).expect("config.json");
        let listener = config.contains("notify.sock").then(|| {
            let path = self.folder.join("notify.sock");
            let _ = fs::remove_file(&path);
            UnixListener::bind(path).expect("a socket")
        });
        let mut facts = Facts::default();
        if case.whole()["process"]["terminal"] == true {
            self.with_terminal(runtime, &id, &mut facts);
        } else {
            self.with_pipes(runtime, case, &id, &mut facts);
        }
        if let Some(listener) = listener {
            told_listener(&listener, &mut facts);
        }
        self.read_hooks(&mut facts);
        let left = self.command(runtime, &["delete", "--force", &id], None).output();
        left.expect("the runtime runs");
        drop(sandbox);
        self.tidy(&mut facts);
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if name != self.machine {
            facts.put("name of the machine", &name);
            let _ = berth_sys::namespaces::set_hostname(&self.machine);
        }
        let folder = self.folder.display().to_string();
        facts.replace(&[
            (&folder, "DIR"),
            (&self.parent, "PARENT"),
            (&format!("_ses.{id}"), "_ses.ID"),
        ]);
        let pattern = format!("/{id}");
        facts.replace(&[(&pattern, "/ID")]);
        facts
    }

    fn fresh_rootfs(&self) {
        let root = self.folder.join("rootfs");
        let _ = fs::remove_dir_all(&root);
        for folder in [
            "bin",
            "dev",
            "proc",
            "sys",
            "tmp",
            "etc",
            "mnt",
            "out",
            "data/sub",
            "var/run/secrets",
            "root",
        ] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        for program in ["probe", "busybox"] {
            fs::hard_link(self.folder.join("bin").join(program), root.join("bin").join(program)).expect("a link");
        }
        symlink("busybox", root.join("bin/sh")).expect("a link");
        symlink("/mnt", root.join("link")).expect("a link");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n";
        for (file, text) in [
            ("etc/passwd", passwd),
            ("etc/group", "root:x:0:\n"),
            ("etc/hosts", ""),
            ("data/sub/file", "it"),
        ] {
            fs::write(root.join(file), text).expect("a file");
        }
    }

    fn fill(&self, config: &Value, id: &str, sandbox: Option<&Sandbox>) -> String {
        let (major, minor) = self.disk;
        let sandbox = sandbox.map_or(0, |sandbox| sandbox.0.id());
        config
            .to_string()
            .replace("@DIR@", &self.folder.display().to_string())
            .replace("@PARENT@", &self.parent)
            .replace("@ID@", id)
            .replace("@SANDBOX@", &sandbox.to_string())
            .replace("\"@MAJOR@\"", &major.to_string())
            .replace("\"@MINOR@\"", &minor.to_string())
    }

    fn command(&self, runtime: &Runtime, args: &[&str], before: Option<&str>) -> Command {
        // A runtime that hangs must not hang the suite.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", "15"]);
        if let Some(before) = before {
            command.args(["sh", "-c", &format!("{before}; exec \"$@\""), "sh"]);
        }
        let state = self.folder.join(format!("state-{}", runtime.name));
        command.arg(&runtime.program).arg("--root").arg(state).args(args);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn with_pipes(&self, runtime: &Runtime, case: &Case, id: &str, facts: &mut Facts) {
        let bundle = self.folder.join("bundle").display().to_string();
        let mut args = vec!["run", "--bundle", &bundle];
        args.extend(case.flags.iter().map(String::as_str));
        args.push(id);
        let mut child = self
            .command(runtime, &args, case.before.as_deref())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the runtime runs");
        // A container that hangs outlives its runtime, and keeps the pipe.
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let mut rescue = self.command(runtime, &["delete", "--force", id], None);
        let watch = std::thread::spawn(move || {
            if end.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
                let _ = rescue.output();
            }
        });
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let _ = out.read_line(&mut line);
        let said: Option<Value> = serde_json::from_str(&line).ok();
        if let Some(said) = &said {
            self.seen_outside(runtime, id, facts);
            match &case.exec {
                None => facts.add_probe("", said, host),
                Some(changes) => self.exec(runtime, case, id, changes, facts),
            }
        }
        drop(child.stdin.take());
        let mut rest = String::new();
        let _ = out.read_to_string(&mut rest);
        let mut errors = String::new();
        // Short, whatever went wrong: it fits into the pipe.
        let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors));
        drop(ended);
        let _ = watch.join();
        let code = child.wait().expect("waited for").code().unwrap_or(-1);
        self.ended(facts, said.is_some(), code, &errors);
    }

    fn ended(&self, facts: &mut Facts, ran: bool, code: i32, errors: &str) {
        facts.put("exit", code.to_string());
        if !ran {
            facts.put("ran", "no");
            // For people: what it says is never compared.
            facts.put(
                "said",
                errors
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .chars()
                    .take(300)
                    .collect::<String>(),
            );
        }
    }

    fn exec(&self, runtime: &Runtime, case: &Case, id: &str, changes: &Value, facts: &mut Facts) {
        let mut process = case.whole()["process"].clone();
        case::merge(&mut process, changes);
        let file = self.folder.join("process.json");
        fs::write(&file, process.to_string()).expect("process.json");
        let done = self
            .command(runtime, &["exec", "--process", &file.display().to_string(), id], None)
            .stdin(Stdio::piped())
            .output()
            .expect("the runtime runs");
        let said: Option<Value> = serde_json::from_slice(&done.stdout).ok();
        if let Some(said) = &said {
            facts.add_probe("exec ", said, host);
        }
        facts.put("exec exit", done.status.code().unwrap_or(-1).to_string());
        if said.is_none() {
            facts.put("exec ran", "no");
            facts.put(
                "said",
                String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default(),
            );
        }
    }

    fn with_terminal(&self, runtime: &Runtime, id: &str, facts: &mut Facts) {
        let path = self.folder.join("console.sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let bundle = self.folder.join("bundle").display().to_string();
        let made = self
            .command(
                runtime,
                &[
                    "create",
                    "--bundle",
                    &bundle,
                    "--console-socket",
                    &path.display().to_string(),
                    id,
                ],
                None,
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.folder.join("stderr")).expect("a file"))
            .status()
            .expect("the runtime runs");
        let errors = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
        if !made.success() {
            return self.ended(facts, false, made.code().unwrap_or(-1), &errors);
        }
        let Some(master) = given_fd(&listener).1 else {
            return facts.put("terminal", "not given");
        };
        let started = self
            .command(runtime, &["start", id], None)
            .status()
            .expect("the runtime runs");
        let mut line = String::new();
        let _ = BufReader::new(File::from(master)).read_line(&mut line);
        if let Ok(said) = serde_json::from_str::<Value>(&line) {
            facts.add_probe("", &said, host);
        }
        facts.put("start exit", started.code().unwrap_or(-1).to_string());
    }

    /// Cgroups and state.
    fn seen_outside(&self, runtime: &Runtime, id: &str, facts: &mut Facts) {
        let mut state = Value::Null;
        // The process may run before the runtime has said so.
        for _ in 0..100 {
            let told = self.command(runtime, &["state", id], None).output();
            state = serde_json::from_slice(&told.expect("the runtime runs").stdout).unwrap_or_default();
            if state["status"] == "running" {
                break;
            }
        }
        for name in ["status", "bundle", "annotations"] {
            facts.put(format!("state {name}"), told(&state, name));
        }
        let own = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap_or_default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let name = match controllers.strip_prefix("name=").unwrap_or(controllers) {
                "" => "unified",
                name => name,
            };
            facts.put(format!("cgroup {name}"), path);
            // A group that is not the container's own is the machine's, and changes as it likes.
            if path.contains(id) {
                values(
                    &Path::new("/sys/fs/cgroup")
                        .join(name)
                        .join(path.trim_start_matches('/')),
                    name,
                    facts,
                );
            }
        }
    }

    fn read_hooks(&self, facts: &mut Facts) {
        for entry in fs::read_dir(self.folder.join("out")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let _ = fs::remove_file(entry.path());
            let (state, env) = text.rsplit_once("}").map_or(("", ""), |(state, env)| (state, env));
            let state: Value = serde_json::from_str(&format!("{state}}}")).unwrap_or_default();
            let name = format!("hook {}", entry.file_name().to_string_lossy());
            for field in ["status", "bundle", "annotations"] {
                facts.put(format!("{name} {field}"), told(&state, field));
            }
            facts.put(
                format!("{name} pid"),
                state["pid"]
                    .as_u64()
                    .map_or("none", |pid| if pid > 0 { "some" } else { "0" }),
            );
            facts.put(format!("{name} env"), env.trim());
        }
    }

    /// What a runtime left, told and taken away.
    fn tidy(&self, facts: &mut Facts) {
        let mut left = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Of the case with a relative path, which other benches do not have.
            let _ = fs::remove_dir(hierarchy.path().join("berth-conformance-rel"));
            remove_groups(&hierarchy.path().join(&self.parent), &mut left);
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&self.parent), &mut left);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if mounts.contains(&self.parent) {
            left.push("a mount".to_owned());
        }
        if !left.is_empty() {
            facts.put("left behind", left.join(", "));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Groups below the parent are left behind; parents above a container are nobody's.
fn remove_groups(group: &Path, left: &mut Vec<String>) {
    if !group.is_dir() {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('c') && name[1..].parse::<u32>().is_ok() {
                left.push("a cgroup".to_owned());
            }
            remove_groups(&entry.path(), left);
        }
    }
    let _ = fs::remove_dir(group);
}

/// What the kernel lets set, and not what it counts.
fn values(group: &Path, hierarchy: &str, facts: &mut Facts) {
    const COUNTED: [&str; 18] = [
        "stat",
        "usage",
        "procs",
        "tasks",
        "event",
        "failcnt",
        "numa",
        "pressure",
        "slabinfo",
        "control",
        "kill",
        "peak",
        "current",
        "sectors",
        "serviced",
        "service_bytes",
        "_time",
        "threads",
    ];
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if COUNTED.iter().any(|counted| name.contains(counted)) {
            continue;
        }
        if let Ok(text) = fs::read_to_string(entry.path()) {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            facts.put(format!("cgroup {hierarchy}/{name}"), lines.join("; "));
        }
    }
}

/// No annotations may be told or left out.
fn told(state: &Value, field: &str) -> String {
    match &state[field] {
        Value::Null if field == "annotations" => "{}".to_owned(),
        value => plain(value),
    }
}

/// The machine's own namespace.
fn host(kind: &str) -> Option<String> {
    fs::read_link(format!("/proc/thread-self/ns/{kind}"))
        .ok()
        .map(|link| link.display().to_string())
}

/// A whole disk, for limits of it.
fn disk() -> (u32, u32) {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = disks.map(|entry| entry.path()).collect();
    names.sort();
    let real = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = fs::read_to_string(path.join("size")).unwrap_or_default();
        !name.starts_with("loop") && !name.starts_with("ram") && size.trim() != "0"
    };
    let text = names
        .iter()
        .find(real)
        .map(|path| fs::read_to_string(path.join("dev")).unwrap_or_default());
    let parse = |text: &str| {
        text.trim()
            .split_once(':')
            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
    };
    text.and_then(|text| parse(&text)).unwrap_or((8, 0))
}

/// Namespaces for others to join, held by a process.
struct Sandbox(Child);

impl Sandbox {
    fn start() -> Sandbox {
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "--ipc",
                "--uts",
                "sh",
                "-c",
                "hostname in-a-pod; echo; exec sleep 1000",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux");
        let mut line = String::new();
        let _ = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
        Sandbox(child)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What came over one connection that is already made: text, and a descriptor.
fn given_fd(listener: &UnixListener) -> (String, Option<OwnedFd>) {
    listener.set_nonblocking(true).expect("a socket");
    let Ok((stream, _)) = listener.accept() else {
        return (String::new(), None);
    };
    let mut buffer = vec![0; 1 << 16];
    match berth_sys::socket::recv_fds(stream.as_fd(), &mut buffer) {
        Ok(got) => (
            String::from_utf8_lossy(&buffer[..got.len]).into_owned(),
            got.fds.into_iter().next(),
        ),
        Err(_) => (String::new(), None),
    }
}

fn told_listener(listener: &UnixListener, facts: &mut Facts) {
    let (text, fd) = given_fd(listener);
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    facts.put("listener fds", plain(&state["fds"]));
    facts.put("listener metadata", plain(&state["metadata"]));
    facts.put("listener status", plain(&state["state"]["status"]));
    facts.put("listener got", if fd.is_some() { "a descriptor" } else { "none" });
}

/// Whether this machine lets the suite run: root, and cgroups as files.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_the_container_itself_is_taken_for_it() {
        let host = "/process_api/c40d97e2414540da321668c642063bf8/10000/case";
        for number in 0..10_000 {
            assert!(!host.contains(&container_id(number)), "{number}");
        }
        let ids: Vec<String> = (0..2000).map(container_id).collect();
        assert!(!ids[12].starts_with(&ids[1]) && ids.iter().all(|id| id.len() == ids[0].len()));
    }
}

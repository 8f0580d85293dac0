//! One real `berthd` with everything of its own, and the promise that nothing of it is left.
use crate::client::{Client, channel, client};
use crate::leftovers::{Leftovers, free_hybrid_controllers, remove_parents};
use crate::proc::{self, Process};
use crate::{Bundle, Runtime, until, v1};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a daemon is started; `Daemon::start` is enough for most tests.
#[derive(Clone)]
pub struct Options {
    pub runtime: Runtime,
    /// More TOML, behind the harness's own.
    pub config: String,
    pub env: Vec<(String, String)>,
    /// More keys of the table runtime.
    pub runtime_keys: String,
    /// Runtimes that are shell scripts, by name.
    pub scripts: Vec<(String, String)>,
    /// In place of the folder that the harness makes.
    pub state: Option<PathBuf>,
    pub root: Option<PathBuf>,
}

impl Options {
    pub fn new(runtime: Runtime) -> Options {
        Options {
            runtime,
            config: String::new(),
            env: Vec::new(),
            scripts: Vec::new(),
            runtime_keys: String::new(),
            state: None,
            root: None,
        }
    }

    pub fn config(mut self, toml: &str) -> Options {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Options {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more runtime of the configuration: a shell script in which `$REAL` is the real runtime and `$DIR` the daemon's folder.
    pub fn script(mut self, name: &str, text: &str) -> Options {
        self.scripts.push((name.to_owned(), text.to_owned()));
        self
    }

    pub async fn start(self) -> Daemon {
        Daemon::new(self).await
    }
}

pub struct Daemon {
    pub dir: PathBuf,
    pub runtime: Runtime,
    /// cgroup path under which every bundle has its own.
    pub cgroup: String,
    options: Options,
    child: Option<Child>,
    /// Processes that earlier daemons had as children: the template among them. They must end with it.
    helpers: Vec<Process>,
    client: Client,
}

/// `berthd`, `berth-shim` and `berth`: from $BERTH_BIN_DIR, else where cargo put them beside this test.
pub fn binary(name: &str) -> PathBuf {
    let dir = match std::env::var_os("BERTH_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_exe()
            .expect("the test binary")
            .ancestors()
            .nth(2)
            .expect("target folder")
            .to_owned(),
    };
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

/// A test process that was killed could not tidy up: whoever comes next does it.
fn sweep_dead_runs() {
    for name in files(&std::env::temp_dir()).filter(|name| name.starts_with("berth-e2e.")) {
        let pid = name.split('.').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let dir = std::env::temp_dir().join(&name);
            Leftovers::sweep(std::slice::from_ref(&dir), &format!("/{name}"));
            // Another test may be at it too.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A folder below the system's temporary one with a short name: socket paths end at 107 bytes.
pub fn temporary(kind: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "berth-{kind}.{}.{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).expect("temporary folder");
    dir
}

impl Daemon {
    pub async fn start(runtime: Runtime) -> Daemon {
        Options::new(runtime).start().await
    }

    async fn new(options: Options) -> Daemon {
        static MACHINE: Once = Once::new();
        MACHINE.call_once(|| {
            free_hybrid_controllers();
            sweep_dead_runs();
        });
        let dir = temporary("e2e");
        let cgroup = format!("/{}", dir.file_name().and_then(|n| n.to_str()).expect("utf-8"));
        let client = client(&dir.join("s.sock"));
        let runtime = options.runtime;
        let mut daemon = Daemon {
            dir,
            runtime,
            cgroup,
            options,
            child: None,
            helpers: Vec::new(),
            client,
        };
        daemon.write_config();
        daemon.spawn();
        daemon.listening().await;
        daemon
    }

    fn write_config(&self) {
        let (name, runc, crun) = (self.runtime.name(), Runtime::Runc, Runtime::Crun);
        let entry = |rt: Runtime| {
            let root = self.runtime_root(rt);
            format!(
                "[runtimes.{}]\npath = {:?}\nroot = {:?}\n",
                rt.name(),
                rt.binary(),
                root
            )
        };
        let keys = &self.options.runtime_keys;
        let mut own = format!(
            "[runtime]\ndefault = \"{name}\"\n{keys}\n{}{}",
            entry(runc),
            entry(crun)
        );
        for (name, text) in &self.options.scripts {
            let path = self.script(name);
            let (dir, real) = (self.dir.display(), self.runtime.binary());
            std::fs::write(
                &path,
                format!("#!/bin/sh\nDIR={dir}\nREAL={}\n{text}\n", real.display()),
            )
            .expect("script");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
            own += &format!(
                "[runtimes.{name}]\npath = {path:?}\nroot = {:?}\n",
                self.runtime_root(self.runtime)
            );
        }
        std::fs::write(self.dir.join("config.toml"), own + &self.options.config).expect("config.toml");
    }

    /// Where a runtime of `Options::script` is.
    pub fn script(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sh"))
    }

    /// Where the runtime keeps its own state.
    pub fn runtime_root(&self, rt: Runtime) -> PathBuf {
        self.dir.join(rt.name())
    }

    pub fn state(&self) -> PathBuf {
        self.options.state.clone().unwrap_or_else(|| self.dir.join("state"))
    }

    pub fn root(&self) -> PathBuf {
        self.options.root.clone().unwrap_or_else(|| self.dir.join("root"))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    /// Folder of a container of the default namespace.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.state().join("c").join(format!("default:{id}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("berthd"));
        command.arg("--address").arg(self.socket());
        command.arg("--state").arg(self.state()).arg("--root").arg(self.root());
        command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .args(["--log-level", "debug,h2=warn,hyper=warn,tonic=warn,tower=warn"]);
        command
            .envs(self.options.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("daemon.log"))
            .expect("daemon.log");
        let child = self
            .command()
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("berthd starts");
        self.child = Some(child);
    }

    async fn listening(&mut self) {
        let socket = self.socket();
        until("the daemon listens", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().expect("wait for berthd")) {
                panic!("berthd ended: {status}\n{}", self.log());
            }
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })
        .await;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// The shared connection; it is made again after a restart.
    pub fn api(&self) -> Client {
        self.client.clone()
    }

    /// A connection of its own.
    pub fn connect(&self) -> Client {
        client(&self.socket())
    }

    pub fn channel(&self) -> tonic::transport::Channel {
        channel(&self.socket())
    }

    fn note_helpers(&mut self) {
        if let Some(child) = &self.child {
            self.helpers
                .extend(proc::children(child.id()).into_iter().filter_map(Process::find));
        }
    }

    /// SIGKILL; gives back when it is gone.
    pub fn kill(&mut self) {
        self.note_helpers();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("wait for berthd");
        }
    }

    /// Waits for a daemon that ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        until("berthd ends", || child.try_wait().expect("wait for berthd")).await
    }

    /// True if it has been killed by SIGKILL, as a fail point does.
    pub fn was_killed(&mut self) -> bool {
        let status = self.child.as_mut().map(|c| c.try_wait().expect("wait for berthd"));
        matches!(status, Some(Some(s)) if s.signal() == Some(Signal::KILL.as_raw()))
    }

    /// SIGTERM; the daemon must drain and end well.
    pub async fn terminate(&mut self) {
        self.note_helpers();
        proc::kill(self.pid(), Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "berthd ended with {status}\n{}", self.log());
    }

    /// Starts it again on the same folders; after `kill`, `terminate` or its own end.
    pub async fn restart(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("wait for berthd");
        }
        self.spawn();
        self.listening().await;
    }

    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.options.env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    }

    pub fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        Bundle::new(&self.dir.join("b"), &self.cgroup, id, args)
    }

    /// A bundle that runs a shell line.
    pub fn sh(&self, id: &str, line: &str) -> Bundle {
        self.bundle(id, &["/bin/sh", "-c", line])
    }

    /// A bundle that lives until it is told to end.
    pub fn sleeper(&self, id: &str) -> Bundle {
        self.sh(id, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    }

    /// Deletes what is there, ends the daemon, and says what is left then.
    fn tidy(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        runtime.block_on(async {
            if self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None))) {
                self.options.env.clear();
                self.restart().await;
            }
            let mut api = self.connect();
            let all = v1::ListRequest {
                namespace: "*".into(),
                ..Default::default()
            };
            let all = api
                .list(all)
                .await
                .map_err(|e| format!("list: {e:?}"))?
                .into_inner()
                .containers;
            for Container { namespace, id, .. } in all {
                let request = v1::DeleteRequest {
                    namespace,
                    id: id.clone(),
                    force: true,
                    ..Default::default()
                };
                let delete = tokio::time::timeout(crate::LIMIT, api.delete(request)).await;
                delete
                    .map_err(|_| format!("delete {id} hangs"))?
                    .map_err(|e| format!("delete {id}: {e:?}"))?;
            }
            self.terminate().await;
            Ok(())
        })
    }

    fn dirs(&self) -> [PathBuf; 3] {
        [self.dir.clone(), self.state(), self.root()]
    }

    /// What of this daemon's and its containers' is there now.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::find(&self.dirs(), &self.cgroup)
    }

    fn inspect(&self) -> Result<(), String> {
        let limit = Duration::from_secs(10);
        until::blocking(limit, || self.leftovers().is_empty().then_some(()))
            .ok_or_else(|| self.leftovers().describe())?;
        until::blocking(limit, || self.helpers.iter().all(|p| !p.alive()).then_some(()))
            .ok_or_else(|| format!("helper processes live on: {:?}", self.helpers))?;
        // The roots of runtimes are by namespace.
        let roots = [Runtime::Runc, Runtime::Crun].map(|rt| self.runtime_root(rt));
        let roots = roots
            .iter()
            .flat_map(|root| files(root).map(|namespace| root.join(namespace)));
        for dir in roots.chain([self.state().join("c")]) {
            let names: Vec<_> = files(&dir).collect();
            if !names.is_empty() {
                return Err(format!("left in {}: {names:?}", dir.display()));
            }
        }
        Ok(())
    }
}

use v1::Container;

fn files(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut verdict = Ok(());
        let panicking = std::thread::panicking();
        if !panicking {
            // A thread of its own, for a runtime may not block inside another.
            let tidy = std::thread::scope(|s| s.spawn(|| self.tidy()).join());
            verdict = tidy
                .unwrap_or_else(|_| Err("tidying up panicked".into()))
                .and_then(|()| self.inspect());
        }
        if panicking || verdict.is_err() {
            let log = self.log();
            let start = log.len().saturating_sub(6000);
            let start = (start..=log.len()).find(|i| log.is_char_boundary(*i)).unwrap_or(0);
            eprintln!("--- {} ---\n{}", self.dir.join("daemon.log").display(), &log[start..]);
        }
        self.kill();
        for helper in self.helpers.iter().filter(|p| p.alive()) {
            proc::kill(helper.pid, Signal::KILL);
        }
        Leftovers::sweep(&self.dirs(), &self.cgroup);
        remove_parents(&self.cgroup);
        if std::env::var_os("BERTH_E2E_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        if let Err(left) = verdict {
            panic!("something is left:\n{left}");
        }
    }
}

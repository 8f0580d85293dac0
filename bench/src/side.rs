//! The two sides, each with its own place, folder and cgroup on one tmpfs; and the lab that holds what they share.

use crate::bundle::{self, Bundle};
use crate::cgroup::{self, Cgroup};
use crate::client::{self, Client};
use crate::containerd::{self, Containerd};
use crate::error::{BenchError, Context, Result, ensure};
use crate::place::Place;
use crate::seccomp;
use crate::until::until;
use crate::{Common, berth};
use rustix::process::{Pid, Resource, Signal};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where ./dev makes them.
const PEERS: &str = "/opt/peers-sid";
/// Berth's own runtime, which no other side can use: theirs is then the fastest that they can.
pub const EMBEDDED: &str = "embedded";

/// The runtime that the other sides use.
fn stock(runtime: &str) -> &str {
    if runtime == EMBEDDED { "crun" } else { runtime }
}

const READY: Duration = Duration::from_secs(30);

/// A tmpfs with the programs, the root filesystem and every side's state. Gone when dropped.
pub struct Lab {
    pub folder: PathBuf,
    peers: Option<PathBuf>,
    made: AtomicUsize,
}

impl Lab {
    pub fn make(common: &Common) -> Result<Lab> {
        let peers = common
            .peers
            .clone()
            .or_else(|| std::env::var_os("PEERS").map(PathBuf::from))
            .or_else(|| Some(PathBuf::from(PEERS)))
            .filter(|peers| peers.join("usr/bin/containerd").exists());
        ensure(!common.measures(Kind::Containerd) || peers.is_some(), || {
            "no containerd to compare with: scripts/peers/install sid, then PEERS=/opt/peers-sid; or --sides berth,bare"
                .to_owned()
        })?;
        let folder = PathBuf::from(format!("/tmp/berth-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).context(folder.display())?;
        let lab = Lab {
            folder,
            peers,
            made: AtomicUsize::new(0),
        };
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=711", "tmpfs"])
            .arg(&lab.folder)
            .status()?;
        ensure(mount.success(), || "mounting a tmpfs failed".to_owned())?;
        let bin = lab.folder.join("bin");
        std::fs::create_dir(&bin)?;
        for program in ["berthd", "berth-shim", "berth-oci", "berth-floor", "berth-bench"] {
            let from = common.bin.join(program);
            std::fs::copy(&from, bin.join(program)).context(from.display())?;
        }
        bundle::make_rootfs(&lab.rootfs())?;
        // A thousand containers with two FIFOs each, and a thousand connections; every child inherits it, on both sides.
        let mut limit = rustix::process::getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        rustix::process::setrlimit(Resource::Nofile, limit)?;
        Ok(lab)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// A side that has run nothing yet.
    pub async fn side(&self, kind: Kind, runtime: &str) -> Result<Side> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let work = self.folder.join(number.to_string());
        std::fs::create_dir(&work)?;
        let cgroup = Cgroup::make(&format!("berth-bench-{}-{number}", std::process::id()))?;
        let place = Place::make(self.peers.as_deref(), &[&self.folder]).await?;
        let embedded = kind == Kind::Berth && runtime == EMBEDDED;
        let runtime_path = if embedded {
            PathBuf::new()
        } else {
            place.find(stock(if runtime.is_empty() { EMBEDDED } else { runtime }))?
        };
        let socket = work.join("daemon.sock");
        match kind {
            Kind::Berth => std::fs::write(work.join("config.toml"), berth::config(runtime, &runtime_path))?,
            Kind::Containerd => std::fs::write(work.join("config.toml"), containerd::config(&work, &socket))?,
            Kind::Bare | Kind::Floor => {}
        }
        let rootfs = self.rootfs();
        let program = self.program(if kind.is_daemon() { "berthd" } else { "berth-bench" });
        Ok(Side {
            kind,
            work,
            socket,
            cgroup,
            place,
            runtime_path,
            seccomp: false,
            as_containerd: false,
            rootfs,
            program,
            daemon: None,
        })
    }

    /// One line of what is installed on either side.
    pub async fn versions(&self, runtime: &str) -> Result<String> {
        let mut side = self.side(Kind::Bare, runtime).await?;
        let mut lines = Vec::new();
        for program in [Some(stock(runtime)), self.peers.as_ref().map(|_| "containerd")]
            .into_iter()
            .flatten()
        {
            let output = side.place.command(&side.cgroup, program).arg("--version").output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
            lines.push(match words[..] {
                [name, "version", version, ..] => format!("{name} {version}"),
                [name, _, version, ..] => format!("{} {version}", name.trim_end_matches(':')),
                _ => text.trim().to_owned(),
            });
        }
        side.stop().await?;
        Ok(lines.join(", "))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.folder).status();
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Berth,
    Containerd,
    /// The runtime alone.
    Bare,
    /// The system calls alone.
    Floor,
}

impl Kind {
    pub fn is_daemon(self) -> bool {
        matches!(self, Kind::Berth | Kind::Containerd)
    }
}

/// A side with what it runs containers with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Contestant {
    pub side: Kind,
    /// `embedded`, `crun`, `runc`; the floor has none.
    pub with: String,
}

impl Contestant {
    /// Who is measured beside each other where Berth runs with `runtime`. Its own runtime has no equal: the others come with both that
    /// they are used with.
    pub fn all(common: &Common, runtime: &str) -> Vec<Contestant> {
        let others: &[&str] = if runtime == EMBEDDED {
            &["crun", "runc"]
        } else {
            &[runtime]
        };
        let mut all = Vec::new();
        for side in [Kind::Berth, Kind::Containerd, Kind::Bare, Kind::Floor] {
            let with: &[&str] = match side {
                Kind::Berth => &[runtime],
                Kind::Containerd | Kind::Bare => others,
                Kind::Floor => &[""],
            };
            if common.measures(side) {
                all.extend(with.iter().map(|with| Contestant {
                    side,
                    with: (*with).to_owned(),
                }));
            }
        }
        all
    }
}

impl std::fmt::Display for Contestant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.side {
            Kind::Berth => format!("Berth, {}", self.with),
            Kind::Containerd => format!("containerd, {}", self.with),
            Kind::Bare => format!("{} alone", self.with),
            Kind::Floor => "system calls alone".to_owned(),
        };
        f.pad(&text)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Kind::Berth => "berth",
            Kind::Containerd => "containerd",
            Kind::Bare => "runtime alone",
            Kind::Floor => "system calls alone",
        })
    }
}

pub struct Side {
    pub kind: Kind,
    pub work: PathBuf,
    pub socket: PathBuf,
    pub cgroup: Cgroup,
    pub place: Place,
    pub runtime_path: PathBuf,
    /// Whether its bundles have Docker's seccomp profile.
    pub seccomp: bool,
    /// Whether Berth, too, is spoken to by containerd's API.
    pub as_containerd: bool,
    rootfs: PathBuf,
    program: PathBuf,
    daemon: Option<Child>,
}

/// When the socket of a daemon opened, and when it answered, from its start.
pub struct Ready {
    pub client: Client,
    pub socket: Duration,
    pub begin: Instant,
}

impl Side {
    pub fn bundles(&self) -> PathBuf {
        self.work.join("bundles")
    }

    pub fn bundle(&self, id: &str, args: &[&str]) -> Result<Bundle> {
        let profile = self.seccomp.then(seccomp::docker);
        bundle::write(&self.bundles(), &self.rootfs, &self.cgroup.parent(), id, args, profile)
    }

    /// Starts the daemon, or starts it again, and waits until it answers.
    pub async fn start(&mut self) -> Result<Ready> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.work.join("daemon.log"))?;
        let mut command = match self.kind {
            Kind::Berth => {
                let mut command = self.place.command(&self.cgroup, &self.program);
                command.args(berth::arguments(&self.work, &self.socket));
                command
            }
            Kind::Containerd => {
                let mut command = self.place.command(&self.cgroup, "containerd");
                command
                    .arg("--config")
                    .arg(self.work.join("config.toml"))
                    .args(["--log-level", "warn"]);
                command
            }
            Kind::Bare | Kind::Floor => return Err(BenchError::new("a bare runtime has no daemon")),
        };
        let begin = Instant::now();
        let daemon = self
            .daemon
            .insert(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        let socket = &self.socket;
        let mut ended = None;
        let channel = until("the daemon's socket", READY, async || {
            ended = daemon.try_wait().ok().flatten();
            if ended.is_some() {
                Some(None)
            } else {
                client::connect(socket).await.ok().map(Some)
            }
        })
        .await;
        let opened = begin.elapsed();
        let Ok(Some(channel)) = channel else {
            let log = std::fs::read_to_string(self.work.join("daemon.log")).unwrap_or_default();
            let tail = log
                .lines()
                .rev()
                .take(10)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("\n");
            return Err(BenchError::new(format!(
                "{} did not start ({ended:?}):\n{tail}",
                self.kind
            )));
        };
        let client = match self.kind {
            Kind::Berth if !self.as_containerd => Client::Berth(client::berth(channel)),
            Kind::Berth | Kind::Containerd | Kind::Bare | Kind::Floor => {
                Client::Containerd(Containerd::new(channel, &self.runtime_path))
            }
        };
        client.running().await.context("the first call")?;
        Ok(Ready {
            client,
            socket: opened,
            begin,
        })
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// The shims and whatever else looks after containers, the daemon left out.
    pub fn supervisors(&self) -> Vec<u32> {
        self.place.processes(&[self.daemon_pid()])
    }

    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Ends the daemon in good order and checks that nothing of the side is left.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            if let Some(pid) = Pid::from_raw(daemon.id().cast_signed()) {
                rustix::process::kill_process(pid, Signal::TERM)?;
            }
            until("the daemon's end", READY, async || daemon.try_wait().ok().flatten()).await?;
        }
        let place = &self.place;
        let left = until("the end of its processes", Duration::from_secs(5), async || {
            place.processes(&[]).is_empty().then_some(())
        });
        left.await.context(format_args!(
            "{} left processes {:?}",
            self.kind,
            self.place.processes(&[])
        ))?;
        let groups = self.cgroup.leftovers();
        ensure(groups.is_empty(), || format!("{} left cgroups: {groups:?}", self.kind))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.kill();
        // Only after a failure is there anybody left: shims first, so that none reports what ends next.
        for pid in self.place.processes(&[]) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        for group in self.cgroup.leftovers() {
            for pid in cgroup::members(&group)
                .into_iter()
                .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
            {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

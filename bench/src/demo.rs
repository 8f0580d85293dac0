//! `./dev demo`: what Berth promises, shown on real containers with each runtime, and checked. Ends with an error at the first
//! promise that is not kept.

use crate::berth;
use crate::bundle::{self, Bundle};
use crate::cgroup::{self, Cgroup};
use crate::client::{self, Berth};
use crate::error::{BenchError, Context, Result, ensure};
use crate::measure::burst;
use crate::until::until;
use berth_wire::v1;
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

const READY: Duration = Duration::from_secs(30);
/// Prints a numbered line every 2 ms or so, until SIGTERM.
const WRITER: &str = "trap 'exit 0' TERM; i=0; while :; do echo line $i; i=$((i+1)); usleep 2000; done";
/// Says that it listens, then ends with 42 at SIGTERM.
const LEAVER: &str = "trap 'exit 42' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
const GREETING: &str = "hello from a container";

#[derive(clap::Args)]
pub struct Options {
    /// Folder with berthd and berth-shim
    #[arg(long)]
    bin: PathBuf,
    /// Runtimes to show, one after the other
    #[arg(long = "runtime", default_values = ["embedded", "runc", "crun"])]
    runtimes: Vec<String>,
    #[arg(long, default_value_t = 100)]
    containers: usize,
    #[arg(long, default_value_t = 10)]
    in_flight: usize,
}

pub async fn run(options: Options) -> Result<()> {
    for runtime in &options.runtimes {
        println!("\n== {runtime}");
        show(&options, runtime).await.context(runtime)?;
    }
    println!("\nAll promises kept.");
    Ok(())
}

/// One daemon with everything in a folder of its own.
struct Stage {
    work: PathBuf,
    program: PathBuf,
    cgroup: Cgroup,
    daemon: Option<Child>,
}

async fn show(options: &Options, runtime: &str) -> Result<()> {
    let mut stage = Stage::make(options, runtime)?;
    let mut client = stage.start().await?;
    let version = client.version(v1::VersionRequest {}).await?.into_inner();
    let uses = version.runtimes.iter().find(|info| info.name == runtime);
    say(&format!(
        "berthd {} with {} {}",
        version.version,
        runtime,
        uses.map_or("", |info| info.version.as_str())
    ));

    many(&stage, &client, options).await?;
    logs(&mut client).await?;
    exec(&mut client).await?;
    let lines = survive(&mut stage, &mut client).await?;
    complete(&mut client, lines).await?;
    clean(&mut stage, &mut client, options).await
}

/// 100 containers, 10 requests at a time. The first of them greets.
async fn many(stage: &Stage, client: &Berth, options: &Options) -> Result<()> {
    let script = format!("echo {GREETING}; while :; do sleep 1000; done");
    let bundles = (0..options.containers).map(|index| stage.bundle(&format!("c{index}"), &["sh", "-c", &script]));
    let bundles = Arc::new(bundles.collect::<Result<Vec<_>>>()?);
    let started = burst(options.containers, options.in_flight, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { start(&mut client.clone(), &bundles[index]).await.map(drop) }
    });
    let started = started.await?;
    say(&format!(
        "{} containers started, {} in flight: {:.0} a second, p50 {:.0} ms, p99 {:.0} ms",
        options.containers,
        options.in_flight,
        started.rate(),
        started.quantile(0.5),
        started.quantile(0.99)
    ));
    Ok(())
}

async fn logs(client: &mut Berth) -> Result<()> {
    let text = until("the greeting in the log", READY, async || {
        log(client, "c0").await.ok().filter(|text| !text.is_empty())
    });
    let text = text.await?;
    ensure(text == format!("{GREETING}\n"), || format!("the log says {text:?}"))?;
    say(&format!("logs of c0: {}", text.trim()));
    Ok(())
}

async fn exec(client: &mut Berth) -> Result<()> {
    let args = ["sh", "-c", "exit 7"].map(str::to_owned).to_vec();
    let request = v1::ExecRequest {
        id: "c1".into(),
        args,
        stdio: Some(client::no_stdio()),
        ..Default::default()
    };
    let exec_id = client.exec(request).await.context("exec")?.into_inner().exec_id;
    let wait = v1::WaitRequest {
        id: "c1".into(),
        exec_id,
        ..Default::default()
    };
    let exit = client
        .wait(wait)
        .await
        .context("wait")?
        .into_inner()
        .exit
        .unwrap_or_default();
    ensure(exit.code == 7, || format!("the exec ended with {exit:?} in place of 7"))?;
    say("exec `sh -c 'exit 7'` in c1: exit code 7");
    Ok(())
}

/// Kills the daemon under them, lets one end meanwhile, and starts it again. Gives how many lines the writer had printed by then.
async fn survive(stage: &mut Stage, client: &mut Berth) -> Result<usize> {
    start(client, &stage.bundle("writer", &["sh", "-c", WRITER])?).await?;
    let leaver = start(client, &stage.bundle("leaver", &["sh", "-c", LEAVER])?).await?;
    until("the leaver's trap", READY, async || {
        log(client, "leaver").await.ok().filter(|text| !text.is_empty())
    })
    .await?;
    until("the writer's first lines", READY, async || {
        log(client, "writer").await.ok().filter(|text| text.len() > 1000)
    })
    .await?;
    let before = pids(client).await?;
    let lines_before = log(client, "writer").await?.lines().count();

    stage.kill()?;
    let killed = Instant::now();
    let dead = before.values().filter(|pid| !alive(**pid)).count();
    ensure(dead == 0, || format!("{dead} containers died with the daemon"))?;
    say(&format!(
        "berthd killed with SIGKILL: all {} containers live on",
        before.len()
    ));
    let pid = Pid::from_raw(leaver.cast_signed()).ok_or_else(|| BenchError::new("the leaver has no pid"))?;
    rustix::process::kill_process(pid, Signal::TERM)?;
    until("the leaver's end", READY, async || (!alive(leaver)).then_some(())).await?;
    // Time for the writer to print while nobody is there: what is shown is that those lines are kept.
    tokio::time::sleep(Duration::from_secs(1)).await;

    *client = stage.start().await?;
    let down = killed.elapsed();
    let after = until("all containers back", READY, async || {
        pids(client).await.ok().filter(|after| after.len() + 1 == before.len())
    });
    let after = after.await?;
    let changed = after.iter().filter(|(id, pid)| before.get(*id) != Some(pid)).count();
    ensure(changed == 0 && !after.contains_key("leaver"), || {
        format!("{changed} containers have another pid")
    })?;
    say(&format!(
        "berthd started again after {:.1} s: {} containers run with the same pids",
        down.as_secs_f64(),
        after.len()
    ));

    let wait = v1::WaitRequest {
        id: "leaver".into(),
        ..Default::default()
    };
    let exit = client
        .wait(wait)
        .await
        .context("wait")?
        .into_inner()
        .exit
        .unwrap_or_default();
    ensure(exit.code == 42, || {
        format!("the one that ended meanwhile is told with {exit:?} in place of 42")
    })?;
    say("one ended while no daemon ran: told with its true code, 42");
    Ok(lines_before)
}

/// Every line that the writer printed is there, once, in order; some are from the time without a daemon.
async fn complete(client: &mut Berth, lines_before: usize) -> Result<()> {
    let stop = v1::StopRequest {
        id: "writer".into(),
        ..Default::default()
    };
    client.stop(stop).await.context("stop")?;
    let text = log(client, "writer").await?;
    let wrong = text
        .lines()
        .enumerate()
        .find(|(number, line)| *line != format!("line {number}"));
    ensure(wrong.is_none(), || format!("the writer's log has {wrong:?}"))?;
    let lines = text.lines().count();
    // Even on a slow machine the second without a daemon is good for some.
    ensure(lines > lines_before + 20, || {
        format!("{lines} lines, {lines_before} of them before the kill")
    })?;
    say(&format!(
        "the writer's log: lines 0 to {} without a gap ({lines_before} of them before the kill)",
        lines - 1
    ));
    Ok(())
}

async fn clean(stage: &mut Stage, client: &mut Berth, options: &Options) -> Result<()> {
    let answer = client.list(v1::ListRequest::default()).await?.into_inner();
    let ids = Arc::new(
        answer
            .containers
            .into_iter()
            .map(|container| container.id)
            .collect::<Vec<_>>(),
    );
    let removed = burst(ids.len(), options.in_flight, |index| {
        let (mut client, id) = (client.clone(), ids[index].clone());
        async move {
            let request = v1::DeleteRequest {
                id,
                force: true,
                ..Default::default()
            };
            let answer = client.delete(request).await?.into_inner();
            ensure(!answer.pending, || {
                format!("something could not be removed: {}", answer.message)
            })
        }
    });
    let removed = removed.await?;
    stage.stop().await?;
    let state = entries(&stage.work.join("state/c"));
    let logs = entries(&stage.work.join("root/logs"));
    let cgroups = stage.cgroup.leftovers();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let work = stage.work.to_string_lossy();
    let mounts: Vec<&str> = mounts.lines().filter(|line| line.contains(&*work)).collect();
    let processes = processes_of(&stage.work);
    ensure(state.is_empty() && logs.is_empty(), || {
        format!("left behind: {state:?} {logs:?}")
    })?;
    ensure(cgroups.is_empty() && mounts.is_empty(), || {
        format!("left behind: {cgroups:?} {mounts:?}")
    })?;
    ensure(processes.is_empty(), || format!("left behind: processes {processes:?}"))?;
    say(&format!(
        "{} containers removed in {:.1} s; left: 0 entries in state/c, 0 logs, 0 cgroups, 0 mounts, 0 processes",
        ids.len(),
        removed.wall_s
    ));
    Ok(())
}

impl Stage {
    fn make(options: &Options, runtime: &str) -> Result<Stage> {
        let name = format!("berth-demo-{}-{runtime}", std::process::id());
        let work = std::env::temp_dir().join(&name);
        std::fs::create_dir(&work).context(work.display())?;
        let cgroup = Cgroup::make(&name)?;
        let stage = Stage {
            work,
            program: options.bin.join("berthd"),
            cgroup,
            daemon: None,
        };
        bundle::make_rootfs(&stage.work.join("rootfs"))?;
        // Berth's own needs no program.
        let found = if runtime == "embedded" {
            PathBuf::new()
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|folder| folder.join(runtime))
                .find(|path| path.exists())
                .ok_or_else(|| BenchError::new(format!("{runtime} is not installed")))?
        };
        std::fs::write(stage.work.join("config.toml"), berth::config(runtime, &found))?;
        Ok(stage)
    }

    fn bundle(&self, id: &str, args: &[&str]) -> Result<Bundle> {
        bundle::write(
            &self.work.join("bundles"),
            &self.work.join("rootfs"),
            &self.cgroup.parent(),
            id,
            args,
            None,
        )
    }

    async fn start(&mut self) -> Result<Berth> {
        let socket = self.work.join("berthd.sock");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.work.join("daemon.log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(berth::arguments(&self.work, &socket))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let daemon = self.daemon.insert(command.spawn().context(self.program.display())?);
        let channel = until("berthd's socket", READY, async || {
            let ended = daemon.try_wait().ok().flatten().is_some();
            if ended {
                Some(None)
            } else {
                client::connect(&socket).await.ok().map(Some)
            }
        });
        match channel.await? {
            Some(channel) => Ok(client::berth(channel)),
            None => Err(BenchError::new(format!("berthd ended:\n{}", self.log_tail()))),
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.work.join("daemon.log")).unwrap_or_default();
        log.lines()
            .rev()
            .take(10)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        if let Some(pid) = Pid::from_raw(daemon.id().cast_signed()) {
            rustix::process::kill_process(pid, Signal::TERM)?;
        }
        until("berthd's end", READY, async || daemon.try_wait().ok().flatten()).await?;
        let work = &self.work;
        until("the end of its shims", READY, async || {
            processes_of(work).is_empty().then_some(())
        })
        .await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let killed = self.kill();
        let (shims, groups) = (processes_of(&self.work), self.cgroup.leftovers());
        if killed.is_ok() && shims.is_empty() && groups.is_empty() {
            let _ = std::fs::remove_dir_all(&self.work);
            return;
        }
        // A promise was not kept. Nothing goes on running for it; the folder is left for a look.
        eprintln!("berth-bench: see {}\n{}", self.work.display(), self.log_tail());
        for pid in shims
            .into_iter()
            .chain(groups.iter().flat_map(|group| cgroup::members(group)))
        {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

async fn start(client: &mut Berth, bundle: &Bundle) -> Result<u32> {
    let container = v1::ContainerSpec {
        id: bundle.id.clone(),
        bundle: bundle.path.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let request = v1::RunRequest {
        container: Some(container),
        ..Default::default()
    };
    Ok(client
        .run(request)
        .await
        .context(format_args!("starting {}", bundle.id))?
        .into_inner()
        .pid)
}

/// The whole log of a container as text.
async fn log(client: &mut Berth, id: &str) -> Result<String> {
    let request = v1::LogsRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let mut stream = client.logs(request).await.context("logs")?.into_inner();
    let mut text = String::new();
    while let Some(answer) = stream.next().await {
        for entry in answer.context("logs")?.entries {
            text.push_str(&String::from_utf8_lossy(&entry.data));
        }
    }
    Ok(text)
}

/// The running containers' pids by id.
async fn pids(client: &mut Berth) -> Result<BTreeMap<String, u32>> {
    let containers = client
        .list(v1::ListRequest::default())
        .await?
        .into_inner()
        .containers
        .into_iter();
    let running = containers.filter(|container| container.state() == v1::ContainerState::Running);
    Ok(running.map(|container| (container.id, container.pid)).collect())
}

/// A process that was reaped or is only a zombie does not live.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Processes that have a file of the folder open: the daemon, its shims, writers.
fn processes_of(work: &Path) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|file| file.starts_with(work))
    };
    pids.filter(|pid| *pid != std::process::id()).filter(holds).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn say(line: &str) {
    println!("   {line}");
}

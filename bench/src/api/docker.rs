//! A stock Docker Engine over each engine: what a user waits for `docker run -d` and `docker exec`, and how much of it is spent below
//! dockerd: in calls to the engine by the clock, and in the engine, its shims and runtimes by the CPU.

use super::proxy::Proxy;
use super::{Options, engines};
use crate::Common;
use crate::cgroup::Cgroup;
use crate::error::{BenchError, Context, Result, ensure};
use crate::measure::{Burst, burst, median};
use crate::side::{Contestant, Kind, Lab, Side};
use crate::storm::progress;
use crate::table::{Table, number};
use crate::until::until;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const READY: Duration = Duration::from_secs(60);

#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    who: Contestant,
    what: String,
    count: usize,
    in_flight: usize,
    /// From the first command's start to the last one's end.
    total_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of one command: calls to the engine, and what they took together.
    calls_each: f64,
    below_ms_each: f64,
    /// Of what the commands took together, by the clock.
    below_share: f64,
    below_cpu_ms_each: f64,
    dockerd_cpu_ms_each: f64,
}

/// dockerd with all that is its own. Gone when dropped.
struct Docker {
    socket: PathBuf,
    group: Cgroup,
    proxy: Proxy,
    daemon: Child,
}

impl Docker {
    async fn start(lab: &Lab, side: &Side) -> Result<Docker> {
        let below = side.work.join("below.sock");
        let proxy = Proxy::start(&below, side.socket.clone())?;
        let group = Cgroup::make(&format!("{}-dockerd", side.cgroup.name()))?;
        let socket = side.work.join("d.sock");
        let log = std::fs::File::create(side.work.join("dockerd.log"))?;
        let daemon = side
            .place
            .command(&group, "dockerd")
            .arg("--containerd")
            .arg(&below)
            .arg("--data-root")
            .arg(side.work.join("d"))
            .arg("--exec-root")
            .arg(side.work.join("e"))
            .arg("--pidfile")
            .arg(side.work.join("d.pid"))
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--cgroup-parent={}", side.cgroup.parent()))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--storage-driver=vfs", "--log-level=warn"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let docker = Docker {
            socket,
            group,
            proxy,
            daemon,
        };
        let ready = until("dockerd", READY, async || docker.command(side, &["version"]).await.ok());
        ready.await.context(side.work.join("dockerd.log").display())?;
        let archive = lab.folder.join("image.tar");
        if !archive.exists() {
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(lab.rootfs()).arg("-cf").arg(&archive).arg(".");
            ensure(tar.status()?.success(), || "tar failed".to_owned())?;
        }
        docker
            .command(side, &["import", &archive.to_string_lossy(), "box"])
            .await?;
        Ok(docker)
    }

    /// A command line of docker's, to its end; gives what it printed.
    async fn command(&self, side: &Side, args: &[&str]) -> Result<String> {
        run(self.prepared(side, args), args.first().unwrap_or(&"")).await
    }

    fn prepared(&self, side: &Side, args: &[&str]) -> Command {
        let mut command = side.place.command(&self.group, "docker");
        command
            .arg(format!("--host=unix://{}", self.socket.display()))
            .args(args);
        command
    }

    async fn stop(mut self, side: &Side) -> Result<()> {
        let ids = self.command(side, &["ps", "-aq"]).await?;
        let mut args = vec!["rm", "-f"];
        args.extend(ids.split_whitespace());
        self.command(side, &args).await?;
        if let Some(pid) = Pid::from_raw(self.daemon.id().cast_signed()) {
            rustix::process::kill_process(pid, Signal::TERM)?;
        }
        let daemon = &mut self.daemon;
        until("dockerd's end", READY, async || daemon.try_wait().ok().flatten()).await?;
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

async fn run(command: Command, what: &str) -> Result<String> {
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure(output.status.success(), || {
        format!("docker {what}: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub async fn measure(lab: &Lab, common: &Common, options: &Options) -> Result<Vec<Row>> {
    let all: Vec<Contestant> = engines(common).filter(|who| who.with != "crun").collect();
    let mut rounds: Vec<Row> = Vec::new();
    for round in 0..options.rounds {
        for turn in 0..all.len() {
            // Nobody is always first.
            let who = &all[(turn + round) % all.len()];
            progress(&format!("docker over {who}, round {}", round + 1));
            let mut side = lab.side(who.side, &who.with).await?;
            rounds.extend(one(lab, &mut side, options, who).await.context(who)?);
        }
    }
    progress("");
    let whats = ["run -d", "exec"];
    let rows = all.iter().flat_map(|who| whats.map(|what| (who, what)));
    rows.map(|(who, what)| {
        let of: Vec<&Row> = rounds
            .iter()
            .filter(|row| row.who == *who && row.what == what)
            .collect();
        middle(&of).ok_or_else(|| BenchError::new("no round"))
    })
    .collect()
}

/// The middle of every figure.
fn middle(rows: &[&Row]) -> Option<Row> {
    let first = (*rows.first()?).clone();
    let of = |figure: fn(&Row) -> f64| median(rows.iter().map(|row| figure(row)).collect());
    Some(Row {
        total_s: of(|row| row.total_s),
        p50_ms: of(|row| row.p50_ms),
        p99_ms: of(|row| row.p99_ms),
        calls_each: of(|row| row.calls_each),
        below_ms_each: of(|row| row.below_ms_each),
        below_share: of(|row| row.below_share),
        below_cpu_ms_each: of(|row| row.below_cpu_ms_each),
        dockerd_cpu_ms_each: of(|row| row.dockerd_cpu_ms_each),
        ..first
    })
}

async fn one(lab: &Lab, side: &mut Side, options: &Options, who: &Contestant) -> Result<Vec<Row>> {
    side.start().await?;
    let docker = Arc::new(Docker::start(lab, side).await?);
    // What is loaded once is no start's.
    docker
        .command(side, &["run", "--rm", "--network", "none", "box", "true"])
        .await?;
    let mut rows = Vec::new();
    for (what, count) in [("run -d", options.runs), ("exec", options.execs)] {
        docker.proxy.take();
        let (below, own) = (side.cgroup.cpu()?, docker.group.cpu()?);
        let done = burst(count, options.in_flight, |index| {
            let name = format!("c{}", index % options.runs.max(1));
            let args: &[&str] = match what {
                "exec" => &["exec", &name, "true"],
                _ => &[
                    "run",
                    "-d",
                    "--name",
                    &name,
                    "--network",
                    "none",
                    "box",
                    "sleep",
                    "1000000",
                ],
            };
            let command = docker.prepared(side, args);
            async move { run(command, what).await.map(drop) }
        });
        let done: Burst = done.await?;
        let spent = docker.proxy.take();
        let (below, own) = (side.cgroup.cpu()? - below, docker.group.cpu()? - own);
        let all_ms: f64 = done.each_ms.iter().sum();
        let each = |value: f64| value / count as f64;
        rows.push(Row {
            who: who.clone(),
            what: what.to_owned(),
            count,
            in_flight: options.in_flight,
            total_s: done.wall_s,
            p50_ms: done.quantile(0.5),
            p99_ms: done.quantile(0.99),
            calls_each: each(spent.calls as f64),
            below_ms_each: each(spent.ms),
            below_share: spent.ms / all_ms,
            below_cpu_ms_each: each(below.as_secs_f64() * 1000.0),
            dockerd_cpu_ms_each: each(own.as_secs_f64() * 1000.0),
        });
    }
    let docker = Arc::into_inner(docker).ok_or_else(|| BenchError::new("a command still runs"))?;
    docker.stop(side).await?;
    side.stop().await?;
    Ok(rows)
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "docker",
        "over",
        "total s",
        "p50 ms",
        "p99 ms",
        "calls each",
        "below dockerd, ms each",
        "share %",
        "CPU below, ms each",
        "CPU docker, ms each",
    ]);
    for row in rows {
        table.row([
            format!("{} × {}, {} in flight", row.what, row.count, row.in_flight),
            row.who.to_string(),
            number(row.total_s),
            number(row.p50_ms),
            number(row.p99_ms),
            number(row.calls_each),
            number(row.below_ms_each),
            number(100.0 * row.below_share),
            number(row.below_cpu_ms_each),
            number(row.dockerd_cpu_ms_each),
        ]);
    }
    let mut text = table.text();
    for ours in rows.iter().filter(|row| row.who.side == Kind::Berth) {
        let others = rows
            .iter()
            .filter(|row| row.who.side != Kind::Berth && row.what == ours.what);
        for other in others {
            text += &format!(
                "\n- docker {}: 1/{} of the total of {}; below dockerd 1/{} by the clock, 1/{} by the CPU.",
                ours.what,
                number(other.total_s / ours.total_s),
                other.who,
                number(other.below_ms_each / ours.below_ms_each),
                number(other.below_cpu_ms_each / ours.below_cpu_ms_each)
            );
        }
    }
    text + "\n"
}

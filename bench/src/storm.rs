//! `bench storm`: how fast containers start and what looking after them costs.
//!
//! Who is measured beside each other is in `Contestant::all`: with Berth's own runtime they are Berth, containerd with crun and with
//! runc, both runtimes alone, and the bare system calls, all in one run. Rounds are interleaved: in each, every side starts all containers from nothing, is looked at, and removes them. Latencies of all
//! rounds are pooled, other figures are the median round's.

mod text;

use crate::Common;
use crate::error::{BenchError, Result};
use crate::floor;
use crate::measure::{Burst, burst, median, memory_kib, pss_kib};
use crate::same;
use crate::side::{Contestant, EMBEDDED, Kind, Lab, Side};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;

const SLEEPER: &[&str] = &["sleep", "1000000"];

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many containers
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    counts: Vec<usize>,
    /// How many requests at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    in_flight: Vec<usize>,
    /// Rounds for up to 100 containers; more containers get one round
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Without Docker's seccomp profile, with it, or both; with it only with 1 and 10 requests at a time
    #[arg(long, value_delimiter = ',', default_values_t = [false, true])]
    seccomp: Vec<bool>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            counts: vec![100, 1000],
            in_flight: vec![1, 10, 100, 1000],
            seccomp: vec![false, true],
            rounds: 3,
        }
    }
}

/// One line of the table: what is asked of every side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub count: usize,
    pub in_flight: usize,
    pub fifo: bool,
    pub seccomp: bool,
}

impl Load {
    /// How many are started one burst after the other; with more than one the last is on top of all others. The first is what a machine
    /// without containers does, the last what one full of them does.
    fn phases(&self) -> Vec<usize> {
        const PART: usize = 200;
        if self.count >= 5 * PART && self.in_flight == 10 && !self.fifo {
            vec![PART, self.count - PART, PART]
        } else {
            vec![self.count]
        }
    }

    /// Whether those without a daemon take part.
    fn is_for_all(&self) -> bool {
        self.in_flight <= 10 && !self.fifo
    }
}

/// What one side did in one round.
struct Round {
    /// As in [`Load::phases`].
    starts: Vec<Burst>,
    cpu_s: f64,
    remove_s: f64,
    memory: Vec<Memory>,
    stages: Vec<(String, f64)>,
}

impl Round {
    fn start(&self) -> Burst {
        Burst::together(&self.starts[..self.starts.len().min(2)])
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    pub containers: usize,
    /// PSS of every supervising process but the daemon, a container, in KiB.
    pub pss_kib_each: f64,
    pub daemon_pss_kib: f64,
    pub daemon_rss_kib: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub runtime: String,
    #[serde(flatten)]
    pub load: Load,
    #[serde(flatten)]
    pub who: Contestant,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// At each percent.
    pub percentiles_ms: Vec<f64>,
    pub cpu_s: f64,
    pub cpu_ms_each: f64,
    pub remove_s: f64,
    /// After each phase.
    pub memory: Vec<Memory>,
    /// Rates of 200 starts: with nothing running, and with all of them running.
    pub idle_per_s: Option<f64>,
    pub loaded_per_s: Option<f64>,
    pub rounds_per_s: Vec<f64>,
    /// Mean milliseconds of each stage of a start.
    pub stages_ms: Vec<(String, f64)>,
}

pub use text::text;

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let mut rows = Vec::new();
    for runtime in &common.runtimes {
        let mut versions = vec![lab.versions(runtime).await?];
        if runtime == EMBEDDED {
            versions.push(lab.versions("runc").await?);
        }
        println!("\n### Starts with {runtime}\n\n{}\n", versions.join(", "));
        check_same(&lab, common, runtime).await?;
        let from = rows.len();
        for load in loads(options) {
            rows.extend(measure(&lab, common, runtime, load, options.rounds).await?);
        }
        println!("{}", text(&rows[from..]));
    }
    common.keep("storm", &rows)
}

fn loads(options: &Options) -> Vec<Load> {
    let mut loads = Vec::new();
    let plain = options.seccomp.contains(&false);
    for &count in &options.counts {
        for &in_flight in &options.in_flight {
            for &seccomp in &options.seccomp {
                // One at a time a thousand say no more than a hundred.
                if (seccomp && in_flight > 10) || (in_flight == 1 && count > 100) {
                    continue;
                }
                loads.push(Load {
                    count,
                    in_flight,
                    fifo: false,
                    seccomp,
                });
            }
        }
    }
    // What Docker asks for: standard output and error into FIFOs that the client reads. Once, for its memory.
    if let (Some(&count), true) = (options.counts.first(), plain && options.in_flight.contains(&10)) {
        loads.push(Load {
            count,
            in_flight: 10,
            fifo: true,
            seccomp: false,
        });
    }
    loads
}

/// One container on each side; says what containerd was told, and fails if they are not alike.
async fn check_same(lab: &Lab, common: &Common, runtime: &str) -> Result<()> {
    let mut prints = Vec::new();
    for who in Contestant::all(common, runtime)
        .into_iter()
        .filter(|who| who.side.is_daemon())
    {
        let mut side = lab.side(who.side, &who.with).await?;
        let client = side.start().await?.client;
        let pid = client.start(&side.bundle("same", SLEEPER)?).await?;
        prints.push((who.clone(), same::fingerprint(pid)?));
        client.remove("same").await?;
        if who.side == Kind::Containerd && prints.len() <= 2 {
            let config = std::fs::read_to_string(side.work.join("config.toml"))?;
            println!(
                "containerd's configuration (all folders on the same tmpfs as Berth's):\n\n```toml\n{}\n```\n",
                config.trim()
            );
        }
        side.stop().await?;
    }
    let Some(((_, ours), others)) = prints.split_first() else {
        return Ok(());
    };
    for (who, theirs) in others {
        match same::agree(ours, theirs) {
            Ok(()) => println!(
                "Berth's container and that of {who} agree in {} facts: capabilities, seccomp, mounts, masks, cgroups, oom_score_adj\n",
                ours.len()
            ),
            // Two runtimes may mask a file or mount cgroups in two ways; it is said, and the reader judges.
            Err(error) if runtime == EMBEDDED => println!("{who}: {error}\n"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn measure(lab: &Lab, common: &Common, runtime: &str, load: Load, rounds: usize) -> Result<Vec<Row>> {
    let all = Contestant::all(common, runtime).into_iter();
    let all: Vec<Contestant> = all.filter(|who| who.side.is_daemon() || load.is_for_all()).collect();
    let rounds = if load.count > 100 { 1 } else { rounds };
    let mut done: Vec<Vec<Round>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..all.len() {
            // Nobody is always first.
            let index = (turn + round) % all.len();
            let who = &all[index];
            progress(&format!("{load:?}, round {}: {who}", round + 1));
            let mut side = lab.side(who.side, &who.with).await?;
            side.seccomp = load.seccomp;
            let result = if who.side.is_daemon() {
                daemon(&mut side, load).await
            } else {
                bare(lab, &mut side, load).await
            };
            done[index].push(result.map_err(|error| {
                let log = std::fs::read_to_string(side.work.join("daemon.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                BenchError::new(format!(
                    "{who} at {load:?}: {error}\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                ))
            })?);
        }
    }
    progress("");
    Ok(all
        .into_iter()
        .zip(done)
        .map(|(who, rounds)| row(runtime, load, who, &rounds))
        .collect())
}

async fn daemon(side: &mut Side, load: Load) -> Result<Round> {
    let client = side.start().await?.client;
    let phases = load.phases();
    let mut bundles = Vec::new();
    for index in 0..phases.iter().sum() {
        let bundle = side.bundle(&index.to_string(), SLEEPER)?;
        bundles.push(if load.fifo { bundle.with_fifos()? } else { bundle });
    }
    let bundles = Arc::new(bundles);
    let (mut starts, mut memory, mut cpu_s, mut first) = (Vec::new(), Vec::new(), 0.0, 0);
    for (phase, &count) in phases.iter().enumerate() {
        let cpu = side.cgroup.cpu()?;
        let started = burst(count, load.in_flight, |index| {
            let (client, bundles, index) = (client.clone(), bundles.clone(), first + index);
            async move { client.start(&bundles[index]).await.map(drop) }
        });
        starts.push(started.await?);
        first += count;
        if phase < 2 {
            cpu_s += (side.cgroup.cpu()? - cpu).as_secs_f64();
            memory.push(memory_of(side, first)?);
        }
    }
    let stages = client.stages().await?;
    let removed = burst(bundles.len(), load.in_flight, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.remove(&bundles[index].id).await }
    });
    let remove_s = removed.await?.wall_s;
    side.stop().await?;
    Ok(Round {
        starts,
        cpu_s,
        remove_s,
        memory,
        stages,
    })
}

pub fn memory_of(side: &Side, containers: usize) -> Result<Memory> {
    let daemon = side.daemon_pid();
    Ok(Memory {
        containers,
        pss_kib_each: pss_kib(&side.supervisors()) as f64 / containers.max(1) as f64,
        daemon_pss_kib: memory_kib(daemon, "Pss:")? as f64,
        daemon_rss_kib: memory_kib(daemon, "Rss:")? as f64,
    })
}

async fn bare(lab: &Lab, side: &mut Side, load: Load) -> Result<Round> {
    let phases = load.phases();
    for index in 0..phases.iter().sum() {
        side.bundle(&index.to_string(), SLEEPER)?;
    }
    let command = if side.kind == Kind::Floor {
        side.place.command(&side.cgroup, lab.program("berth-floor"))
    } else {
        floor::bare(lab, side, &side.runtime_path)
    };
    let cpu = side.cgroup.cpu()?;
    let (mut cpu_s, mut phase) = (0.0, 0);
    let bursts = floor::phases(command, side, load.in_flight, &phases, || {
        phase += 1;
        if phase <= 2 && phase <= phases.len() {
            cpu_s = (side.cgroup.cpu()? - cpu).as_secs_f64();
        }
        Ok(())
    });
    let mut starts = bursts.await?;
    let remove = starts.pop().ok_or_else(|| BenchError::new("not one line a phase"))?;
    side.stop().await?;
    Ok(Round {
        starts,
        cpu_s,
        remove_s: remove.wall_s,
        memory: Vec::new(),
        stages: Vec::new(),
    })
}

fn row(runtime: &str, load: Load, who: Contestant, rounds: &[Round]) -> Row {
    let starts: Vec<Burst> = rounds.iter().map(Round::start).collect();
    let pooled = Burst::together(&starts);
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let cpu_s = of(&|round| round.cpu_s);
    // The median round's, by what its containers take.
    let mut memory: Vec<&Vec<Memory>> = rounds.iter().map(|round| &round.memory).collect();
    let last = |memory: &[Memory]| memory.last().map_or(0.0, |memory| memory.pss_kib_each);
    memory.sort_by(|a, b| last(a).total_cmp(&last(b)));
    let phased = rounds.first().filter(|round| round.starts.len() > 2);
    let mut stages: Vec<&Vec<(String, f64)>> = rounds.iter().map(|round| &round.stages).collect();
    let total = |stages: &[(String, f64)]| stages.iter().map(|(_, ms)| ms).sum::<f64>();
    stages.sort_by(|a, b| total(a).total_cmp(&total(b)));
    Row {
        runtime: runtime.to_owned(),
        load,
        who,
        per_s: median(starts.iter().map(Burst::rate).collect()),
        p50_ms: pooled.quantile(0.5),
        p99_ms: pooled.quantile(0.99),
        max_ms: pooled.max(),
        percentiles_ms: pooled.percentiles(),
        cpu_s,
        cpu_ms_each: cpu_s * 1000.0 / load.count as f64,
        remove_s: of(&|round| round.remove_s),
        memory: memory
            .get(memory.len() / 2)
            .map(|memory| (*memory).clone())
            .unwrap_or_default(),
        idle_per_s: phased.map(|round| round.starts[0].rate()),
        loaded_per_s: phased.and_then(|round| round.starts.last()).map(Burst::rate),
        rounds_per_s: starts.iter().map(Burst::rate).collect(),
        stages_ms: stages
            .get(stages.len() / 2)
            .map(|stages| (*stages).clone())
            .unwrap_or_default(),
    }
}

/// One line on the terminal that the next one replaces; nothing where nobody looks.
pub fn progress(line: &str) {
    use std::io::IsTerminal;
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
    }
}

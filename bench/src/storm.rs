//! `bench storm`: how fast containers start and what looking after them costs.
//!
//! Rounds are interleaved: in each, every side starts all containers from nothing, is looked at, and removes them. Latencies of all
//! rounds are pooled, other figures are the median round's.

use crate::Common;
use crate::error::{BenchError, Result};
use crate::floor;
use crate::measure::{Burst, burst, median, memory_kib, pss_kib};
use crate::same;
use crate::side::{EMBEDDED, Kind, Lab, Side};
use crate::table::{Table, number};
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;

const SLEEPER: &[&str] = &["sleep", "1000000"];

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many containers
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    counts: Vec<usize>,
    /// How many requests at a time
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000])]
    in_flight: Vec<usize>,
    /// Rounds for up to 100 containers; more containers get one round
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            counts: vec![100, 1000],
            in_flight: vec![10, 100, 1000],
            rounds: 3,
        }
    }
}

/// One line of the table: what is asked of every side.
#[derive(Debug, Clone, Copy, Serialize)]
struct Load {
    count: usize,
    in_flight: usize,
    fifo: bool,
}

/// What one side did in one round.
struct Round {
    start: Burst,
    /// Starts while the others ran.
    extra: Option<Burst>,
    cpu_s: f64,
    remove_s: f64,
    memory: Option<Memory>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Memory {
    /// PSS of every supervising process but the daemon, a container, in KiB.
    pss_kib_each: f64,
    daemon_pss_kib: f64,
    daemon_rss_kib: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    runtime: String,
    #[serde(flatten)]
    load: Load,
    side: Kind,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_s: f64,
    cpu_ms_each: f64,
    remove_s: f64,
    #[serde(flatten)]
    memory: Option<Memory>,
    /// Rate of 100 more starts while all of these run.
    loaded_per_s: Option<f64>,
    rounds_per_s: Vec<f64>,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let mut rows = Vec::new();
    for runtime in &common.runtimes {
        println!("\n### Starts with {runtime}\n\n{}\n", lab.versions(runtime).await?);
        check_same(&lab, common, runtime).await?;
        let from = rows.len();
        for load in loads(options) {
            rows.extend(measure(&lab, common, runtime, load, options.rounds).await?);
        }
        print(&rows[from..]);
        ratios(&rows[from..]);
    }
    std::fs::create_dir_all(&common.out)?;
    let path = common.out.join("storm.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&rows)?)?;
    println!("\n(JSON in {})", path.display());
    Ok(())
}

fn loads(options: &Options) -> Vec<Load> {
    let mut loads = Vec::new();
    for &count in &options.counts {
        for &in_flight in &options.in_flight {
            loads.push(Load {
                count,
                in_flight,
                fifo: false,
            });
        }
    }
    // What Docker asks for: standard output and error into FIFOs that the client reads. Once, for its memory.
    if let (Some(&count), Some(&in_flight)) = (options.counts.first(), options.in_flight.first()) {
        loads.push(Load {
            count,
            in_flight,
            fifo: true,
        });
    }
    loads
}

/// One container on each side; says what containerd was told, and fails if they are not alike.
async fn check_same(lab: &Lab, common: &Common, runtime: &str) -> Result<()> {
    let mut prints = Vec::new();
    for kind in common.daemons() {
        let mut side = lab.side(kind, runtime).await?;
        let client = side.start().await?.client;
        let pid = client.start(&side.bundle("same", SLEEPER)?).await?;
        prints.push(same::fingerprint(pid)?);
        client.remove("same").await?;
        if kind == Kind::Containerd {
            let config = std::fs::read_to_string(side.work.join("config.toml"))?;
            println!(
                "containerd's configuration (all folders on the same tmpfs as Berth's):\n\n```toml\n{}\n```\n",
                config.trim()
            );
        }
        side.stop().await?;
    }
    if let [ours, theirs] = &prints[..] {
        match same::agree(ours, theirs) {
            Ok(()) => println!(
                "capabilities, seccomp, mounts, masks, cgroups, oom_score_adj agree in {} facts\n",
                ours.len()
            ),
            // Two runtimes may mask a file or mount cgroups in two ways; it is said, and the reader judges.
            Err(error) if runtime == EMBEDDED => println!("{error}\n"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn measure(lab: &Lab, common: &Common, runtime: &str, load: Load, rounds: usize) -> Result<Vec<Row>> {
    let mut kinds: Vec<Kind> = common.daemons().collect();
    if load.in_flight == 10 && !load.fifo {
        kinds.extend(
            [Kind::Bare, Kind::Floor]
                .into_iter()
                .filter(|kind| common.measures(*kind)),
        );
    }
    let rounds = if load.count > 100 { 1 } else { rounds };
    let mut done: Vec<Vec<Round>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..kinds.len() {
            // Nobody is always first.
            let index = (turn + round) % kinds.len();
            progress(&format!(
                "{runtime}: {} × {} in flight, round {}: {}",
                load.count,
                load.in_flight,
                round + 1,
                kinds[index]
            ));
            let mut side = lab.side(kinds[index], runtime).await?;
            let result = if kinds[index].is_daemon() {
                daemon(&mut side, load).await
            } else {
                bare(lab, &mut side, load).await
            };
            done[index].push(result.map_err(|error| {
                let log = std::fs::read_to_string(side.work.join("daemon.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                BenchError::new(format!(
                    "{} at {load:?}: {error}\n{}",
                    kinds[index],
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                ))
            })?);
        }
    }
    progress("");
    Ok(kinds
        .iter()
        .zip(done)
        .map(|(kind, rounds)| row(runtime, load, *kind, &rounds))
        .collect())
}

/// How many more are started once `load` runs.
fn extra(load: Load) -> usize {
    if load.count >= 1000 && load.in_flight == 10 {
        100
    } else {
        0
    }
}

async fn daemon(side: &mut Side, load: Load) -> Result<Round> {
    let client = side.start().await?.client;
    let mut bundles = Vec::new();
    for index in 0..load.count + extra(load) {
        let bundle = side.bundle(&index.to_string(), SLEEPER)?;
        bundles.push(if load.fifo { bundle.with_fifos()? } else { bundle });
    }
    let bundles = Arc::new(bundles);
    let start = |first: usize| {
        let (client, bundles) = (client.clone(), bundles.clone());
        move |index: usize| {
            let (client, bundles) = (client.clone(), bundles.clone());
            async move { client.start(&bundles[first + index]).await.map(drop) }
        }
    };
    let cpu = side.cgroup.cpu()?;
    let started = burst(load.count, load.in_flight, start(0)).await?;
    let cpu_s = (side.cgroup.cpu()? - cpu).as_secs_f64();
    let daemon = side.daemon_pid();
    let memory = Memory {
        pss_kib_each: pss_kib(&side.supervisors()) as f64 / load.count as f64,
        daemon_pss_kib: memory_kib(daemon, "Pss:")? as f64,
        daemon_rss_kib: memory_kib(daemon, "Rss:")? as f64,
    };
    let extra = match extra(load) {
        0 => None,
        count => Some(burst(count, load.in_flight, start(load.count)).await?),
    };
    let removed = burst(bundles.len(), load.in_flight, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.remove(&bundles[index].id).await }
    });
    let remove_s = removed.await?.wall_s;
    side.stop().await?;
    Ok(Round {
        start: started,
        extra,
        cpu_s,
        remove_s,
        memory: Some(memory),
    })
}

async fn bare(lab: &Lab, side: &mut Side, load: Load) -> Result<Round> {
    for index in 0..load.count + extra(load) {
        side.bundle(&index.to_string(), SLEEPER)?;
    }
    let command = if side.kind == Kind::Floor {
        side.place.command(&side.cgroup, lab.program("berth-floor"))
    } else {
        floor::bare(lab, side, &side.runtime_path)
    };
    let cpu = side.cgroup.cpu()?;
    let mut cpu_s = None;
    let phases = [load.count, extra(load)];
    let bursts = floor::phases(command, side, load.in_flight, &phases, || {
        cpu_s.get_or_insert((side.cgroup.cpu()? - cpu).as_secs_f64());
        Ok(())
    });
    let Ok([start, extra, remove]) = <[Burst; 3]>::try_from(bursts.await?) else {
        return Err(BenchError::new("not one line a phase"));
    };
    side.stop().await?;
    let extra = Some(extra).filter(|extra| !extra.each_ms.is_empty());
    Ok(Round {
        start,
        extra,
        cpu_s: cpu_s.unwrap_or_default(),
        remove_s: remove.wall_s,
        memory: None,
    })
}

fn row(runtime: &str, load: Load, side: Kind, rounds: &[Round]) -> Row {
    let mut each_ms: Vec<f64> = rounds
        .iter()
        .flat_map(|round| round.start.each_ms.iter().copied())
        .collect();
    each_ms.sort_by(f64::total_cmp);
    let pooled = Burst { wall_s: 1.0, each_ms };
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let cpu_s = of(&|round| round.cpu_s);
    let memory = |figure: fn(Memory) -> f64| of(&move |round| round.memory.map(figure).unwrap_or_default());
    Row {
        runtime: runtime.to_owned(),
        load,
        side,
        per_s: of(&|round| round.start.rate()),
        p50_ms: pooled.quantile(0.5),
        p99_ms: pooled.quantile(0.99),
        max_ms: pooled.max(),
        cpu_s,
        cpu_ms_each: cpu_s * 1000.0 / load.count as f64,
        remove_s: of(&|round| round.remove_s),
        memory: rounds.iter().any(|round| round.memory.is_some()).then(|| Memory {
            pss_kib_each: memory(|memory| memory.pss_kib_each),
            daemon_pss_kib: memory(|memory| memory.daemon_pss_kib),
            daemon_rss_kib: memory(|memory| memory.daemon_rss_kib),
        }),
        loaded_per_s: rounds.iter().find_map(|round| round.extra.as_ref()).map(Burst::rate),
        rounds_per_s: rounds.iter().map(|round| round.start.rate()).collect(),
    }
}

fn print(rows: &[Row]) {
    let mut table = Table::new(&[
        "containers × in flight",
        "side",
        "starts/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU ms each",
        "PSS KiB each",
        "daemon RSS MiB",
        "remove s",
        "100 more/s",
    ]);
    for row in rows {
        let memory = |figure: fn(Memory) -> f64| row.memory.map_or("–".to_owned(), |memory| number(figure(memory)));
        table.row([
            format!(
                "{} × {}{}",
                row.load.count,
                row.load.in_flight,
                if row.load.fifo { ", FIFOs" } else { "" }
            ),
            row.side.to_string(),
            number(row.per_s),
            number(row.p50_ms),
            number(row.p99_ms),
            number(row.max_ms),
            number(row.cpu_ms_each),
            memory(|memory| memory.pss_kib_each),
            memory(|memory| memory.daemon_rss_kib / 1024.0),
            number(row.remove_s),
            row.loaded_per_s.map_or("–".to_owned(), number),
        ]);
    }
    table.print();
}

/// The sentences that the goals are made of.
fn ratios(rows: &[Row]) {
    println!();
    let find = |row: &Row, side| {
        rows.iter().find(|other| {
            let (a, b) = (row.load, other.load);
            other.side == side && (a.count, a.in_flight, a.fifo) == (b.count, b.in_flight, b.fifo)
        })
    };
    for row in rows.iter().filter(|row| row.side == Kind::Berth) {
        let mut parts = Vec::new();
        if let Some(stock) = find(row, Kind::Containerd) {
            parts.push(format!("{} × containerd's rate", number(row.per_s / stock.per_s)));
            parts.push(format!("1/{} of its CPU", number(stock.cpu_s / row.cpu_s)));
            if let (Some(ours), Some(theirs)) = (row.memory, stock.memory) {
                parts.push(format!(
                    "1/{} of its memory a container",
                    number(theirs.pss_kib_each / ours.pss_kib_each)
                ));
            }
        }
        if let Some(floor) = find(row, Kind::Floor) {
            parts.push(format!(
                "{:.0} % of the system calls alone",
                100.0 * row.per_s / floor.per_s
            ));
        }
        if let Some(bare) = find(row, Kind::Bare) {
            parts.push(format!("{:.0} % of the runtime alone", 100.0 * row.per_s / bare.per_s));
            if let (Some(ours), Some(theirs)) = (row.loaded_per_s, bare.loaded_per_s) {
                let loss = |loaded: f64, idle: f64| 100.0 * loaded / idle;
                parts.push(format!(
                    "with all of them running {:.0} % of its own rate (runtime alone {:.0} %)",
                    loss(ours, row.per_s),
                    loss(theirs, bare.per_s)
                ));
            }
        }
        parts.push(format!("p99/p50 {}", number(row.p99_ms / row.p50_ms)));
        let fifo = if row.load.fifo { " with FIFOs" } else { "" };
        println!(
            "- {} × {} in flight{fifo}: {}",
            row.load.count,
            row.load.in_flight,
            parts.join(", ")
        );
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

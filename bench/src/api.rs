//! `bench api`: both daemons through containerd's API, which both serve: starts with `io.containerd.runc.v2` and no further option, a stock
//! Docker Engine over each, and subscribers of events while containers start.

mod docker;
mod events;
mod proxy;

use crate::Common;
use crate::error::{Context, Result};
use crate::measure::{Burst, burst, median};
use crate::side::{Contestant, EMBEDDED, Kind, Lab, Side};
use crate::storm::progress;
use crate::table::{Table, number};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Starts, Part::Docker, Part::Events])]
    parts: Vec<Part>,
    /// How many containers are started through containerd's API
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// How many requests, or docker commands, at a time
    #[arg(long, default_value_t = 10)]
    in_flight: usize,
    /// How many `docker run -d`
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// How many `docker exec`
    #[arg(long, default_value_t = 200)]
    execs: usize,
    /// How many containers start under the eyes of subscribers
    #[arg(long, default_value_t = 1000)]
    watched: usize,
    #[arg(long, default_value_t = 10)]
    subscribers: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Starts,
    Docker,
    Events,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            parts: vec![Part::Starts, Part::Docker, Part::Events],
            count: 100,
            in_flight: 10,
            runs: 50,
            execs: 200,
            watched: 1000,
            subscribers: 10,
            rounds: 3,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
pub struct Rows {
    starts: Vec<Start>,
    docker: Vec<docker::Row>,
    events: Vec<events::Row>,
}

#[derive(Serialize, Deserialize)]
struct Start {
    #[serde(flatten)]
    who: Contestant,
    count: usize,
    in_flight: usize,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms_each: f64,
    rounds_per_s: Vec<f64>,
}

/// Berth as it is, and containerd with the runtime that it and Docker have by default, and with the fastest.
fn engines(common: &Common) -> impl Iterator<Item = Contestant> + '_ {
    let all = Contestant::all(common, EMBEDDED).into_iter();
    all.filter(|who| who.side.is_daemon())
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let versions = [lab.versions("runc").await?, lab.versions("crun").await?];
    println!("\n### Through containerd's API\n\n{}\n", versions.join(", "));
    let mut rows = Rows::default();
    for part in &options.parts {
        match part {
            Part::Starts => rows.starts = starts(&lab, common, options).await?,
            Part::Docker => rows.docker = docker::measure(&lab, common, options).await?,
            Part::Events => rows.events = events::run(&lab, common, options).await?,
        }
    }
    println!("{}", text(&rows));
    common.keep("api", &rows)
}

async fn starts(lab: &Lab, common: &Common, options: &Options) -> Result<Vec<Start>> {
    let all: Vec<Contestant> = engines(common).collect();
    let mut done: Vec<Vec<(Burst, f64)>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        for turn in 0..all.len() {
            // Nobody is always first.
            let index = (turn + round) % all.len();
            let who = &all[index];
            progress(&format!("{} starts, round {}: {who}", options.count, round + 1));
            let mut side = lab.side(who.side, &who.with).await?;
            side.as_containerd = true;
            done[index].push(round_of(&mut side, options).await.context(who)?);
        }
    }
    progress("");
    let rows = all.into_iter().zip(done).map(|(who, rounds)| {
        let bursts: Vec<Burst> = rounds.iter().map(|(burst, _)| burst.clone()).collect();
        let pooled = Burst::together(&bursts);
        let rates: Vec<f64> = bursts.iter().map(Burst::rate).collect();
        Start {
            who,
            count: options.count,
            in_flight: options.in_flight,
            per_s: median(rates.clone()),
            p50_ms: pooled.quantile(0.5),
            p99_ms: pooled.quantile(0.99),
            cpu_ms_each: median(rounds.iter().map(|(_, cpu_s)| cpu_s * 1000.0).collect()) / options.count as f64,
            rounds_per_s: rates,
        }
    });
    Ok(rows.collect())
}

async fn round_of(side: &mut Side, options: &Options) -> Result<(Burst, f64)> {
    let client = side.start().await?.client;
    let bundles = (0..options.count).map(|index| side.bundle(&index.to_string(), &["sleep", "1000000"]));
    let bundles = Arc::new(bundles.collect::<Result<Vec<_>>>()?);
    let cpu = side.cgroup.cpu()?;
    let started = burst(options.count, options.in_flight, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.start(&bundles[index]).await.map(drop) }
    });
    let started = started.await?;
    let cpu_s = (side.cgroup.cpu()? - cpu).as_secs_f64();
    let removed = burst(options.count, options.in_flight, |index| {
        let client = client.clone();
        async move { client.remove(&index.to_string()).await }
    });
    removed.await?;
    side.stop().await?;
    Ok((started, cpu_s))
}

pub fn text(rows: &Rows) -> String {
    let mut text = String::new();
    if !rows.starts.is_empty() {
        text += &starts_text(&rows.starts);
    }
    if !rows.docker.is_empty() {
        text += &format!("\nA stock Docker Engine over each:\n\n{}", docker::text(&rows.docker));
    }
    if !rows.events.is_empty() {
        text += &format!(
            "\nSubscribers while containers start:\n\n{}",
            events::text(&rows.events)
        );
    }
    text
}

fn starts_text(rows: &[Start]) -> String {
    let mut table = Table::new(&[
        "containers × in flight",
        "side",
        "starts/s",
        "p50 ms",
        "p99 ms",
        "CPU ms each",
        "Berth's rate by this one",
    ]);
    let ours = rows.iter().find(|row| row.who.side == Kind::Berth);
    for row in rows {
        let times = ours.map_or("–".to_owned(), |ours| number(ours.per_s / row.per_s));
        let figures = [row.per_s, row.p50_ms, row.p99_ms, row.cpu_ms_each].map(number);
        let name = format!("{} × {}", row.count, row.in_flight);
        table.row([name, row.who.to_string()].into_iter().chain(figures).chain([times]));
    }
    table.text()
}

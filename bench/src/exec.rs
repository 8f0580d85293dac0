//! `bench exec`: commands in one running container, from the request to the exit code.

use crate::Common;
use crate::bundle;
use crate::error::{Result, ensure};
use crate::measure::{Burst, burst};
use crate::side::{Contestant, Lab};
use crate::storm::progress;
use crate::table::{Table, number};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many commands
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// How many at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10])]
    in_flight: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Without Docker's seccomp profile, with it, or both
    #[arg(long, value_delimiter = ',', default_values_t = [false, true])]
    seccomp: Vec<bool>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            count: 100,
            in_flight: vec![1, 10],
            rounds: 3,
            seccomp: vec![false, true],
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Row {
    runtime: String,
    in_flight: usize,
    seccomp: bool,
    #[serde(flatten)]
    who: Contestant,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_ms_each: f64,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let mut rows = Vec::new();
    for runtime in &common.runtimes {
        println!(
            "\n### Commands in a running container with {runtime}\n\n{}\n",
            lab.versions(runtime).await?
        );
        let from = rows.len();
        for &in_flight in &options.in_flight {
            for &seccomp in &options.seccomp {
                rows.extend(measure(&lab, common, options, runtime, in_flight, seccomp).await?);
            }
        }
        println!("{}", text(&rows[from..]));
    }
    common.keep("exec", &rows)
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "in flight",
        "side",
        "execs/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU ms each",
        "Berth's rate by this one",
    ]);
    for row in rows {
        let figures = [row.per_s, row.p50_ms, row.p99_ms, row.max_ms, row.cpu_ms_each].map(number);
        let load = (row.in_flight, row.seccomp, &row.runtime);
        let ours = rows
            .iter()
            .find(|other| (other.in_flight, other.seccomp, &other.runtime) == load);
        let name = format!("{}{}", row.in_flight, if row.seccomp { ", seccomp" } else { "" });
        let times = ours.map_or("–".to_owned(), |ours| number(ours.per_s / row.per_s));
        table.row([name, row.who.to_string()].into_iter().chain(figures).chain([times]));
    }
    table.text()
}

async fn measure(
    lab: &Lab,
    common: &Common,
    options: &Options,
    runtime: &str,
    in_flight: usize,
    seccomp: bool,
) -> Result<Vec<Row>> {
    let mut sides = Vec::new();
    let all = Contestant::all(common, runtime).into_iter();
    for who in all.filter(|who| who.side.is_daemon()) {
        let mut side = lab.side(who.side, &who.with).await?;
        side.seccomp = seccomp;
        let client = side.start().await?.client;
        client.start(&side.bundle("box", &["sleep", "1000000"])?).await?;
        sides.push((who, side, client, Vec::new(), 0.0));
    }
    let process = Arc::new(serde_json::to_vec(&bundle::process(&["true"]))?);
    for round in 0..options.rounds {
        for (who, side, client, bursts, cpu_s) in &mut sides {
            progress(&format!("exec × {in_flight} in flight, round {}: {who}", round + 1));
            let cpu = side.cgroup.cpu()?;
            let done = burst(options.count, in_flight, |index| {
                let (client, process) = (client.clone(), process.clone());
                async move {
                    let code = client.exec("box", &format!("e{round}-{index}"), &process).await?;
                    ensure(code == 0, || format!("the command ended with {code}"))
                }
            });
            bursts.push(done.await?);
            *cpu_s += (side.cgroup.cpu()? - cpu).as_secs_f64();
        }
    }
    progress("");
    let mut rows = Vec::new();
    for (who, mut side, client, bursts, cpu_s) in sides {
        client.remove("box").await?;
        side.stop().await?;
        let all = Burst::together(&bursts);
        rows.push(Row {
            runtime: runtime.to_owned(),
            in_flight,
            seccomp,
            who,
            per_s: all.rate(),
            p50_ms: all.quantile(0.5),
            p99_ms: all.quantile(0.99),
            max_ms: all.max(),
            cpu_ms_each: cpu_s * 1000.0 / all.each_ms.len() as f64,
        });
    }
    Ok(rows)
}

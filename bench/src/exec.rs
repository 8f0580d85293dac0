//! `bench exec`: commands in one running container, from the request to the exit code.

use crate::Common;
use crate::bundle;
use crate::error::{Result, ensure};
use crate::measure::{Burst, burst};
use crate::side::{Kind, Lab};
use crate::storm::progress;
use crate::table::{Table, number};
use serde::Serialize;
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
}

impl Default for Options {
    fn default() -> Options {
        Options {
            count: 100,
            in_flight: vec![1, 10],
            rounds: 3,
        }
    }
}

#[derive(Serialize)]
struct Row {
    runtime: String,
    in_flight: usize,
    side: Kind,
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
            rows.extend(measure(&lab, common, options, runtime, in_flight).await?);
        }
        let mut table = Table::new(&[
            "in flight",
            "side",
            "execs/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU ms each",
        ]);
        for row in &rows[from..] {
            let figures = [row.per_s, row.p50_ms, row.p99_ms, row.max_ms, row.cpu_ms_each].map(number);
            table.row(
                [row.in_flight.to_string(), row.side.to_string()]
                    .into_iter()
                    .chain(figures),
            );
        }
        table.print();
    }
    std::fs::create_dir_all(&common.out)?;
    std::fs::write(common.out.join("exec.json"), serde_json::to_vec_pretty(&rows)?)?;
    Ok(())
}

async fn measure(lab: &Lab, common: &Common, options: &Options, runtime: &str, in_flight: usize) -> Result<Vec<Row>> {
    let mut sides = Vec::new();
    for kind in common.daemons() {
        let mut side = lab.side(kind, runtime).await?;
        let client = side.start().await?.client;
        client.start(&side.bundle("box", &["sleep", "1000000"])?).await?;
        sides.push((side, client, Vec::new(), 0.0));
    }
    let process = Arc::new(serde_json::to_vec(&bundle::process(&["true"]))?);
    for round in 0..options.rounds {
        for (side, client, bursts, cpu_s) in &mut sides {
            progress(&format!(
                "{runtime}: exec × {in_flight} in flight, round {}: {}",
                round + 1,
                side.kind
            ));
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
    for (mut side, client, bursts, cpu_s) in sides {
        client.remove("box").await?;
        side.stop().await?;
        let wall_s = bursts.iter().map(|burst| burst.wall_s).sum();
        let mut each_ms: Vec<f64> = bursts.into_iter().flat_map(|burst| burst.each_ms).collect();
        each_ms.sort_by(f64::total_cmp);
        let all = Burst { wall_s, each_ms };
        rows.push(Row {
            runtime: runtime.to_owned(),
            in_flight,
            side: side.kind,
            per_s: all.rate(),
            p50_ms: all.quantile(0.5),
            p99_ms: all.quantile(0.99),
            max_ms: all.max(),
            cpu_ms_each: cpu_s * 1000.0 / all.each_ms.len() as f64,
        });
    }
    Ok(rows)
}

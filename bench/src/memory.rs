//! `bench memory`: what looking after containers takes once they have lived a little, and whether a daemon grows with all that it has
//! ever done.

use crate::Common;
use crate::bundle;
use crate::error::{Result, ensure};
use crate::measure::{burst, memory_kib, pss_kib};
use crate::side::{Contestant, Kind, Lab};
use crate::storm::progress;
use crate::table::{Table, number};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many containers
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Commands that each of them has run before it is looked at
    #[arg(long, default_value_t = 5)]
    execs: usize,
    /// Starts and stops after which the daemon is looked at again, in ten steps
    #[arg(long, default_value_t = 5000)]
    churn: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            count: 100,
            execs: 5,
            churn: 5000,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    who: Contestant,
    count: usize,
    execs: usize,
    /// `FIFOs`, `files`.
    output: String,
    pss_kib_before: f64,
    pss_kib_after: f64,
    daemon_rss_kib: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Rows {
    lived: Vec<Row>,
    /// Starts and stops so far, and the daemon's RSS in KiB then.
    churned: Vec<(usize, f64)>,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let mut lived = Vec::new();
    for runtime in &common.runtimes {
        let all = Contestant::all(common, runtime).into_iter();
        for who in all.filter(|who| who.side.is_daemon()) {
            for logs in [false, true] {
                if logs && who.side != Kind::Berth {
                    continue;
                }
                progress(&format!("memory: {who}"));
                lived.push(measure(&lab, options, &who, logs).await?);
            }
        }
    }
    let mut churned = Vec::new();
    if common.measures(Kind::Berth) && options.churn > 0 {
        let runtime = common.runtimes.first().map_or("crun", String::as_str);
        churned = churn(&lab, options, runtime).await?;
    }
    progress("");
    let rows = Rows { lived, churned };
    println!("\n### Memory\n\n{}", text(&rows));
    common.keep("memory", &rows)
}

pub fn text(rows: &Rows) -> String {
    let mut table = Table::new(&[
        "side",
        "containers",
        "output to",
        "PSS KiB each",
        "after the execs",
        "execs each",
        "daemon RSS MiB",
    ]);
    for row in &rows.lived {
        table.row([
            row.who.to_string(),
            row.count.to_string(),
            row.output.clone(),
            number(row.pss_kib_before),
            number(row.pss_kib_after),
            row.execs.to_string(),
            number(row.daemon_rss_kib / 1024.0),
        ]);
    }
    let mut text = table.text();
    if !rows.churned.is_empty() {
        let mut table = Table::new(&["starts and stops so far", "daemon RSS MiB"]);
        for (count, kib) in &rows.churned {
            table.row([count.to_string(), number(kib / 1024.0)]);
        }
        text += &format!("\n{}", table.text());
    }
    text
}

async fn measure(lab: &Lab, options: &Options, who: &Contestant, logs: bool) -> Result<Row> {
    let mut side = lab.side(who.side, &who.with).await?;
    let client = side.start().await?.client;
    let mut bundles = Vec::new();
    for index in 0..options.count {
        let bundle = side.bundle(&index.to_string(), &["sleep", "1000000"])?;
        bundles.push(if logs { bundle.with_logs() } else { bundle.with_fifos()? });
    }
    let bundles = Arc::new(bundles);
    let started = burst(options.count, 10, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.start(&bundles[index]).await.map(drop) }
    });
    started.await?;
    let each = |side: &crate::side::Side| pss_kib(&side.supervisors()) as f64 / options.count as f64;
    let pss_kib_before = each(&side);
    let process = Arc::new(serde_json::to_vec(&bundle::process(&["true"]))?);
    let executed = burst(options.count * options.execs, 10, |index| {
        let (client, bundles, process) = (client.clone(), bundles.clone(), process.clone());
        async move {
            let id = &bundles[index % bundles.len()].id;
            let code = client.exec(id, &format!("e{index}"), &process).await?;
            ensure(code == 0, || format!("the command ended with {code}"))
        }
    });
    executed.await?;
    let pss_kib_after = each(&side);
    let daemon_rss_kib = memory_kib(side.daemon_pid(), "Rss:")? as f64;
    let removed = burst(options.count, 10, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.remove(&bundles[index].id).await }
    });
    removed.await?;
    side.stop().await?;
    Ok(Row {
        who: who.clone(),
        count: options.count,
        execs: options.execs,
        output: if logs { "files" } else { "FIFOs" }.to_owned(),
        pss_kib_before,
        pss_kib_after,
        daemon_rss_kib,
    })
}

async fn churn(lab: &Lab, options: &Options, runtime: &str) -> Result<Vec<(usize, f64)>> {
    const STEPS: usize = 10;
    let mut side = lab.side(Kind::Berth, runtime).await?;
    let client = side.start().await?.client;
    let step = options.churn.div_ceil(STEPS);
    let mut churned = vec![(0, memory_kib(side.daemon_pid(), "Rss:")? as f64)];
    for done in 0..STEPS {
        progress(&format!("memory: {} starts and stops", done * step));
        let mut bundles = Vec::new();
        for index in 0..step {
            bundles.push(side.bundle(&format!("{done}-{index}"), &["sleep", "1000000"])?);
        }
        let bundles = Arc::new(bundles);
        let each = burst(step, 10, |index| {
            let (client, bundles) = (client.clone(), bundles.clone());
            async move {
                client.start(&bundles[index]).await?;
                client.remove(&bundles[index].id).await
            }
        });
        each.await?;
        churned.push(((done + 1) * step, memory_kib(side.daemon_pid(), "Rss:")? as f64));
    }
    side.stop().await?;
    Ok(churned)
}

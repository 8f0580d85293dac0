//! `bench restart`: the daemon is killed with SIGKILL while its containers run, and started again. How long until its socket
//! answers, and until it says of every container that it runs, with the same pid.

use crate::Common;
use crate::error::{Context, Result};
use crate::measure::{burst, median, millis};
use crate::side::{Kind, Lab};
use crate::storm::progress;
use crate::table::{Table, number};
use crate::until::until;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How many containers
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// How often the daemon is killed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { count: 1000, rounds: 3 }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Row {
    side: Kind,
    count: usize,
    socket_ms: f64,
    all_running_ms: f64,
    rounds_ms: Vec<f64>,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let runtime = common.runtimes.last().map_or("crun", String::as_str);
    println!(
        "\n### {} containers after SIGKILL of the daemon ({runtime})\n",
        options.count
    );
    let mut rows = Vec::new();
    for kind in common.daemons() {
        rows.push(measure(&lab, options, kind, runtime).await.context(kind)?);
    }
    progress("");
    println!("{}", text(&rows));
    common.keep("restart", &rows)
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&["side", "socket open, ms", "all running, ms"]);
    for row in rows {
        table.row([row.side.to_string(), number(row.socket_ms), number(row.all_running_ms)]);
    }
    table.text()
}

async fn measure(lab: &Lab, options: &Options, kind: Kind, runtime: &str) -> Result<Row> {
    progress(&format!("{kind}: starting {} containers", options.count));
    let mut side = lab.side(kind, runtime).await?;
    let mut client = side.start().await?.client;
    let bundles = (0..options.count).map(|index| side.bundle(&index.to_string(), &["sleep", "1000000"]));
    let bundles = Arc::new(bundles.collect::<Result<Vec<_>>>()?);
    let started = burst(options.count, 10, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.start(&bundles[index]).await.map(drop) }
    });
    started.await?;
    let before = client.running().await?;
    let (mut sockets, mut all) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        progress(&format!("{kind}: round {}", round + 1));
        side.kill()?;
        let ready = side.start().await?;
        client = ready.client;
        until("all containers as before", Duration::from_secs(120), async || {
            (client.running().await.ok()? == before).then_some(())
        })
        .await?;
        all.push(millis(ready.begin.elapsed()));
        sockets.push(millis(ready.socket));
    }
    let removed = burst(options.count, 10, |index| {
        let (client, bundles) = (client.clone(), bundles.clone());
        async move { client.remove(&bundles[index].id).await }
    });
    removed.await?;
    side.stop().await?;
    let rounds_ms = all.clone();
    Ok(Row {
        side: kind,
        count: options.count,
        socket_ms: median(sockets),
        all_running_ms: median(all),
        rounds_ms,
    })
}

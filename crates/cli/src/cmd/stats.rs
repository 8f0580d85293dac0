//! `berth stats`. CPU in percent is ours to compute: the API gives counters, two answers give a rate.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::time::Duration;

use berth_wire::v1::{ContainerStats, StatsRequest, StatsResponse};
use clap::Args;

use super::Context;
use crate::complete;
use crate::error::{CliError, Result};
use crate::human::{parse_duration, size};
use crate::json;
use crate::out::REDRAW;

const HEADER: [&str; 7] = [
    "ID",
    "CPU",
    "MEMORY / LIMIT",
    "MEMORY %",
    "NETWORK RX / TX",
    "DISK READ / WRITE",
    "PIDS",
];

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// All running ones if none is given
    #[arg(value_name = "ID", add = complete::ids())]
    pub ids: Vec<String>,
    /// Print once, and end
    #[arg(long)]
    pub no_stream: bool,
    /// Time between two readings
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
}

pub async fn stats(context: &Context, args: StatsArgs) -> Result<u8> {
    let interval_ms = match u32::try_from(args.interval.as_millis()) {
        Ok(milliseconds @ 100..=3_600_000) => milliseconds,
        _ => return Err(CliError::Usage("--interval: expected 100ms to 1h".into())),
    };
    let first = args.ids.first().cloned().unwrap_or_default();
    let request = StatsRequest {
        namespace: context.namespace.clone(),
        ids: args.ids,
        interval_ms,
    };
    let client = context.client().await?;
    let redraws = !args.no_stream && !context.out.json && io::stdout().is_terminal();
    let mut rates = Rates::default();
    client
        .stream(
            "stats",
            &first,
            request,
            |mut stub, request| async move { stub.stats(request).await },
            |_, response| -> Result<_> {
                let percents = rates.take(&response);
                // A rate needs two readings.
                if rates.readings < 2 && (args.no_stream || !context.out.json) && !response.containers.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
                if context.out.json {
                    for (stats, percent) in response.containers.iter().zip(percents) {
                        context.out.object(&json::stats(response.at, stats, percent))?;
                    }
                } else {
                    if redraws {
                        context.out.bytes(REDRAW)?;
                    }
                    let rows = response
                        .containers
                        .iter()
                        .zip(percents)
                        .map(|(stats, percent)| row(stats, percent))
                        .collect();
                    context.out.table(&HEADER, rows)?;
                }
                Ok(if args.no_stream {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            },
        )
        .await?;
    Ok(0)
}

#[derive(Default)]
pub(super) struct Rates {
    readings: u32,
    at: i64,
    cpu: HashMap<(String, String), u64>,
}

impl Rates {
    /// Percent of one CPU since the reading before, for each container.
    pub(super) fn take(&mut self, response: &StatsResponse) -> Vec<Option<f64>> {
        let elapsed = response.at.saturating_sub(self.at) as f64;
        let mut now = HashMap::new();
        let percents = response.containers.iter().map(|stats| {
            let key = (stats.namespace.clone(), stats.id.clone());
            let before = self.cpu.get(&key).copied();
            now.insert(key, stats.cpu_ns);
            before
                .filter(|_| elapsed > 0.0)
                .map(|before| stats.cpu_ns.saturating_sub(before) as f64 / elapsed * 100.0)
        });
        let percents = percents.collect();
        self.readings += 1;
        self.at = response.at;
        self.cpu = now;
        percents
    }
}

fn row(stats: &ContainerStats, cpu_percent: Option<f64>) -> Vec<String> {
    let memory = stats.memory_working_set_bytes;
    let (limit, share) = match stats.memory_limit_bytes {
        0 => ("-".to_owned(), "-".to_owned()),
        limit => (size(limit), format!("{:.1}%", memory as f64 / limit as f64 * 100.0)),
    };
    let (rx, tx) = stats.networks.iter().fold((0_u64, 0_u64), |(rx, tx), network| {
        (rx.saturating_add(network.rx_bytes), tx.saturating_add(network.tx_bytes))
    });
    vec![
        stats.id.clone(),
        cpu_percent.map_or_else(|| "-".into(), |percent| format!("{percent:.1}%")),
        format!("{} / {limit}", size(memory)),
        share,
        format!("{} / {}", size(rx), size(tx)),
        format!("{} / {}", size(stats.io_read_bytes), size(stats.io_write_bytes)),
        if stats.pids_limit == 0 {
            stats.pids.to_string()
        } else {
            format!("{} / {}", stats.pids, stats.pids_limit)
        },
    ]
}

#[cfg(test)]
mod test {
    use super::*;

    fn reading(at: i64, cpu_ns: u64) -> StatsResponse {
        let stats = ContainerStats {
            id: "web".into(),
            cpu_ns,
            memory_working_set_bytes: 8 << 20,
            memory_limit_bytes: 64 << 20,
            pids: 3,
            ..Default::default()
        };
        StatsResponse {
            at,
            containers: vec![stats],
        }
    }

    #[test]
    fn two_readings_give_a_rate() {
        let mut rates = Rates::default();
        assert_eq!(rates.take(&reading(1_000_000_000, 500_000_000)), [None]);
        assert_eq!(rates.take(&reading(3_000_000_000, 1_500_000_000)), [Some(50.0)]);
        // A container of the same id that was made anew counts from zero.
        assert_eq!(rates.take(&reading(4_000_000_000, 0)), [Some(0.0)]);
    }

    #[test]
    fn stats_are_tabled() {
        let text = crate::out::render(&HEADER, vec![row(&reading(0, 0).containers[0], Some(12.34))], None);
        assert_eq!(
            text,
            "ID   CPU    MEMORY / LIMIT        MEMORY %  NETWORK RX / TX  DISK READ / WRITE  PIDS\n\
             web  12.3%  8.00 MiB / 64.0 MiB  12.5%     0 B / 0 B        0 B / 0 B          3"
                .replace("LIMIT        MEMORY %", "LIMIT       MEMORY %")
        );
    }
}

//! The table of starts, and the sentences that the goals are made of.

use super::{Load, Memory, Row};
use crate::side::{Contestant, Kind};
use crate::table::{Table, number};

pub fn text(rows: &[Row]) -> String {
    let mut text = table(rows);
    for row in rows.iter().filter(|row| row.who.side == Kind::Berth) {
        text += &format!("\n- {}: {}.", name(&row.load), sentences(row, rows).join("; "));
    }
    text + "\n"
}

fn name(load: &Load) -> String {
    format!(
        "{} × {}{}{}",
        load.count,
        load.in_flight,
        if load.fifo { ", FIFOs" } else { "" },
        if load.seccomp { ", seccomp" } else { "" }
    )
}

fn table(rows: &[Row]) -> String {
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
        "200 with none running/s",
        "with all running/s",
    ]);
    for row in rows {
        let memory = |figure: fn(&Memory) -> f64| match row.memory.last() {
            Some(memory) => number(figure(memory)),
            None => "–".to_owned(),
        };
        let rate = |rate: Option<f64>| rate.map_or("–".to_owned(), number);
        table.row([
            name(&row.load),
            row.who.to_string(),
            number(row.per_s),
            number(row.p50_ms),
            number(row.p99_ms),
            number(row.max_ms),
            number(row.cpu_ms_each),
            memory(|memory| memory.pss_kib_each),
            memory(|memory| memory.daemon_rss_kib / 1024.0),
            number(row.remove_s),
            rate(row.idle_per_s),
            rate(row.loaded_per_s),
        ]);
    }
    table.text()
}

fn sentences(row: &Row, rows: &[Row]) -> Vec<String> {
    let others = rows
        .iter()
        .filter(|other| other.load == row.load && other.runtime == row.runtime && other.who.side != Kind::Berth);
    let mut parts = Vec::new();
    for other in others {
        let Contestant { side, .. } = other.who;
        let mut part = match side {
            Kind::Containerd => format!("{} × the rate of {}", number(row.per_s / other.per_s), other.who),
            _ => format!("{:.0} % of {}", 100.0 * row.per_s / other.per_s, other.who),
        };
        if side == Kind::Containerd {
            part += &format!(
                ", 1/{} of its p50, 1/{} of its CPU",
                number(other.p50_ms / row.p50_ms),
                number(other.cpu_s / row.cpu_s)
            );
            if let (Some(ours), Some(theirs)) = (row.memory.last(), other.memory.last()) {
                part += &format!(", 1/{} of its memory", number(theirs.pss_kib_each / ours.pss_kib_each));
            }
        }
        if let (Some(theirs), Some(_)) = (kept(other), kept(row)) {
            part += &format!(" (which keeps {theirs:.0} % of its rate with all running)");
        }
        parts.push(part);
    }
    if let Some(ours) = kept(row) {
        parts.push(format!("keeps {ours:.0} % of its rate with all running"));
    }
    parts.push(format!("p99/p50 {}", number(row.p99_ms / row.p50_ms)));
    parts
}

/// Percent of the rate on a machine without containers that is left on one full of them.
fn kept(row: &Row) -> Option<f64> {
    Some(100.0 * row.loaded_per_s? / row.idle_per_s?)
}

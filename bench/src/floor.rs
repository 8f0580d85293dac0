//! `bench floor`: what a lone container costs from create to delete, beside the system calls that it can't do without.
//!
//! Rounds are interleaved: in each, every side makes and removes its containers one after the other. Before, one container of
//! each side is compared with the floor's, so that the work is the same; what differs is said.

use crate::Common;
use crate::error::{BenchError, Result};
use crate::measure::{Burst, median};
use crate::place::Place;
use crate::same;
use crate::side::{Kind, Lab, Side};
use crate::storm::progress;
use crate::table::{Table, number};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Rounds
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Containers of each side in a round
    #[arg(long, default_value_t = 5)]
    count: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { rounds: 10, count: 5 }
    }
}

/// Who makes the containers.
const SIDES: [&str; 4] = ["floor", "berth-oci", "crun", "runc"];

#[derive(Serialize, Deserialize)]
pub struct Row {
    side: String,
    seccomp: bool,
    /// Medians of a lone container.
    start_ms: f64,
    delete_ms: f64,
    total_ms: f64,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    let lab = Lab::make(common)?;
    let mut rows = Vec::new();
    println!("\n### A lone create + start + delete\n");
    for name in ["crun", "runc"] {
        println!("{}", lab.versions(name).await?);
    }
    println!();
    for seccomp in [false, true] {
        check_same(&lab, seccomp).await?;
        let mut bursts: Vec<[Vec<f64>; 2]> = SIDES.iter().map(|_| Default::default()).collect();
        for round in 0..options.rounds {
            for turn in 0..SIDES.len() {
                // Nobody is always first.
                let index = (turn + round) % SIDES.len();
                progress(&format!("seccomp {seccomp}, round {}: {}", round + 1, SIDES[index]));
                let mut side = make(&lab, seccomp).await?;
                for number in 0..options.count {
                    side.bundle(&number.to_string(), &["sleep", "1000000"])?;
                }
                let command = command(&lab, &side, SIDES[index])?;
                let done = phases(command, &side, 1, &[options.count], || Ok(())).await?;
                for (all, burst) in bursts[index].iter_mut().zip(done) {
                    all.extend(burst.each_ms);
                }
                side.stop().await?;
            }
        }
        progress("");
        for (side, [start, delete]) in SIDES.into_iter().zip(bursts) {
            let (start_ms, delete_ms) = (median(start), median(delete));
            rows.push(Row {
                side: side.to_owned(),
                seccomp,
                start_ms,
                delete_ms,
                total_ms: start_ms + delete_ms,
            });
        }
    }
    println!("{}", text(&rows));
    common.keep("floor", &rows)
}

async fn make(lab: &Lab, seccomp: bool) -> Result<Side> {
    let mut side = lab.side(Kind::Floor, "runc").await?;
    side.seccomp = seccomp;
    Ok(side)
}

fn command(lab: &Lab, side: &Side, name: &str) -> Result<Command> {
    Ok(match name {
        "floor" => side.place.command(&side.cgroup, lab.program("berth-floor")),
        "berth-oci" => bare(lab, side, &lab.program("berth-oci")),
        other => bare(lab, side, &find(&side.place, other)?),
    })
}

fn find(place: &Place, name: &str) -> Result<PathBuf> {
    place.find(name)
}

/// The runtime at `path` by `create`, `start` and `delete`.
pub fn bare(lab: &Lab, side: &Side, path: &Path) -> Command {
    let mut command = side.place.command(&side.cgroup, lab.program("berth-bench"));
    command
        .arg("bare")
        .arg("--runtime")
        .arg(path)
        .arg("--root")
        .arg(side.work.join("runtime"));
    command
}

/// Lets `command` start so many containers in each phase and then remove them all; `between` looks around after each.
pub async fn phases(
    mut command: Command,
    side: &Side,
    in_flight: usize,
    counts: &[usize],
    mut between: impl FnMut() -> Result<()>,
) -> Result<Vec<Burst>> {
    command
        .arg("--bundles")
        .arg(side.bundles())
        .args(["--in-flight", &in_flight.to_string()]);
    for count in counts {
        command.args(["--phase", &count.to_string()]);
    }
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(BenchError::new("no pipes"));
    };
    let mut lines = BufReader::new(stdout).lines();
    let mut bursts = Vec::new();
    while let Some(line) = lines.next_line().await? {
        bursts.push(serde_json::from_str::<Burst>(&line)?);
        between()?;
        stdin.write_all(b"\n").await?;
    }
    let status = child.wait().await?;
    if status.success() && bursts.len() == counts.len() + 1 {
        return Ok(bursts);
    }
    Err(BenchError::new(format!("the runtime alone: {status}")))
}

/// One container of every side; says in what the others' differ from the floor's.
async fn check_same(lab: &Lab, seccomp: bool) -> Result<()> {
    let mut prints: Vec<BTreeSet<String>> = Vec::new();
    for name in SIDES {
        let mut side = make(lab, seccomp).await?;
        let bundle = side.bundle("0", &["sleep", "1000000"])?;
        let mut print = None;
        let command = command(lab, &side, name)?;
        phases(command, &side, 1, &[1], || {
            if print.is_none() {
                print = Some(same::facts(&bundle, &side.cgroup)?);
            }
            Ok(())
        })
        .await?;
        prints.extend(print);
        side.stop().await?;
    }
    let with = if seccomp { "with" } else { "without" };
    println!(
        "One container of each side {with} the seccomp profile, {} facts of it:",
        prints[0].len()
    );
    for (name, print) in SIDES.iter().zip(&prints).skip(1) {
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>().join("; ");
        let (theirs, ours) = (only(print, &prints[0]), only(&prints[0], print));
        if theirs.is_empty() && ours.is_empty() {
            println!("- {name}: the floor's");
        } else {
            println!("- {name}: has {theirs}\n  where the floor has {ours}");
        }
    }
    println!();
    Ok(())
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&["side", "seccomp", "create + start ms", "delete ms", "all ms", "× floor"]);
    for row in rows {
        let floor = rows
            .iter()
            .find(|other| other.side == "floor" && other.seccomp == row.seccomp);
        table.row([
            row.side.clone(),
            if row.seccomp { "Docker's" } else { "–" }.to_owned(),
            number(row.start_ms),
            number(row.delete_ms),
            number(row.total_ms),
            floor.map_or("–".to_owned(), |floor| number(row.total_ms / floor.total_ms)),
        ]);
    }
    let mut text = table.text();
    for seccomp in [false, true] {
        let total = |side: &str| {
            let row = rows.iter().find(|row| row.side == side && row.seccomp == seccomp);
            row.map_or(f64::NAN, |row| row.total_ms)
        };
        let ours = total("berth-oci");
        text += &format!(
            "\n- {} seccomp profile: berth-oci takes 1/{} of runc's time, 1/{} of crun's",
            if seccomp { "with the" } else { "without a" },
            number(total("runc") / ours),
            number(total("crun") / ours)
        );
    }
    text + "\n"
}

//! `bench logs`: a container prints as fast as it can into a file that is kept for it and rotated. How much a second, and what
//! a core would carry if keeping logs were all it did.

use crate::Common;
use crate::client::Client;
use crate::error::{BenchError, Context, Result, ensure};
use crate::side::{Kind, Lab};
use crate::storm::progress;
use crate::table::{Table, number};
use berth_wire::v1::{ContainerSpec, DeleteRequest, LogFormat, RunRequest, Stdio, StdioLog, WaitRequest, stdio};
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// How much is printed, in MiB
    #[arg(long, default_value_t = 1024)]
    megabytes: usize,
    /// Length of a line with its newline
    #[arg(long, default_value_t = 100)]
    line: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            megabytes: 1024,
            line: 100,
        }
    }
}

const FORMATS: [LogFormat; 3] = [LogFormat::Cri, LogFormat::Json, LogFormat::Plain];

/// The file that the container prints over and over.
const PIECE_MIB: usize = 16;

#[derive(Serialize, Deserialize)]
pub struct Row {
    format: String,
    gb_per_s: f64,
    gb_per_core_s: f64,
    lines_per_s: f64,
}

pub async fn run(common: &Common, options: &Options) -> Result<()> {
    ensure(options.line > 1, || "a line has at least two bytes".to_owned())?;
    let lab = Lab::make(common)?;
    let runtime = common.runtimes.last().map_or("crun", String::as_str);
    let line = format!("{}\n", "x".repeat(options.line - 1));
    std::fs::write(
        lab.rootfs().join("lines"),
        line.repeat((PIECE_MIB << 20) / options.line),
    )?;
    println!(
        "\n### Logs: {} MiB in lines of {} bytes, on tmpfs, rotated at 10 MiB\n",
        options.megabytes, options.line
    );
    let mut rows = Vec::new();
    let formats = if common.measures(Kind::Berth) {
        &FORMATS[..]
    } else {
        &[]
    };
    for &format in formats {
        progress(&format!("logs: {format:?}"));
        rows.push(
            ours(&lab, options, runtime, format)
                .await
                .context(format_args!("{format:?}"))?,
        );
    }
    if common.measures(Kind::Containerd) {
        progress("logs: containerd");
        rows.push(theirs(&lab, options, runtime).await.context("containerd")?);
    }
    progress("");
    println!("{}", text(&rows));
    common.keep("logs", &rows)
}

pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new(&["format", "GB/s", "GB/s per core", "million lines/s"]);
    for row in rows {
        table.row([
            row.format.clone(),
            number(row.gb_per_s),
            number(row.gb_per_core_s),
            number(row.lines_per_s / 1e6),
        ]);
    }
    table.text()
}

fn script(options: &Options) -> String {
    format!(
        "i=0; while [ $i -lt {} ]; do cat /lines; i=$((i+1)); done",
        options.megabytes.div_ceil(PIECE_MIB)
    )
}

fn row(options: &Options, format: String, wall_s: f64, cpu_s: f64) -> Row {
    let pieces = options.megabytes.div_ceil(PIECE_MIB);
    let lines = (pieces * ((PIECE_MIB << 20) / options.line)) as f64;
    let gigabytes = lines * options.line as f64 / 1e9;
    Row {
        format,
        gb_per_s: gigabytes / wall_s,
        gb_per_core_s: gigabytes / cpu_s,
        lines_per_s: lines / wall_s,
    }
}

async fn ours(lab: &Lab, options: &Options, runtime: &str, format: LogFormat) -> Result<Row> {
    let mut side = lab.side(Kind::Berth, runtime).await?;
    let Client::Berth(mut client) = side.start().await?.client else {
        return Err(BenchError::new("not Berth"));
    };
    let bundle = side.bundle("printer", &["sh", "-c", &script(options)])?;
    let log = StdioLog {
        format: format.into(),
        ..Default::default()
    };
    let container = ContainerSpec {
        id: bundle.id.clone(),
        bundle: bundle.path.to_string_lossy().into_owned(),
        stdio: Some(Stdio {
            to: Some(stdio::To::Log(log)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let cpu = side.cgroup.cpu_of_daemon()?;
    let begin = Instant::now();
    client
        .run(RunRequest {
            container: Some(container),
            ..Default::default()
        })
        .await?;
    let exit = client
        .wait(WaitRequest {
            id: bundle.id.clone(),
            ..Default::default()
        })
        .await?
        .into_inner()
        .exit;
    let wall_s = begin.elapsed().as_secs_f64();
    let cpu_s = (side.cgroup.cpu_of_daemon()? - cpu).as_secs_f64();
    ensure(exit.as_ref().is_some_and(|exit| exit.code == 0), || {
        format!("the printer ended with {exit:?}")
    })?;
    client
        .delete(DeleteRequest {
            id: bundle.id,
            ..Default::default()
        })
        .await?;
    side.stop().await?;
    Ok(row(
        options,
        format!("berth, {}", format!("{format:?}").to_lowercase()),
        wall_s,
        cpu_s,
    ))
}

/// containerd's `file://`: the bytes as they come into one file, without rotation.
async fn theirs(lab: &Lab, options: &Options, runtime: &str) -> Result<Row> {
    let mut side = lab.side(Kind::Containerd, runtime).await?;
    let Client::Containerd(client) = side.start().await?.client else {
        return Err(BenchError::new("not containerd"));
    };
    let bundle = side.bundle("printer", &["sh", "-c", &script(options)])?;
    let file = side.work.join("log");
    let cpu = side.cgroup.cpu_of_daemon()?;
    let begin = Instant::now();
    // Both streams: its shim crashes when one has a file and the other nothing.
    let uri = format!("file://{}", file.display());
    client.start(&bundle, uri.clone(), uri).await?;
    client.finish(&bundle.id).await?;
    let wall_s = begin.elapsed().as_secs_f64();
    let cpu_s = (side.cgroup.cpu_of_daemon()? - cpu).as_secs_f64();
    side.stop().await?;
    std::fs::remove_file(&file)?;
    Ok(row(
        options,
        "containerd, file:// (plain, not rotated)".into(),
        wall_s,
        cpu_s,
    ))
}

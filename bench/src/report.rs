//! `--report`: the figures that the runs have left in the output folder, as a page of tables, plots and the raw numbers.

use crate::error::{Context, Result};
use crate::side::Kind;
use crate::storm::Row;
use crate::svg::{self, Axis, Line, Scale};
use crate::{api, exec, floor, logs, memory, restart, storm};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Writes `to`/README.md, its plots and a copy of the JSON. What was not measured is left out.
pub fn write(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut page = head();
    let report = Report { from, to };
    if let Some(rows) = report.take::<Vec<Row>>("storm")? {
        for (name, svg) in plots(&rows) {
            let file = format!("{name}.svg");
            std::fs::write(to.join(&file), svg)?;
            page += &format!("![{name}]({file})\n\n");
        }
        let mut runtimes: Vec<&str> = rows.iter().map(|row| row.runtime.as_str()).collect();
        runtimes.dedup();
        for runtime in runtimes {
            let of: Vec<Row> = rows.iter().filter(|row| row.runtime == runtime).cloned().collect();
            page += &section(&format!("Starts, Berth with {runtime}"), "storm", &storm::text(&of));
        }
    }
    if let Some(rows) = report.take::<Vec<floor::Row>>("floor")? {
        let title = "A lone container: create, start and delete by the runtimes alone";
        page += &section(title, "floor", &floor::text(&rows));
    }
    if let Some(rows) = report.take::<Vec<exec::Row>>("exec")? {
        page += &section("Commands in a running container", "exec", &exec::text(&rows));
    }
    if let Some(rows) = report.take::<memory::Rows>("memory")? {
        page += &section("Memory", "memory", &memory::text(&rows));
    }
    if let Some(rows) = report.take::<Vec<restart::Row>>("restart")? {
        page += &section("Restart after SIGKILL of the daemon", "restart", &restart::text(&rows));
    }
    if let Some(rows) = report.take::<Vec<logs::Row>>("logs")? {
        let title = "Logs: lines of 100 bytes, on tmpfs, rotated at 10 MiB";
        page += &section(title, "logs", &logs::text(&rows));
    }
    if let Some(rows) = report.take::<api::Rows>("api")? {
        page += &section("Through containerd's API", "api", &api::text(&rows));
    }
    std::fs::write(to.join("README.md"), page)?;
    println!("(report in {})", to.display());
    Ok(())
}

struct Report<'a> {
    from: &'a Path,
    to: &'a Path,
}

impl Report<'_> {
    /// The rows of a run, which are copied as they are; `None` if there was none.
    fn take<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let file = format!("{name}.json");
        let path = self.from.join(&file);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display()),
        };
        let rows = serde_json::from_slice(&bytes).context(path.display())?;
        std::fs::write(self.to.join(&file), bytes)?;
        Ok(Some(rows))
    }
}

fn section(title: &str, name: &str, text: &str) -> String {
    format!("## {title}\n\n`./dev bench {name}`, [raw]({name}.json)\n\n{text}\n")
}

/// What it was measured on.
fn head() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    let groups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "cgroup v2"
    } else {
        "cgroup v1"
    };
    format!(
        "# Figures\n\n\
         Written by `./dev bench --report` from the raw numbers beside this page. The machine: {cores} cores, {:.0} GiB, Linux {}, {groups}; \
         everything on one tmpfs, the sides of a table interleaved in one run. Absolute figures are this machine's; the ratios within one \
         table mean something. Up to 100 containers: the median of the rounds; more: one round. Berth's containers and the others' are \
         compared before: what differs is printed by the run.\n\n",
        memory.unwrap_or(0.0) / (1 << 20) as f64,
        kernel.trim()
    )
}

fn plots(rows: &[Row]) -> Vec<(&'static str, String)> {
    // The first runtime that was measured, without extras.
    let Some(runtime) = rows.first().map(|row| row.runtime.as_str()) else {
        return Vec::new();
    };
    let plain = |row: &&Row| row.runtime == runtime && !row.load.fifo && !row.load.seccomp;
    let rows: Vec<&Row> = rows.iter().filter(plain).collect();
    let least = rows.iter().map(|row| row.load.count).min().unwrap_or(0);
    let mut names: Vec<String> = Vec::new();
    for row in &rows {
        let name = row.who.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let series = |points: &dyn Fn(&Row) -> Vec<(f64, f64)>| {
        let lines = names.iter().map(|name| {
            let of = rows.iter().filter(|row| row.who.to_string() == *name);
            let mut points: Vec<(f64, f64)> = of.flat_map(|row| points(row)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line {
                name: name.clone(),
                points,
            }
        });
        lines.filter(|line| !line.points.is_empty()).collect::<Vec<_>>()
    };
    let axis = |name, scale| Axis { name, scale };
    let rate = series(&|row| match row.load.count == least {
        true => vec![(row.load.in_flight as f64, row.per_s)],
        false => Vec::new(),
    });
    let latency = series(&|row| match row.load.count == least && row.load.in_flight == 10 {
        true => (0..)
            .map(f64::from)
            .zip(&row.percentiles_ms)
            .map(|(percent, ms)| (*ms, percent))
            .collect(),
        false => Vec::new(),
    });
    let memory = series(&|row| {
        let of = row.memory.iter().filter(|_| row.load.in_flight == 10);
        let mib = |kib: f64| kib / 1024.0;
        of.map(|memory| {
            let containers = memory.containers as f64;
            (
                containers,
                mib(memory.pss_kib_each * containers + memory.daemon_pss_kib),
            )
        })
        .collect()
    });
    let mut plots = vec![
        (
            "rate",
            svg::lines(
                "Starts per second",
                &axis("requests in flight", Scale::Log),
                &axis("starts/s", Scale::Linear),
                &rate,
            ),
        ),
        (
            "latency",
            svg::lines(
                "From the request to the answer, 10 in flight",
                &axis("milliseconds", Scale::Log),
                &axis("percent of the starts", Scale::Linear),
                &latency,
            ),
        ),
        (
            "memory",
            svg::lines(
                "Memory of the daemon and of all that looks after containers",
                &axis("containers", Scale::Log),
                &axis("MiB (PSS)", Scale::Log),
                &memory,
            ),
        ),
    ];
    let lone = rows
        .iter()
        .filter(|row| row.who.side == Kind::Berth && row.load.count == least);
    if let Some(row) = lone.min_by_key(|row| row.load.in_flight) {
        let title = format!("Stages of a start, {} in flight (mean)", row.load.in_flight);
        plots.push(("stages", svg::bars(&title, "ms", &row.stages_ms)));
    }
    plots
}

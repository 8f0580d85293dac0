//! What is only told: lists, processes, use of resources, features.

use std::path::Path;
use std::time::Duration;

use berth_oci::{Container, Event, Status};
use serde_json::{Value, json};

use crate::calls::load;
use crate::log::Failure;

pub fn list(root: &Path, format: &str, quiet: bool) -> Result<i32, Failure> {
    let mut rows: Vec<(Container, Status)> = Vec::new();
    for id in berth_oci::list(root)? {
        // One that is just being made or removed is not there.
        if let Ok(container) = Container::load(root, &id)
            && let Ok(status) = container.status()
        {
            rows.push((container, status));
        }
    }
    match (quiet, format) {
        (true, _) => rows.iter().for_each(|(container, _)| println!("{}", container.id)),
        (false, "json") => {
            let all: Vec<Value> = rows
                .iter()
                .filter_map(|(container, status)| container.describe(*status).ok())
                .collect();
            println!("{}", json!(all));
        }
        (false, _) => {
            println!("{:<24} {:<10} {:<10} BUNDLE", "ID", "PID", "STATUS");
            for (container, status) in &rows {
                let pid = if *status == Status::Stopped { 0 } else { container.pid };
                println!(
                    "{:<24} {pid:<10} {:<10} {}",
                    container.id,
                    status.name(),
                    container.bundle.display()
                );
            }
        }
    }
    Ok(0)
}

pub fn ps(root: &Path, id: &str, format: &str) -> Result<i32, Failure> {
    let pids = load(root, id)?.cgroups.processes().map_err(|e| Failure::new("ps", e))?;
    if format == "json" {
        println!("{}", json!(pids));
        return Ok(0);
    }
    println!("{:<10} COMMAND", "PID");
    for pid in pids {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        println!("{pid:<10} {}", name.trim_end());
    }
    Ok(0)
}

/// `features`.
pub fn features() {
    let program = concat!("berth-oci ", env!("CARGO_PKG_VERSION"));
    println!("{:#}", berth_oci::features(program));
}

/// `events`.
pub fn events(root: &Path, id: &str, stats: bool, interval: &str) -> Result<i32, Failure> {
    let container = load(root, id)?;
    let mut tell = |event: Event| {
        let line = match event {
            Event::Stats(data) => json!({ "type": "stats", "id": id, "data": data }),
            Event::Oom => json!({ "type": "oom", "id": id }),
        };
        // Nobody reads any more: no reason to go on.
        std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes()).is_ok()
    };
    if stats {
        tell(Event::Stats(container.stats()?));
        return Ok(0);
    }
    let wrong = || Failure::new("--interval", format!("{interval:?}: a time such as 500ms, 5s or 1m"));
    let interval = duration(interval).filter(|time| !time.is_zero()).ok_or_else(wrong)?;
    container.watch(interval, &mut tell)?;
    Ok(0)
}

/// One number and one unit of Go's durations, which is what callers of runc write.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("1.5m"), Some(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "5", "s", "5 s", "-1s", "1.2.3s", "5d"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }
}

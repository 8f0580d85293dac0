//! `update`: new limits, from a file or from flags.

use std::io::Read;
use std::path::Path;

use berth_oci::oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::args::Update;
use crate::calls::load;
use crate::log::Failure;

pub fn update(root: &Path, update: &Update) -> Result<i32, Failure> {
    let container = load(root, &update.id)?;
    let resources: LinuxResources = match &update.resources {
        Some(path) => {
            let mut text = Vec::new();
            let read = if path == Path::new("-") {
                std::io::stdin().take(1 << 20).read_to_end(&mut text)
            } else {
                std::fs::File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut text))
            };
            read.map_err(|e| Failure::new(&path.display().to_string(), e))?;
            serde_json::from_slice(&text).map_err(|e| Failure::new(&path.display().to_string(), e))?
        }
        None => {
            let mut all = json!({});
            let mut put = |group: &str, name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    all[group][name] = value;
                }
            };
            put("memory", "limit", update.memory.map(Value::from));
            put("memory", "swap", update.memory_swap.map(Value::from));
            put("cpu", "shares", update.cpu_share.map(Value::from));
            put("cpu", "period", update.cpu_period.map(Value::from));
            put("cpu", "quota", update.cpu_quota.map(Value::from));
            put("cpu", "burst", update.cpu_burst.map(Value::from));
            put("cpu", "idle", update.cpu_idle.map(Value::from));
            put("cpu", "realtimePeriod", update.cpu_rt_period.map(Value::from));
            put("cpu", "realtimeRuntime", update.cpu_rt_runtime.map(Value::from));
            put("blockIO", "weight", update.blkio_weight.map(Value::from));
            put("memory", "reservation", update.memory_reservation.map(Value::from));
            put("cpu", "cpus", update.cpuset_cpus.clone().map(Value::from));
            put("cpu", "mems", update.cpuset_mems.clone().map(Value::from));
            put("pids", "limit", update.pids_limit.map(Value::from));
            serde_json::from_value(all).map_err(|e| Failure::new("update", e))?
        }
    };
    container.update(&resources)?;
    Ok(0)
}

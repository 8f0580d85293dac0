//! What a container uses, read from cgroups in the form of runc's `events --stats`, which containerd and others parse.
//! What a kernel lacks is left at zero.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// `folder`: the container's folder of a controller.
pub(super) fn v1<'a>(folder: &dyn Fn(&str) -> Option<&'a Path>) -> Value {
    json!({
        "cpu": cpu(folder),
        "cpuset": folder("cpuset").map(cpuset).unwrap_or_default(),
        "memory": folder("memory").map(memory).unwrap_or_default(),
        "pids": folder("pids").map_or_else(
            || json!({}),
            |folder| json!({ "current": number(folder, "pids.current"), "limit": number(folder, "pids.max") }),
        ),
        "blkio": folder("blkio").map_or_else(|| json!({}), blkio),
        "hugetlb": folder("hugetlb").map_or_else(|| json!({}), hugetlb),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// The same of a group of cgroup v2; `psi` is the pressure that its processes felt.
pub(super) fn v2(folder: &Path) -> Value {
    let cpu = text(folder, "cpu.stat");
    let nanos = |key| keyed(&cpu, key).saturating_mul(1000);
    let stat = text(folder, "memory.stat");
    let raw = stat.lines().filter_map(|line| line.split_once(' '));
    let raw: Map<String, Value> = raw
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value.trim().parse::<u64>().ok()?))))
        .collect();
    // 2^64-1 for `max`, as runc says it here.
    let limit = |file: &str| text(folder, file).trim().parse().unwrap_or(u64::MAX);
    let events = text(folder, "memory.events");
    // v1's word is memory and swap together.
    let (memory, swap) = (number(folder, "memory.current"), number(folder, "memory.swap.current"));
    let (memory_limit, swap_limit): (u64, u64) = (limit("memory.max"), limit("memory.swap.max"));
    let list = |file| crate::plan::number_list(text(folder, file).trim()).unwrap_or_default();
    json!({
        "cpu": {
            "usage": { "total": nanos("usage_usec"), "kernel": nanos("system_usec"), "user": nanos("user_usec") },
            "throttling": {
                "periods": keyed(&cpu, "nr_periods"),
                "throttledPeriods": keyed(&cpu, "nr_throttled"),
                "throttledTime": nanos("throttled_usec"),
            },
            "psi": pressure(folder, "cpu.pressure"),
        },
        "cpuset": { "cpus": list("cpuset.cpus.effective"), "mems": list("cpuset.mems.effective") },
        "memory": {
            "cache": keyed(&stat, "file"),
            "usage": {
                "limit": memory_limit,
                "usage": memory,
                "max": number(folder, "memory.peak"),
                "failcnt": keyed(&events, "max"),
            },
            "swap": {
                "limit": memory_limit.saturating_add(swap_limit),
                "usage": memory.saturating_add(swap),
                "max": 0,
                "failcnt": 0,
            },
            "raw": raw,
            "psi": pressure(folder, "memory.pressure"),
        },
        "pids": { "current": number(folder, "pids.current"), "limit": number(folder, "pids.max") },
        "blkio": io(folder),
        "hugetlb": hugetlb_v2(folder),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(folder: &Path, file: &str) -> Value {
    let text = text(folder, file);
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |key: &str| {
            let mut words = rest.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let average = |key| value(key).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        let total = value("total").and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        Some(json!({
            "avg10": average("avg10"), "avg60": average("avg60"), "avg300": average("avg300"), "total": total,
        }))
    };
    match (line("some"), line("full")) {
        (None, None) => Value::Null,
        (some, full) => json!({ "some": some, "full": full }),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` lines.
fn io(folder: &Path) -> Value {
    let text = text(folder, "io.stat");
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let number = |word: &str| word.parse::<u64>().ok();
        let Some((Some(major), Some(minor))) = device.map(|(major, minor)| (number(major), number(minor))) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (into, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            if let Some(value) = number(value) {
                into.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
            }
        }
    }
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations })
}

fn hugetlb_v2(folder: &Path) -> Value {
    let mut all = Map::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(".current"));
        let Some(size) = size.filter(|size| !size.ends_with(".rsvd")) else {
            continue;
        };
        let failed = keyed(&text(folder, &format!("hugetlb.{size}.events")), "max");
        all.insert(
            size.to_owned(),
            json!({ "usage": number(folder, &name), "max": 0, "failcnt": failed }),
        );
    }
    Value::from(all)
}

fn text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// 0 for `max`, as runc says it.
fn number(folder: &Path, file: &str) -> u64 {
    text(folder, file).trim().parse().unwrap_or(0)
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// `key value` lines.
fn keyed(text: &str, key: &str) -> u64 {
    let find = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(find).unwrap_or(0)
}

fn cpu<'a>(folder: &dyn Fn(&str) -> Option<&'a Path>) -> Value {
    let mut usage = json!({ "total": 0, "kernel": 0, "user": 0 });
    if let Some(folder) = folder("cpuacct") {
        let per_tick = 1_000_000_000 / berth_sys::time::ticks_per_second().max(1);
        let stat = text(folder, "cpuacct.stat");
        // A heading, then a line a CPU: its number, user, system.
        let all = text(folder, "cpuacct.usage_all");
        let column = |at: usize| -> Vec<u64> {
            let lines = all.lines().skip(1).map(numbers);
            lines.filter_map(|line| line.get(at).copied()).collect()
        };
        usage = json!({
            "total": number(folder, "cpuacct.usage"),
            "percpu": numbers(&text(folder, "cpuacct.usage_percpu")),
            "percpu_kernel": column(2),
            "percpu_user": column(1),
            "kernel": keyed(&stat, "system") * per_tick,
            "user": keyed(&stat, "user") * per_tick,
        });
    }
    let stat = folder("cpu").map(|folder| text(folder, "cpu.stat")).unwrap_or_default();
    json!({
        "usage": usage,
        "throttling": {
            "periods": keyed(&stat, "nr_periods"),
            "throttledPeriods": keyed(&stat, "nr_throttled"),
            "throttledTime": keyed(&stat, "throttled_time"),
        },
    })
}

fn cpuset(folder: &Path) -> Value {
    let list = |file| crate::plan::number_list(text(folder, file).trim()).unwrap_or_default();
    let flag = |file| number(folder, file);
    json!({
        "cpus": list("cpuset.cpus"),
        "cpu_exclusive": flag("cpuset.cpu_exclusive"),
        "mems": list("cpuset.mems"),
        "mem_hardwall": flag("cpuset.mem_hardwall"),
        "mem_exclusive": flag("cpuset.mem_exclusive"),
        "memory_migrate": flag("cpuset.memory_migrate"),
        "memory_spread_page": flag("cpuset.memory_spread_page"),
        "memory_spread_slab": flag("cpuset.memory_spread_slab"),
        "memory_pressure": flag("cpuset.memory_pressure"),
        "sched_load_balance": flag("cpuset.sched_load_balance"),
        "sched_relax_domain_level": text(folder, "cpuset.sched_relax_domain_level").trim().parse::<i64>().unwrap_or(0),
    })
}

fn memory(folder: &Path) -> Value {
    let entry = |kind: &str| {
        json!({
            "limit": number(folder, &format!("memory{kind}.limit_in_bytes")),
            "usage": number(folder, &format!("memory{kind}.usage_in_bytes")),
            "max": number(folder, &format!("memory{kind}.max_usage_in_bytes")),
            "failcnt": number(folder, &format!("memory{kind}.failcnt")),
        })
    };
    let stat = text(folder, "memory.stat");
    let raw = stat.lines().filter_map(|line| line.split_once(' '));
    let raw: Map<String, Value> = raw
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value.trim().parse::<u64>().ok()?))))
        .collect();
    json!({
        "cache": keyed(&stat, "cache"),
        "usage": entry(""),
        "swap": entry(".memsw"),
        "kernel": entry(".kmem"),
        "kernelTCP": entry(".kmem.tcp"),
        "raw": raw,
    })
}

/// `8:0 Read 4096` lines; the last, a sum, has no device.
fn blkio(folder: &Path) -> Value {
    let entries = |files: &[&str]| -> Vec<Value> {
        let text = files
            .iter()
            .map(|file| text(folder, file))
            .find(|text| text.contains(':'));
        let line = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = match (words.next()?, words.next()) {
                (op, Some(value)) => (op, value),
                (value, None) => ("", value),
            };
            Some(json!({
                "major": major.parse::<u64>().ok()?,
                "minor": minor.parse::<u64>().ok()?,
                "op": op,
                "value": value.parse::<u64>().ok()?,
            }))
        };
        text.iter().flat_map(|text| text.lines()).filter_map(line).collect()
    };
    let kinds = [
        ("ioServiceBytesRecursive", "io_service_bytes"),
        ("ioServicedRecursive", "io_serviced"),
        ("ioQueueRecursive", "io_queued"),
        ("ioServiceTimeRecursive", "io_service_time"),
        ("ioWaitTimeRecursive", "io_wait_time"),
        ("ioMergedRecursive", "io_merged"),
        ("ioTimeRecursive", "time"),
        ("sectorsRecursive", "sectors"),
    ];
    let mut all = Map::new();
    for (name, file) in kinds {
        let bfq = format!("blkio.bfq.{file}_recursive");
        let plain = format!("blkio.{file}_recursive");
        let throttle = format!("blkio.throttle.{file}_recursive");
        let found = entries(&[&bfq, &plain, &throttle]);
        if !found.is_empty() {
            all.insert(name.to_owned(), Value::from(found));
        }
    }
    Value::from(all)
}

fn hugetlb(folder: &Path) -> Value {
    let mut all = Map::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(".usage_in_bytes"));
        let Some(size) = size.filter(|size| !size.ends_with(".rsvd")) else {
            continue;
        };
        let value = |file: &str| number(folder, &format!("hugetlb.{size}.{file}"));
        all.insert(
            size.to_owned(),
            json!({ "usage": value("usage_in_bytes"), "max": value("max_usage_in_bytes"), "failcnt": value("failcnt") }),
        );
    }
    Value::from(all)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_recorded_group_of_v2_is_told_as_runc_tells_it() {
        let folder = std::env::temp_dir().join(format!("berth-oci-stats2-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let files = [
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\nthrottled_usec 4\n",
            ),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "1\n"),
            ("memory.stat", "anon 1\nfile 512\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
        let all = v2(&folder);
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(
            all["cpu"]["usage"],
            json!({ "total": 5000, "kernel": 2000, "user": 3000 })
        );
        assert_eq!(
            (&all["cpu"]["psi"]["some"]["total"], &all["cpu"]["psi"]["some"]["avg10"]),
            (&json!(77), &json!(1.5))
        );
        assert_eq!(all["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(
            (&all["memory"]["swap"]["usage"], &all["memory"]["cache"]),
            (&json!(4097), &json!(512))
        );
        assert_eq!(all["blkio"]["ioServicedRecursive"][1]["value"], 4);
    }

    #[test]
    fn a_recorded_group_is_told_as_runc_tells_it() {
        let folder = std::env::temp_dir().join(format!("berth-oci-stats-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let files = [
            ("cpuacct.usage", "5000\n"),
            ("cpuacct.usage_percpu", "2000 3000 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 1500 500\n1 2000 1000\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 3\nthrottled_time 2\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.stat", "cache 512\nrss 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpuset.cpus", "0-1\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:16 Read 4096\nTotal 4096\n",
            ),
            ("hugetlb.2MB.usage_in_bytes", "7\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "9\n"),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
        let all = v1(&|_| Some(folder.as_path()));
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(all["cpu"]["usage"]["percpu_kernel"], json!([500, 1000]));
        assert_eq!(all["cpu"]["throttling"]["throttledPeriods"], 3);
        assert_eq!(all["memory"]["usage"]["usage"], 4096);
        assert_eq!(all["memory"]["raw"], json!({ "cache": 512, "rss": 1 }));
        assert_eq!(all["pids"], json!({ "current": 3, "limit": 0 }));
        assert_eq!(all["cpuset"]["cpus"], json!([0, 1]));
        assert_eq!(
            all["blkio"],
            json!({ "ioServiceBytesRecursive": [{ "major": 8, "minor": 16, "op": "Read", "value": 4096 }] })
        );
        assert_eq!(all["hugetlb"], json!({ "2MB": { "usage": 7, "max": 0, "failcnt": 0 } }));
    }
}

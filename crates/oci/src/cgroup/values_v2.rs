//! From the resources of config.json, which speak cgroup v1, to files and values of cgroup v2; conversions as runc does them.
//!
//! What v2 has no word for (swappiness, kernel memory, real-time scheduling, network classes) is passed over, as runc does.

use std::io;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use crate::error::OciError;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub file: String,
    pub value: String,
    /// A kernel that does not know the file does what is asked anyway.
    pub optional: bool,
}

fn write(file: impl Into<String>, value: impl ToString) -> Write {
    Write {
        file: file.into(),
        value: value.to_string(),
        optional: false,
    }
}

/// What the cgroup's files say now: an update may name one half of a pair.
pub(super) trait Now {
    fn read(&self, file: &str) -> io::Result<String>;
    fn exists(&self, file: &str) -> bool {
        self.read(file).is_ok()
    }
}

/// All writes but the devices, in order.
///
/// # Errors
/// A value that can't be converted; `memory.checkBeforeUpdate` and more in use than the new limit.
pub(super) fn writes(resources: &LinuxResources, now: &impl Now) -> Result<Vec<Write>, OciError> {
    let mut all = Vec::new();
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let value = if limit > 0 { limit.to_string() } else { "max".into() };
        all.push(write("pids.max", value));
    }
    if let Some(value) = resources.memory() {
        memory(value, now, &mut all)?;
    }
    if let Some(value) = resources.block_io() {
        block_io(value, now, &mut all);
    }
    if let Some(value) = resources.cpu() {
        cpu(value, now, &mut all);
    }
    for page in resources.hugepage_limits().iter().flatten() {
        all.push(write(format!("hugetlb.{}.max", page.page_size()), page.limit()));
        let reserved = write(format!("hugetlb.{}.rsvd.max", page.page_size()), page.limit());
        all.push(Write {
            optional: true,
            ..reserved
        });
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let handles = limits.hca_handles().map(|n| format!(" hca_handle={n}"));
        let objects = limits.hca_objects().map(|n| format!(" hca_object={n}"));
        let value = format!("{device}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
        all.push(write("rdma.max", value));
    }
    unified(resources, &mut all)?;
    Ok(all)
}

/// Written as they are, a line a write, in the order of their names: `unified` is a map.
fn unified(resources: &LinuxResources, all: &mut Vec<Write>) -> Result<(), OciError> {
    let mut keys: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    keys.sort_unstable();
    for (file, value) in keys {
        if file.is_empty() || file.contains('/') || file.starts_with("cgroup.procs") {
            let field = format!("linux.resources.unified.{file}");
            return Err(OciError::field(
                field,
                format!("{value:?}"),
                "the name of a file of the cgroup",
            ));
        }
        let lines = value.lines().filter(|line| !line.is_empty());
        all.extend(lines.map(|line| write(file, line)));
    }
    Ok(())
}

/// v1's word for "as much as there is" is -1.
fn amount(value: i64) -> Option<String> {
    match value {
        0 => None,
        -1 => Some("max".to_owned()),
        value => Some(value.to_string()),
    }
}

fn memory(memory: &LinuxMemory, now: &impl Now, all: &mut Vec<Write>) -> Result<(), OciError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if memory.check_before_update() == Some(true)
        && let Some(limit) = limit.filter(|limit| *limit > 0)
        && let Some(used) = now
            .read("memory.current")
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
        && used > limit
    {
        let allowed = format!("more than the {used} bytes in use (memory.checkBeforeUpdate)");
        return Err(OciError::field("linux.resources.memory.limit", limit, allowed));
    }
    let before = || {
        let text = now.read("memory.max").ok()?;
        Some(text.trim().parse().unwrap_or(-1))
    };
    if let Some(swap) = swap(memory.swap().unwrap_or(0), limit, before)? {
        // A kernel without swap accounting has no such file, and neither needs it for these two.
        let optional = swap == "max" || swap == "0";
        let swap = write("memory.swap.max", swap);
        all.push(Write { optional, ..swap });
    }
    let limits = [("memory.max", limit), ("memory.low", memory.reservation())];
    all.extend(
        limits
            .into_iter()
            .filter_map(|(file, value)| Some(write(file, amount(value?)?))),
    );
    Ok(())
}

/// v1 limits memory and swap together, v2 swap alone.
fn swap(both: i64, limit: Option<i64>, before: impl Fn() -> Option<i64>) -> Result<Option<String>, OciError> {
    if both == 0 {
        // Without a limit of memory there is none of swap either, as in v1.
        return Ok((limit == Some(-1)).then(|| "max".to_owned()));
    }
    if both == -1 {
        return Ok(Some("max".to_owned()));
    }
    let field = "linux.resources.memory.swap";
    let Some(limit) = limit.or_else(before).filter(|limit| *limit > 0) else {
        return Err(OciError::field(
            field,
            both,
            "only with a limit of memory: it counts both",
        ));
    };
    match both - limit {
        less if less < 0 => Err(OciError::field(
            field,
            both,
            format!("at least memory.limit ({limit}): it counts both"),
        )),
        swap => Ok(Some(swap.to_string())),
    }
}

fn cpu(cpu: &LinuxCpu, now: &impl Now, all: &mut Vec<Write>) {
    if let Some(idle) = cpu.idle() {
        all.push(write("cpu.idle", idle));
    }
    if let Some(weight) = cpu.shares().and_then(cpu_weight) {
        all.push(write("cpu.weight", weight));
    }
    let burst = cpu.burst().map(|burst| write("cpu.max.burst", burst));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let old = now.read("cpu.max").unwrap_or_default();
        let mut old = old.split_whitespace();
        let (old_quota, old_period) = (old.next().unwrap_or("max"), old.next().unwrap_or("100000"));
        let quota = quota.map(|quota| if quota > 0 { quota.to_string() } else { "max".to_owned() });
        let period = period.map(|period| period.to_string());
        let value = format!(
            "{} {}",
            quota.as_deref().unwrap_or(old_quota),
            period.as_deref().unwrap_or(old_period)
        );
        // The kernel holds burst ≤ quota at every moment: a lower burst goes first, a higher one last.
        let max = write("cpu.max", value);
        let lower = burst.as_ref().is_some_and(|burst| {
            let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
            number(&burst.value) <= number(&now.read("cpu.max.burst").unwrap_or_default())
        });
        match burst {
            Some(burst) if lower => all.extend([burst, max]),
            burst => all.extend([Some(max), burst].into_iter().flatten()),
        }
    } else {
        all.extend(burst);
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|list| !list.is_empty()) {
        all.push(write("cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|list| !list.is_empty()) {
        all.push(write("cpuset.mems", mems));
    }
}

/// 2 … 262144 to 1 … 10000 so that 1024, v1's default, becomes 100, v2's.
pub(super) fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            // Below 2^18, so exact.
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

/// 10 … 1000 to 1 … 10000.
pub(super) fn io_weight(weight: u16) -> Option<u64> {
    (weight != 0).then(|| 1 + u64::from(weight.max(10) - 10) * 9999 / 990)
}

fn block_io(io: &LinuxBlockIo, now: &impl Now, all: &mut Vec<Write>) {
    // Where the BFQ scheduler is there, its weight is v1's.
    let bfq = now.exists("io.bfq.weight");
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        match io_weight(weight) {
            Some(converted) if !bfq => all.push(write("io.weight", converted)),
            _ => all.push(write("io.bfq.weight", weight)),
        }
    }
    for device in io.weight_device().iter().flatten() {
        let Some(weight) = device.weight().filter(|weight| *weight != 0) else {
            continue;
        };
        let (file, weight) = match io_weight(weight) {
            Some(converted) if !bfq => ("io.weight", converted),
            _ => ("io.bfq.weight", weight.into()),
        };
        all.push(write(file, format!("{}:{} {weight}", device.major(), device.minor())));
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            // 0 takes v1's limit away.
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.push(write("io.max", value));
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    struct Files(Vec<(&'static str, &'static str)>);

    impl Now for Files {
        fn read(&self, file: &str) -> io::Result<String> {
            let found = self.0.iter().find(|(name, _)| *name == file);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn texts(resources: &str, files: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
        let resources: LinuxResources = serde_json::from_str(resources).expect("resources");
        let all = writes(&resources, &Files(files.to_vec())).map_err(|error| error.to_string())?;
        Ok(all.iter().map(|w| format!("{}={}", w.file, w.value)).collect())
    }

    /// The values that runc's own conversion gives.
    #[test]
    fn shares_become_weights_as_runc_makes_them() {
        let cases = [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (100, Some(17)),
            (512, Some(59)),
            (1024, Some(100)),
            (2048, Some(174)),
            (10_000, Some(627)),
            (262_144, Some(10_000)),
            (1 << 40, Some(10_000)),
        ];
        for (shares, weight) in cases {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert_eq!(
            [10, 100, 500, 1000].map(|w| io_weight(w).expect("a weight")),
            [1, 910, 4950, 10_000]
        );
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        let both = |memory: &str| texts(&format!(r#"{{"memory":{memory}}}"#), &[("memory.max", "1000\n")]);
        assert_eq!(
            both(r#"{"limit":100,"swap":300}"#).expect("legal"),
            ["memory.swap.max=200", "memory.max=100"]
        );
        assert_eq!(
            both(r#"{"limit":-1}"#).expect("legal"),
            ["memory.swap.max=max", "memory.max=max"]
        );
        assert_eq!(
            both(r#"{"limit":100,"swap":100,"reservation":50}"#).expect("legal"),
            ["memory.swap.max=0", "memory.max=100", "memory.low=50"]
        );
        // An update of one of the two.
        assert_eq!(both(r#"{"swap":1500}"#).expect("legal"), ["memory.swap.max=500"]);
        assert!(
            both(r#"{"limit":100,"swap":50}"#)
                .expect_err("less")
                .contains("at least memory.limit")
        );
    }

    #[test]
    fn a_limit_below_the_use_is_refused_when_asked_for() {
        let update = |check: bool| {
            let text = format!(r#"{{"memory":{{"limit":100,"checkBeforeUpdate":{check}}}}}"#);
            texts(&text, &[("memory.current", "101\n")])
        };
        assert!(update(true).expect_err("in use").contains("101 bytes in use"));
        assert_eq!(update(false).expect("not asked"), ["memory.max=100"]);
    }

    #[test]
    fn half_a_quota_keeps_the_other_half() {
        let files = [("cpu.max", "5000 10000\n"), ("cpu.max.burst", "0\n")];
        let cpu = |cpu: &str| texts(&format!(r#"{{"cpu":{cpu}}}"#), &files).expect("legal");
        assert_eq!(cpu(r#"{"quota":-1}"#), ["cpu.max=max 10000"]);
        assert_eq!(cpu(r#"{"period":20000}"#), ["cpu.max=5000 20000"]);
        assert_eq!(
            cpu(r#"{"quota":7000,"burst":6000}"#),
            ["cpu.max=7000 10000", "cpu.max.burst=6000"]
        );
        assert_eq!(
            cpu(r#"{"quota":7000,"burst":0}"#),
            ["cpu.max.burst=0", "cpu.max=7000 10000"]
        );
    }

    #[test]
    fn devices_are_throttled_by_key() {
        let io = r#"{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
                     "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#;
        let throttles = ["io.max=8:0 rbps=1024", "io.max=8:0 wiops=max"];
        let plain = texts(io, &[]).expect("legal");
        assert_eq!(
            (plain[0].as_str(), &plain[1..]),
            ("io.weight=4950", &throttles.map(String::from)[..])
        );
        let bfq = texts(io, &[("io.bfq.weight", "100")]).expect("legal");
        assert_eq!(bfq[0], "io.bfq.weight=500");
    }

    #[test]
    fn unified_is_written_as_it_is() {
        let text = r#"{"unified":{"memory.high":"1000","io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#;
        assert_eq!(
            texts(text, &[]).expect("legal"),
            ["io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=1000"]
        );
        assert!(texts(r#"{"unified":{"../x":"1"}}"#, &[]).is_err());
    }
}

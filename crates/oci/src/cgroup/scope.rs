//! systemd as the manager of a container's cgroup (v2): a transient scope, with the limits as its properties, so that systemd does
//! not take them back, and in the cgroup's files, as runc does both.
//!
//! Invariants: every call to systemd ends within [`PATIENCE`]; what spec annotations say of properties is refused.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::dbus::{Body, Bus, Object, Variant};
use super::v2::V2;
use super::{ROOT, values_v2};
use crate::error::{Context, OciError};

/// For one conversation with systemd.
const PATIENCE: Duration = Duration::from_secs(20);
const SOCKET: &str = "/run/dbus/system_bus_socket";
const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// Systemd's word for "no limit".
const INFINITY: u64 = u64::MAX;

#[derive(Debug)]
pub struct Scope {
    group: V2,
    unit: String,
    slice: String,
}

impl Scope {
    /// `path` is `slice:prefix:name`, or empty.
    pub(super) fn plan(path: &str, id: &str, annotations: &HashMap<String, String>) -> Result<Scope, OciError> {
        if !super::unified() {
            return Err(OciError::Unsupported {
                what: "systemd as the manager of cgroups of version 1".into(),
            });
        }
        if let Some(name) = annotations
            .keys()
            .find(|name| name.starts_with("org.systemd.property."))
        {
            let allowed = "no properties of systemd from annotations";
            return Err(OciError::field(format!("annotations.{name}"), "present", allowed));
        }
        let (slice, prefix, name) = parts(path, id)?;
        let unit = match prefix.as_str() {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let folder = Path::new(ROOT).join(expand(&slice)?).join(&unit);
        Ok(Scope {
            group: V2::at(folder),
            unit,
            slice,
        })
    }

    pub(super) fn group(&self) -> &V2 {
        &self.group
    }

    pub(super) fn make(&self) -> Result<(), OciError> {
        self.group.refuse_processes()
    }

    /// Starts the scope with this process in it, and limits it.
    pub(super) fn join(&self, pid: u32, resources: Option<&LinuxResources>) -> Result<(), OciError> {
        self.start(pid, resources).step("start by systemd", &self.unit)?;
        self.group.make_folder()?;
        self.group.limit_new(resources)
    }

    fn start(&self, pid: u32, resources: Option<&LinuxResources>) -> io::Result<()> {
        let yes = || Variant::Flag(true);
        let mut properties = vec![
            ("Description", Variant::Text(format!("Berth container {}", self.unit))),
            ("Slice", Variant::Text(self.slice.clone())),
            ("Delegate", yes()),
            ("PIDs", Variant::Numbers(vec![pid])),
            ("MemoryAccounting", yes()),
            ("CPUAccounting", yes()),
            ("IOAccounting", yes()),
            ("TasksAccounting", yes()),
            ("DefaultDependencies", Variant::Flag(false)),
            // One that ended by the OOM killer would stay, failed, and its name with it.
            ("CollectMode", Variant::Text("inactive-or-failed".into())),
        ];
        properties.extend(resources.map(limits).unwrap_or_default());
        let mut bus = connect()?;
        hear_of_jobs(&mut bus)?;
        let request = || {
            let body = Body::default().text(&self.unit).text("replace");
            body.properties(&properties).no_units()
        };
        let answer = match bus.call(MANAGER, "StartTransientUnit", request()) {
            // An earlier one of this name that has failed is in the way.
            Err(error) if error.to_string().starts_with(UNIT_EXISTS) => {
                let _ = bus.call(MANAGER, "ResetFailedUnit", Body::default().text(&self.unit));
                bus.call(MANAGER, "StartTransientUnit", request())?
            }
            other => other?,
        };
        self.wait(&mut bus, &answer.words())
    }

    /// Until the job has ended.
    fn wait(&self, bus: &mut Bus, job: &[String]) -> io::Result<()> {
        // JobRemoved(number, job, unit, result)
        let said = bus.signal("JobRemoved", |words| words.get(1) == job.first())?;
        match said.get(3).map(String::as_str) {
            Some("done") => Ok(()),
            result => Err(io::Error::other(format!(
                "the job ended: {}",
                result.unwrap_or("unknown")
            ))),
        }
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> Result<(), OciError> {
        let properties = limits(resources);
        if !properties.is_empty() {
            let body = Body::default().text(&self.unit).flag(true).properties(&properties);
            let done = connect().and_then(|mut bus| bus.call(MANAGER, "SetUnitProperties", body));
            done.step("set properties by systemd of", &self.unit)?;
        }
        self.group.update(resources)
    }

    /// Ends the scope, if it is still there: it goes by itself with its last process.
    pub(super) fn stop(&self) -> Result<(), OciError> {
        if !self.group.is_there() {
            return Ok(());
        }
        let stop = || {
            let mut bus = connect()?;
            hear_of_jobs(&mut bus)?;
            match bus.call(MANAGER, "StopUnit", Body::default().text(&self.unit).text("replace")) {
                Err(error) if error.to_string().starts_with(NO_SUCH_UNIT) => Ok(()),
                Err(error) => Err(error),
                Ok(answer) => self.wait(&mut bus, &answer.words()),
            }
        };
        stop().step("stop by systemd", &self.unit)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut all = self.group.to_json();
        all["unit"] = json!(self.unit);
        all["slice"] = json!(self.slice);
        all
    }

    pub(super) fn from_json(value: &Value) -> Option<Scope> {
        Some(Scope {
            group: V2::from_json(value)?,
            unit: value["unit"].as_str()?.to_owned(),
            slice: value["slice"].as_str()?.to_owned(),
        })
    }
}

fn connect() -> io::Result<Bus> {
    let bus = Bus::connect(Path::new(SOCKET), PATIENCE);
    bus.map_err(|error| io::Error::new(error.kind(), format!("D-Bus at {SOCKET}: {error}")))
}

/// Before a job is made: it may end at once.
fn hear_of_jobs(bus: &mut Bus) -> io::Result<()> {
    bus.listen(MANAGER.interface, "JobRemoved")?;
    bus.call(MANAGER, "Subscribe", Body::default()).map(drop)
}

/// Slice, prefix and name of a scope.
fn parts(path: &str, id: &str) -> Result<(String, String, String), OciError> {
    if path.is_empty() {
        return Ok(("system.slice".into(), "berth".into(), id.to_owned()));
    }
    let wrong = || {
        let allowed = "slice:prefix:name, with systemd as the manager of cgroups";
        OciError::field("linux.cgroupsPath", format!("{path:?}"), allowed)
    };
    let mut all = path.split(':');
    let (Some(slice), Some(prefix), Some(name), None) = (all.next(), all.next(), all.next(), all.next()) else {
        return Err(wrong());
    };
    let legal = |part: &str| !part.contains(['/', '\0']) && part != "..";
    if name.is_empty() || !legal(slice) || !legal(prefix) || !legal(name) {
        return Err(wrong());
    }
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    Ok((slice.to_owned(), prefix.to_owned(), name.to_owned()))
}

/// The folders of a slice: `a-b.slice` is in `a.slice`.
fn expand(slice: &str) -> Result<PathBuf, OciError> {
    let wrong = || {
        OciError::field(
            "linux.cgroupsPath",
            format!("{slice:?}"),
            "the name of a slice, such as a-b.slice",
        )
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    if stem.is_empty() || stem.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let mut folder = PathBuf::new();
    let mut so_far = String::new();
    for part in stem.split('-') {
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        folder.push(format!("{so_far}.slice"));
    }
    Ok(folder)
}

/// Limits as properties, as runc sets them: those of `unified` last, so that they hold.
fn limits(resources: &LinuxResources) -> Vec<(&'static str, Variant)> {
    let mut all = typed_limits(resources);
    for (file, value) in resources.unified().iter().flatten() {
        all.extend(unified_limit(file, value.trim()));
    }
    all
}

/// A file of `unified` that systemd knows as a property, and would write over else. Values that it can't say are left to the file.
fn unified_limit(file: &str, value: &str) -> Vec<(&'static str, Variant)> {
    let amount = || match value {
        "max" => Some(INFINITY),
        value => value.parse().ok(),
    };
    let number = |name| amount().map(|amount| (name, Variant::Number(amount)));
    let list = |name| mask(value).map(|mask| (name, Variant::Bytes(mask)));
    let one = match file {
        "memory.min" => number("MemoryMin"),
        "memory.low" => number("MemoryLow"),
        "memory.high" => number("MemoryHigh"),
        "memory.max" => number("MemoryMax"),
        "memory.swap.max" => number("MemorySwapMax"),
        "pids.max" => number("TasksMax"),
        "cpu.weight" => number("CPUWeight"),
        "cpuset.cpus" => list("AllowedCPUs"),
        "cpuset.mems" => list("AllowedMemoryNodes"),
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let quota = words.next().unwrap_or("max").parse().ok();
            let period = words.next().map_or(Some(DEFAULT_PERIOD), |period| period.parse().ok());
            return period.map_or_else(Vec::new, |period| bandwidth(quota, Some(period)));
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// In microseconds; no quota = no limit.
const DEFAULT_PERIOD: u64 = 100_000;

fn bandwidth(quota: Option<u64>, period: Option<u64>) -> Vec<(&'static str, Variant)> {
    // systemd knows whole per cents of a CPU; runc rounds up as well.
    let second = quota.map_or(INFINITY, |quota| {
        let second = quota
            .saturating_mul(1_000_000)
            .div_ceil(period.unwrap_or(DEFAULT_PERIOD));
        second.next_multiple_of(10_000)
    });
    let period = period.map(|period| ("CPUQuotaPeriodUSec", Variant::Number(period)));
    period
        .into_iter()
        .chain([("CPUQuotaPerSecUSec", Variant::Number(second))])
        .collect()
}

fn typed_limits(resources: &LinuxResources) -> Vec<(&'static str, Variant)> {
    let mut all = Vec::new();
    let amount = |value: i64| u64::try_from(value).unwrap_or(INFINITY);
    if let Some(memory) = resources.memory() {
        let mut put = |name, value: Option<i64>| {
            if let Some(value) = value.filter(|value| *value != 0) {
                all.push((name, Variant::Number(amount(value))));
            }
        };
        put("MemoryMax", memory.limit());
        put("MemoryLow", memory.reservation());
        if let (Some(both), Some(limit)) = (memory.swap(), memory.limit())
            && both > 0
            && limit > 0
            && both >= limit
        {
            all.push(("MemorySwapMax", Variant::Number(amount(both - limit))));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(weight) = cpu.shares().and_then(values_v2::cpu_weight) {
            all.push(("CPUWeight", Variant::Number(weight)));
        }
        let period = cpu.period().filter(|period| *period != 0);
        let quota = cpu.quota().filter(|quota| *quota != 0);
        if quota.or(period.map(|_| 0)).is_some() {
            all.extend(bandwidth(quota.and_then(|quota| u64::try_from(quota).ok()), period));
        }
        let lists = [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())];
        for (name, list) in lists {
            if let Some(mask) = list.as_deref().filter(|list| !list.is_empty()).and_then(mask) {
                all.push((name, Variant::Bytes(mask)));
            }
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let limit = if limit > 0 { amount(limit) } else { INFINITY };
        all.push(("TasksMax", Variant::Number(limit)));
    }
    all
}

/// `0-2,7` as bits, the lowest in the first byte.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for number in crate::plan::number_list(list)? {
        if mask.len() <= number / 8 {
            mask.resize(number / 8 + 1, 0);
        }
        mask[number / 8] |= 1 << (number % 8);
    }
    Some(mask)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_slice_is_in_the_slices_of_its_name() {
        assert_eq!(
            expand("a-b-c.slice").expect("legal"),
            Path::new("a.slice/a-b.slice/a-b-c.slice")
        );
        assert_eq!(expand("-.slice").expect("legal"), Path::new(""));
        for wrong in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_has_three_parts() {
        let of = |path| parts(path, "id").map(|(slice, prefix, name)| format!("{slice} {prefix} {name}"));
        assert_eq!(of("").expect("legal"), "system.slice berth id");
        assert_eq!(of(":docker:x").expect("legal"), "system.slice docker x");
        assert_eq!(of("a.slice::x").expect("legal"), "a.slice  x");
        for wrong in ["/a/b", "a:b", "a:b:c:d", "a:b:", "a:b:../c"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let text = r#"{"memory":{"limit":100,"swap":300},"cpu":{"quota":50500,"period":100000,"cpus":"0,9"},"pids":{"limit":-1}}"#;
        let resources: LinuxResources = serde_json::from_str(text).expect("resources");
        let expected = [
            ("MemoryMax", Variant::Number(100)),
            ("MemorySwapMax", Variant::Number(200)),
            ("CPUQuotaPeriodUSec", Variant::Number(100_000)),
            ("CPUQuotaPerSecUSec", Variant::Number(510_000)),
            ("AllowedCPUs", Variant::Bytes(vec![1, 2])),
            ("TasksMax", Variant::Number(INFINITY)),
        ];
        assert_eq!(limits(&resources), expected);
    }

    #[test]
    fn what_systemd_knows_of_unified_is_told_to_it() {
        let number = |name, value| vec![(name, Variant::Number(value))];
        assert_eq!(unified_limit("memory.high", "50"), number("MemoryHigh", 50));
        assert_eq!(unified_limit("pids.max", "max"), number("TasksMax", INFINITY));
        assert_eq!(
            unified_limit("cpu.max", "max")[1..],
            number("CPUQuotaPerSecUSec", INFINITY)
        );
        assert_eq!(
            unified_limit("cpu.max", "20000 40000")[1..],
            number("CPUQuotaPerSecUSec", 500_000)
        );
        assert_eq!(unified_limit("io.weight", "default 10"), []);
    }
}

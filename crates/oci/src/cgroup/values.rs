//! From the resources of config.json to files and values of cgroup v1, in the order in which the kernel takes them.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

/// One write: controller, file, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
}

/// What every container may use, whatever its list says: making nodes, the default devices, terminals. As runc.
const ALWAYS_ALLOWED: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:8 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:5 rwm",
    "c 1:9 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
    // /dev/net/tun, which tools in containers count on; the node itself still has to be asked for.
    "c 10:200 rwm",
];

fn setting(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Setting {
    Setting {
        controller,
        file: file.into(),
        value: value.to_string(),
    }
}

/// All writes for a cgroup that was just made. Devices are forbidden but those that config.json names and [`ALWAYS_ALLOWED`], also
/// where it names none: without that CAP_MKNOD would be enough to read the host's disks. `devices`: there is that controller.
pub(crate) fn for_new(resources: Option<&LinuxResources>, devices: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    let named = resources.is_some_and(|resources| resources.devices().as_ref().is_some_and(|rules| !rules.is_empty()));
    if devices {
        all.push(setting("devices", "devices.deny", "a"));
        if !named {
            all.extend(
                ALWAYS_ALLOWED
                    .iter()
                    .map(|rule| setting("devices", "devices.allow", rule)),
            );
        }
    }
    let mut given = resources.map(settings).unwrap_or_default();
    // Most begin with the same.
    if !all.is_empty() && all.first() == given.first() {
        given.remove(0);
    }
    all.extend(given);
    all
}

/// All writes for `resources`. A zero says nothing where no limit of zero could be meant: engines write it for "not given".
pub(crate) fn settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut all = Vec::new();
    let rules = resources.devices().as_deref().unwrap_or_default();
    all.extend(rules.iter().map(device_rule));
    if !rules.is_empty() {
        // Engines name most of them, and what was allowed after the last that was forbidden need not be again.
        let forbidden = all.iter().rposition(|rule| rule.file == "devices.deny");
        let since = forbidden.map_or(0, |last| last + 1);
        let allowed: Vec<String> = all[since..].iter().map(|rule| rule.value.clone()).collect();
        let missing = ALWAYS_ALLOWED
            .iter()
            .filter(|rule| !allowed.iter().any(|named| named == *rule));
        all.extend(missing.map(|rule| setting("devices", "devices.allow", rule)));
    }
    if let Some(memory) = resources.memory() {
        // -1 in memory alone means no limit at all, and the kernel then wants swap raised first.
        if memory.limit() == Some(-1) && memory.swap().is_none() {
            all.push(setting("memory", "memory.memsw.limit_in_bytes", -1));
        }
        let file = |name: &str| format!("memory.{name}");
        let mut number = |name: &str, value: Option<i64>| {
            if let Some(value) = value.filter(|value| *value != 0) {
                all.push(setting("memory", file(name), value));
            }
        };
        number("limit_in_bytes", memory.limit());
        number("memsw.limit_in_bytes", memory.swap());
        number("soft_limit_in_bytes", memory.reservation());
        number("kmem.tcp.limit_in_bytes", memory.kernel_tcp());
        // Docker's "not given" is -1, which is this as an unsigned number.
        if let Some(swappiness) = memory.swappiness().filter(|value| *value != u64::MAX) {
            all.push(setting("memory", "memory.swappiness", swappiness));
        }
        if memory.disable_oom_killer() == Some(true) {
            all.push(setting("memory", "memory.oom_control", 1));
        }
        if memory.use_hierarchy() == Some(true) {
            all.push(setting("memory", "memory.use_hierarchy", 1));
        }
    }
    if let Some(cpu) = resources.cpu() {
        let mut put = |file: &str, value: Option<String>| {
            if let Some(value) = value {
                all.push(setting("cpu", file, value));
            }
        };
        let positive = |value: Option<u64>| value.filter(|value| *value != 0).map(|value| value.to_string());
        let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|value| value.to_string());
        put("cpu.shares", positive(cpu.shares()));
        put("cpu.cfs_period_us", positive(cpu.period()));
        put("cpu.cfs_quota_us", signed(cpu.quota()));
        // Zero is a value of these two.
        put("cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()));
        put("cpu.rt_period_us", positive(cpu.realtime_period()));
        put("cpu.rt_runtime_us", signed(cpu.realtime_runtime()));
        put("cpu.idle", cpu.idle().map(|v| v.to_string()));
        if let Some(cpus) = cpu.cpus().as_ref().filter(|v| !v.is_empty()) {
            all.push(setting("cpuset", "cpuset.cpus", cpus));
        }
        if let Some(mems) = cpu.mems().as_ref().filter(|v| !v.is_empty()) {
            all.push(setting("cpuset", "cpuset.mems", mems));
        }
    }
    if let Some(limit) = resources
        .pids()
        .as_ref()
        .map(|pids| pids.limit())
        .filter(|limit| *limit != 0)
    {
        all.push(setting(
            "pids",
            "pids.max",
            if limit > 0 { limit.to_string() } else { "max".into() },
        ));
    }
    if let Some(io) = resources.block_io() {
        let mut weight = |file: &str, device: Option<(i64, i64)>, weight: Option<u16>| {
            if let Some(weight) = weight.filter(|weight| *weight != 0) {
                let value = device.map_or(weight.to_string(), |(major, minor)| format!("{major}:{minor} {weight}"));
                all.push(setting("blkio", file, value));
            }
        };
        weight("blkio.bfq.weight", None, io.weight());
        weight("blkio.leaf_weight", None, io.leaf_weight());
        for device in io.weight_device().iter().flatten() {
            let number = Some((device.major(), device.minor()));
            weight("blkio.bfq.weight_device", number, device.weight());
            weight("blkio.leaf_weight_device", number, device.leaf_weight());
        }
        let throttles = [
            ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
        ];
        for (file, devices) in throttles {
            for device in devices.iter().flatten() {
                all.push(setting(
                    "blkio",
                    file,
                    format!("{}:{} {}", device.major(), device.minor(), device.rate()),
                ));
            }
        }
    }
    for page in resources.hugepage_limits().iter().flatten() {
        all.push(setting(
            "hugetlb",
            format!("hugetlb.{}.limit_in_bytes", page.page_size()),
            page.limit(),
        ));
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            all.push(setting("net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            all.push(setting("net_prio", "net_prio.ifpriomap", value));
        }
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        if let Some(handles) = limits.hca_handles() {
            value += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limits.hca_objects() {
            value += &format!(" hca_object={objects}");
        }
        all.push(setting("rdma", "rdma.max", value));
    }
    all
}

fn device_rule(rule: &LinuxDeviceCgroup) -> Setting {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        _ => 'a',
    };
    let number = |value: Option<i64>| match value {
        Some(value) if value >= 0 => value.to_string(),
        _ => "*".to_owned(),
    };
    let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
    let access = rule
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    // "a" alone clears the list; with numbers the kernel would ignore them.
    let all = kind == 'a' && rule.major().is_none_or(|n| n < 0) && rule.minor().is_none_or(|n| n < 0);
    let value = if all && access == "rwm" {
        "a".to_owned()
    } else {
        format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
    };
    setting("devices", file, value)
}

#[cfg(test)]
mod test {
    use super::*;

    fn told(resources: &str) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(resources).expect("resources");
        let all = settings(&resources);
        all.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn zero_is_not_given() {
        let zeros = r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernelTCP":0,"swappiness":18446744073709551615},
            "cpu":{"shares":0,"quota":0,"period":0,"realtimePeriod":0,"realtimeRuntime":0,"cpus":"","mems":""},
            "pids":{"limit":0},"blockIO":{"weight":0,"leafWeight":0},"network":{"classID":0}}"#;
        assert_eq!(told(zeros), [""; 0]);
        // Where zero is a value.
        let text =
            r#"{"memory":{"swappiness":0},"cpu":{"burst":0,"idle":0},"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
        let expected = [
            "memory.swappiness=0",
            "cpu.cfs_burst_us=0",
            "cpu.idle=0",
            "hugetlb.2MB.limit_in_bytes=0",
        ];
        assert_eq!(told(text), expected);
        assert_eq!(told(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
    }

    #[test]
    fn weights_go_to_each_device() {
        let text = r#"{"blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":16,"weight":200,"leafWeight":0}]}}"#;
        assert_eq!(told(text), ["blkio.bfq.weight=100", "blkio.bfq.weight_device=8:16 200"]);
    }

    #[test]
    fn devices_are_forbidden_unless_named() {
        let texts = |resources: &str| -> Vec<String> {
            let resources: LinuxResources = serde_json::from_str(resources).expect("resources");
            let all = for_new(Some(&resources), true);
            all.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
        };
        let none = texts("{}");
        assert_eq!(
            (none[0].as_str(), none.len()),
            ("devices.deny=a", 1 + ALWAYS_ALLOWED.len())
        );
        let some = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}"#;
        let some = texts(some);
        let first = ["devices.deny=a", "devices.allow=c 1:3 rwm", "devices.allow=c *:* m"];
        assert_eq!(
            (&some[..3], some.len()),
            (&first.map(String::from)[..], 1 + ALWAYS_ALLOWED.len())
        );
        // What was forbidden again has to be allowed again.
        let twice = texts(
            r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]}"#,
        );
        assert_eq!(twice.len(), 3 + ALWAYS_ALLOWED.len());
        let all = texts(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
        assert_eq!(all[..2], ["devices.deny=a", "devices.allow=a"]);
        assert!(for_new(None, false).is_empty());
    }
}

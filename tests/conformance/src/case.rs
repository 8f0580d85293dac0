//! The configs: a base like the one that engines write, and what each case changes of it.
//!
//! A case is JSON: `config` is merged into the base (`null` takes a member away, `mounts+` adds mounts), `exec` into its process
//! for one more process, which is then the one that is looked at; `before` is shell for the runtime's parent, `flags` go to
//! the runtime, `sandbox` gives namespaces to join. `@…@` are filled in when a container is made.

use serde_json::{Map, Value, json};

/// One config.
#[derive(Clone, Debug)]
pub struct Case {
    /// `group/name`.
    pub name: String,
    pub config: Value,
    pub exec: Option<Value>,
    pub before: Option<String>,
    pub flags: Vec<String>,
    pub sandbox: bool,
}

const GROUPS: &[(&str, &str)] = &[
    ("process", include_str!("../data/process.json")),
    ("exec", include_str!("../data/exec.json")),
    ("root", include_str!("../data/root.json")),
    ("linux", include_str!("../data/linux.json")),
    ("resources", include_str!("../data/resources.json")),
    ("seccomp", include_str!("../data/seccomp.json")),
    ("whole", include_str!("../data/whole.json")),
];

/// The cases of one group.
///
/// # Panics
/// If there is no such group, or its data are not JSON: a fault of this crate.
pub fn group(name: &str) -> Vec<Case> {
    let (_, text) = GROUPS.iter().find(|(known, _)| *known == name).expect("a group");
    let all: Map<String, Value> = serde_json::from_str(text).expect("JSON");
    all.into_iter()
        .map(|(case, data)| Case::read(&format!("{name}/{case}"), &data))
        .collect()
}

pub fn all() -> Vec<Case> {
    GROUPS.iter().flat_map(|(name, _)| group(name)).collect()
}

impl Case {
    fn read(name: &str, data: &Value) -> Case {
        let flags = data["flags"].as_array().into_iter().flatten();
        Case {
            name: name.to_owned(),
            config: data["config"].clone(),
            exec: data.get("exec").cloned(),
            before: data["before"].as_str().map(str::to_owned),
            flags: flags.filter_map(Value::as_str).map(str::to_owned).collect(),
            sandbox: data["sandbox"].as_bool().unwrap_or(false),
        }
    }

    /// The whole config.json.
    pub fn whole(&self) -> Value {
        let mut config = base();
        merge(&mut config, &self.config);
        config
    }

    /// Whether it needs nothing but its config.
    pub fn is_plain(&self) -> bool {
        let terminal = self.config["process"]["terminal"] == true;
        // A system call that waits for a listener waits for ever.
        let listens = self.config.to_string().contains("listenerPath");
        !listens && self.exec.is_none() && self.before.is_none() && self.flags.is_empty() && !self.sandbox && !terminal
    }

    /// All of them in one config; a later one wins.
    pub fn together(cases: &[&Case]) -> Case {
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        let mut config = json!({});
        for case in cases {
            merge_patch(&mut config, &case.config);
        }
        Case {
            name: names.join(" + "),
            config,
            exec: None,
            before: None,
            flags: Vec::new(),
            sandbox: false,
        }
    }
}

/// Patches the patch: what takes away still does.
fn merge_patch(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                match into.get_mut(name) {
                    Some(Value::Array(mounts)) if name.ends_with('+') => {
                        mounts.extend(value.as_array().into_iter().flatten().cloned());
                    }
                    Some(there) if there.is_object() && value.is_object() => merge_patch(there, value),
                    _ => _ = into.insert(name.clone(), value.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Merges as a case is merged into the base.
pub fn merge(into: &mut Value, patch: &Value) {
    let (Some(members), Value::Object(changes)) = (into.as_object_mut(), patch) else {
        *into = patch.clone();
        return;
    };
    for (name, change) in changes {
        if let Some(name) = name.strip_suffix('+') {
            let list = members.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.extend(change.as_array().into_iter().flatten().cloned());
            }
        } else if change.is_null() {
            members.remove(name);
        } else if let Some(profile) = profile(change) {
            members.insert(name.clone(), profile);
        } else if change.is_object() {
            let there = members.entry(name.clone()).or_insert_with(|| json!({}));
            if !there.is_object() {
                *there = json!({});
            }
            merge(there, change);
        } else {
            members.insert(name.clone(), change.clone());
        }
    }
}

/// Docker's seccomp profile where a case names it, alone or with changes.
fn profile(value: &Value) -> Option<Value> {
    if value == "@DOCKER@" {
        return Some(docker_seccomp());
    }
    if value.get("@merge")? != "@DOCKER@" {
        return None;
    }
    let (mut all, mut changes) = (docker_seccomp(), value.clone());
    changes.as_object_mut()?.remove("@merge");
    merge(&mut all, &changes);
    Some(all)
}

/// As Docker's daemon writes it for a container with its default capabilities on x86-64.
fn docker_seccomp() -> Value {
    const ALLOWED: &str = include_str!("../../../bench/data/docker-seccomp.txt");
    let names = ALLOWED.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = names.flat_map(str::split_whitespace).collect();
    let only = |name: &str, value: u64, op: &str| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    // No new namespaces; no AF_VSOCK, which has no namespace.
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        only("socket", 40, "SCMP_CMP_NE"),
        only("clone", 0x7e02_0000, "SCMP_CMP_MASKED_EQ"),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    rules.extend([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|domain| only("personality", domain, "SCMP_CMP_EQ")));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// What every case begins with.
pub fn base() -> Value {
    let capabilities: Vec<String> = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .iter()
    .map(|name| format!("CAP_{name}"))
    .collect();
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let device =
        |major: u32, minor: u32| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/probe"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "@DIR@/rootfs"},
        "hostname": "host-of-it",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": "/@PARENT@/@ID@",
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"}, device(1, 3), device(1, 5), device(1, 7), device(1, 8), device(1, 9), device(5, 0),
            ]},
        },
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_case_changes_the_base() {
        let mut config = json!({"a": {"b": 1, "c": 2}, "mounts": [1]});
        merge(&mut config, &json!({"a": {"b": null, "d": [3]}, "mounts+": [2]}));
        assert_eq!(config, json!({"a": {"c": 2, "d": [3]}, "mounts": [1, 2]}));
        let all = all();
        assert!(all.iter().any(|case| case.name == "whole/docker"));
        let both = Case::together(&[&all[0], &all[1]]);
        assert!(both.whole()["process"]["args"].is_array());
    }
}

//! Each field with a value that can't be: the error names the field, the value and what is allowed.

use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Value, json};

use super::*;
use crate::parse::parse;

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "hostname": "name",
        "process": {
            "args": ["/bin/sh"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }],
            "scheduler": { "policy": "SCHED_OTHER" },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 0 },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/mnt", "type": "bind", "source": "/mnt", "options": ["rbind", "ro"] },
        ],
        "hooks": { "poststart": [{ "path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 1 }] },
        "annotations": { "a": "b" },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "user" }],
            "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
            "devices": [{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3 }],
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 1048576, "swap": 1048576 },
                "cpu": { "shares": 2, "quota": 1000, "period": 1000, "cpus": "0" },
                "pids": { "limit": 1 },
                "blockIO": { "weightDevice": [{ "major": 8, "minor": 0, "weight": 10 }],
                    "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1 }] },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }],
                "network": { "classID": 1, "priorities": [{ "name": "lo", "priority": 1 }] },
            },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "rootfsPropagation": "rslave",
        },
    })
}

/// Where, what, and how the error begins; `…` stands for what serde says.
const WRONG: &[(&str, &str, &str)] = &[
    ("/ociVersion", r#""2.0.0""#, r#"ociVersion: "2.0.0": 1.x"#),
    ("/ociVersion", "1", "ociVersion: 1: a string"),
    ("/root", "null", "root: missing: an object with `path`"),
    ("/root/path", r#""""#, r#"root.path: "": a path"#),
    ("/root/readonly", r#""yes""#, r#"root.readonly: "yes": "#),
    ("/hostname", r#""a\u0000b""#, r#"hostname: "a\0b": at most 64 bytes"#),
    ("/domainname", "[]", "domainname: []: a string"),
    ("/process", "null", "process: missing: an object"),
    (
        "/process/cwd",
        r#""relative""#,
        r#"process.cwd: "relative": an absolute path"#,
    ),
    ("/process/args", "[]", "process.args: empty: at least the command"),
    (
        "/process/args",
        r#"["a","b\u0000"]"#,
        r#"process.args: "b\0": text without a NUL byte"#,
    ),
    ("/process/args", r#"[1]"#, "process.args[0]: 1: a string"),
    ("/process/env", r#"["A"]"#, r#"process.env: "A": NAME=VALUE"#),
    (
        "/process/user/uid",
        "-1",
        "process.user.uid: -1: a whole number from 0 to 4294967295",
    ),
    (
        "/process/user/uid",
        "4294967295",
        "process.user.uid: 4294967295: 0 to 4294967294",
    ),
    (
        "/process/user/gid",
        "4294967295",
        "process.user.gid: 4294967295: 0 to 4294967294",
    ),
    ("/process/user/umask", "512", "process.user.umask: 512: 0 to 511"),
    (
        "/process/user/additionalGids",
        "[4294967295]",
        "process.user.additionalGids: 4294967295: ",
    ),
    ("/process/terminal", "1", "process.terminal: 1: true or false"),
    (
        "/process/consoleSize",
        r#"{"height":-1,"width":1}"#,
        "process.consoleSize.height: -1: a whole number",
    ),
    (
        "/process/rlimits/0/type",
        r#""RLIMIT_X""#,
        r#"process.rlimits[0].type: "RLIMIT_X": "#,
    ),
    (
        "/process/rlimits/0/soft",
        "3",
        "process.rlimits: RLIMIT_NOFILE 3:2: soft not above hard",
    ),
    ("/process/rlimits/0/hard", "-1", "process.rlimits[0].hard: -1: "),
    (
        "/process/oomScoreAdj",
        "1001",
        "process.oomScoreAdj: 1001: -1000 to 1000",
    ),
    (
        "/process/noNewPrivileges",
        "0",
        "process.noNewPrivileges: 0: true or false",
    ),
    (
        "/process/capabilities",
        r#"{"bounding":"CAP_KILL"}"#,
        r#"process.capabilities.bounding: "CAP_KILL": a list"#,
    ),
    ("/process/apparmorProfile", r#""a\u0000""#, r#"process.apparmorProfile"#),
    ("/process/selinuxLabel", r#""a\u0000""#, r#"process.selinuxLabel"#),
    (
        "/process/scheduler/policy",
        r#""SCHED_X""#,
        r#"process.scheduler.policy: "SCHED_X": "#,
    ),
    ("/process/scheduler/nice", "20", "process.scheduler.nice: 20: -20 to 19"),
    (
        "/process/scheduler/priority",
        "1",
        "process.scheduler.priority: 1: 0, but for",
    ),
    (
        "/process/scheduler/runtime",
        "5",
        "process.scheduler.runtime: 5: 0, but for SCHED_DEADLINE",
    ),
    (
        "/process/scheduler/flags",
        r#"["X"]"#,
        r#"process.scheduler.flags[0]: "X": "#,
    ),
    (
        "/process/ioPriority/class",
        r#""X""#,
        r#"process.ioPriority.class: "X": "#,
    ),
    (
        "/process/ioPriority/priority",
        "8",
        "process.ioPriority.priority: 8: 0 to 7",
    ),
    (
        "/process/execCPUAffinity",
        r#"{"initial":"x"}"#,
        "process.execCPUAffinity",
    ),
    ("/mounts/1/destination", r#""""#, r#"mounts[1].destination: "": a path"#),
    (
        "/mounts/1/destination",
        r#""/a/..""#,
        r#"mounts[1].destination: "/a/..": a path below the root"#,
    ),
    (
        "/mounts/1/source",
        r#""""#,
        "mounts[1].source: missing: a path on the host",
    ),
    (
        "/mounts/1/options",
        r#"["bind","size=1"]"#,
        r#"mounts[1].options: "size=1": "#,
    ),
    ("/mounts/0/type", r#""""#, "mounts[0].type: missing: "),
    ("/mounts/0/options", r#"["idmap"]"#, r#"mounts[0].type: "proc": bind"#),
    (
        "/mounts/1/uidMappings",
        r#"[{"containerID":0,"hostID":0,"size":1}]"#,
        "mounts[1].uidMappings and gidMappings: missing: both",
    ),
    (
        "/mounts/1/uidMappings",
        r#"[{"containerID":0,"hostID":0,"size":0}]"#,
        "mounts[1].uidMappings[0].size: 0: ",
    ),
    (
        "/hooks/poststart/0/path",
        r#""true""#,
        r#"hooks.poststart[0].path: "true": an absolute path"#,
    ),
    (
        "/hooks/poststart/0/timeout",
        "0",
        "hooks.poststart[0].timeout: 0: seconds, more than 0",
    ),
    (
        "/hooks/poststart/0/args",
        r#"["\u0000"]"#,
        r#"hooks.poststart[0].args: "\0": "#,
    ),
    ("/annotations", r#"{"":"b"}"#, r#"annotations: "b": a key"#),
    ("/annotations", r#"{"a":1}"#, "annotations.a: 1: a string"),
    ("/linux", "null", "linux: missing: an object"),
    (
        "/linux/namespaces",
        r#"[{"type":"x"}]"#,
        r#"linux.namespaces[0].type: "x": "#,
    ),
    (
        "/linux/namespaces",
        r#"[{"type":"mount"},{"type":"mount"}]"#,
        "linux.namespaces: Mount twice: each type at most once",
    ),
    (
        "/linux/namespaces",
        r#"[{"type":"uts"}]"#,
        "linux.namespaces: no mount: ",
    ),
    (
        "/linux/namespaces/1/path",
        r#""a""#,
        r#"linux.namespaces[1].path: "a": an absolute path"#,
    ),
    (
        "/linux/namespaces",
        r#"[{"type":"mount"},{"type":"user"}]"#,
        r#"hostname: "name": a name with a uts namespace only"#,
    ),
    (
        "/linux/namespaces/3/type",
        r#""ipc""#,
        "linux.uidMappings: 1 mappings: none without a user namespace",
    ),
    ("/linux/uidMappings", "[]", "linux.uidMappings: missing: at least one"),
    (
        "/linux/gidMappings/0/size",
        "0",
        "linux.gidMappings[0].size: 0: 1 to 4294967295",
    ),
    ("/linux/gidMappings/0/hostID", "4294967294", ""),
    (
        "/linux/gidMappings/0/size",
        "4294967295",
        "linux.gidMappings[0]: 0 1000 4294967295: ids of 32 bits",
    ),
    (
        "/linux/timeOffsets",
        r#"{"x":{}}"#,
        r#"linux.timeOffsets: "x": monotonic or boottime"#,
    ),
    (
        "/linux/timeOffsets",
        r#"{"boottime":{"secs":1}}"#,
        "linux.timeOffsets: boottime: only with a new time namespace",
    ),
    (
        "/linux/timeOffsets",
        r#"{"boottime":{"nanosecs":1000000000}}"#,
        "linux.timeOffsets.boottime.nanosecs: 1000000000: ",
    ),
    (
        "/linux/devices/0/path",
        r#""mine""#,
        r#"linux.devices[0].path: "mine": an absolute path"#,
    ),
    (
        "/linux/devices/0/type",
        r#""a""#,
        r#"linux.devices[0].type: "a": c, u, b or p"#,
    ),
    ("/linux/devices/0/type", r#""x""#, r#"linux.devices[0].type: "x": "#),
    ("/linux/devices/0/major", "-1", "linux.devices[0].major: -1: 0 to 4095"),
    (
        "/linux/devices/0/minor",
        "1048576",
        "linux.devices[0].minor: 1048576: 0 to 1048575",
    ),
    (
        "/linux/devices/0/fileMode",
        "65536",
        "linux.devices[0].fileMode: 65536: 0 to 65535",
    ),
    (
        "/linux/devices/0/uid",
        "4294967295",
        "linux.devices[0].uid: 4294967295: ",
    ),
    (
        "/linux/cgroupsPath",
        r#""/a/../../b""#,
        r#"linux.cgroupsPath: "/a/../../b": a path without `..`"#,
    ),
    (
        "/linux/sysctl",
        r#"{"kernel.core_pattern":"|x"}"#,
        r#"linux.sysctl "kernel.core_pattern": "|x": "#,
    ),
    (
        "/linux/rootfsPropagation",
        r#""x""#,
        r#"linux.rootfsPropagation: "x": shared, slave"#,
    ),
    (
        "/linux/maskedPaths",
        r#"["a"]"#,
        r#"linux.maskedPaths: "a": an absolute path"#,
    ),
    (
        "/linux/readonlyPaths",
        r#"["a"]"#,
        r#"linux.readonlyPaths: "a": an absolute path"#,
    ),
    (
        "/linux/personality",
        r#"{"domain":"X"}"#,
        r#"linux.personality.domain: "X": "#,
    ),
    (
        "/linux/personality",
        r#"{"domain":"LINUX","flags":["X"]}"#,
        r#"linux.personality.flags: ["X"]: none"#,
    ),
    (
        "/linux/memoryPolicy",
        r#"{"mode":"X"}"#,
        r#"linux.memoryPolicy.mode: "X": "#,
    ),
    (
        "/linux/memoryPolicy",
        r#"{"mode":"MPOL_BIND"}"#,
        r#"linux.memoryPolicy.nodes: "": at least one"#,
    ),
    (
        "/linux/memoryPolicy",
        r#"{"mode":"MPOL_BIND","nodes":"x"}"#,
        r#"linux.memoryPolicy.nodes: "x": numbers and ranges"#,
    ),
    (
        "/linux/memoryPolicy",
        r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#,
        r#"linux.memoryPolicy.nodes: "0": none"#,
    ),
    ("/linux/mountLabel", r#""a\u0000""#, r#"linux.mountLabel"#),
    (
        "/linux/seccomp",
        r#"{"defaultAction":"X"}"#,
        r#"linux.seccomp.defaultAction: "X": "#,
    ),
    (
        "/linux/seccomp",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":1,"action":"SCMP_ACT_KILL"}]}"#,
        "linux.seccomp.syscalls[0].names: 1: a list",
    ),
    (
        "/linux/intelRdt",
        r#"{"closID":1}"#,
        "linux.intelRdt.closID: 1: a string",
    ),
    (
        "/linux/netDevices",
        r#"{"eth0":{"name":1}}"#,
        "linux.netDevices.eth0.name: 1: a string",
    ),
    (
        "/linux/netDevices",
        r#"{"eth0":{}}"#,
        r#"linux.netDevices: "eth0": only with a network namespace"#,
    ),
    (
        "/linux/resources/devices/0/access",
        r#""x""#,
        r#"linux.resources.devices[0].access: "x": letters of rwm"#,
    ),
    (
        "/linux/resources/devices/0/major",
        "-2",
        "linux.resources.devices[0].major: -2: ",
    ),
    (
        "/linux/resources/devices/0/allow",
        "1",
        "linux.resources.devices[0].allow: 1: true or false",
    ),
    (
        "/linux/resources/memory/limit",
        "-2",
        "linux.resources.memory.limit: -2: ",
    ),
    (
        "/linux/resources/memory/swap",
        "5",
        "linux.resources.memory.swap: 5 with a limit of 1048576: ",
    ),
    (
        "/linux/resources/memory/swappiness",
        "101",
        "linux.resources.memory.swappiness: 101: 0 to 100",
    ),
    (
        "/linux/resources/memory/reservation",
        r#""1M""#,
        r#"linux.resources.memory.reservation: "1M": a whole number"#,
    ),
    (
        "/linux/resources/cpu/quota",
        "999",
        "linux.resources.cpu.quota: 999: -1, or microseconds",
    ),
    (
        "/linux/resources/cpu/period",
        "999",
        "linux.resources.cpu.period: 999: 1000 to 1000000",
    ),
    ("/linux/resources/cpu/idle", "2", "linux.resources.cpu.idle: 2: 0 to 1"),
    (
        "/linux/resources/cpu/cpus",
        r#""a-b""#,
        r#"linux.resources.cpu.cpus: "a-b": numbers and ranges"#,
    ),
    (
        "/linux/resources/cpu/mems",
        r#""1-""#,
        r#"linux.resources.cpu.mems: "1-": numbers and ranges"#,
    ),
    ("/linux/resources/pids/limit", "-2", "linux.resources.pids.limit: -2: "),
    (
        "/linux/resources/blockIO/weight",
        "9",
        "linux.resources.blockIO.weight: 9: 10 to 1000",
    ),
    (
        "/linux/resources/blockIO/weightDevice/0/weight",
        "1001",
        "linux.resources.blockIO.weightDevice[0].weight: 1001: ",
    ),
    (
        "/linux/resources/blockIO/throttleReadBpsDevice/0/major",
        "-1",
        "linux.resources.blockIO.throttleReadBpsDevice[0].major: -1: ",
    ),
    (
        "/linux/resources/hugepageLimits/0/pageSize",
        r#""2M""#,
        r#"linux.resources.hugepageLimits[0].pageSize: "2M": a number with KB"#,
    ),
    (
        "/linux/resources/network/classID",
        "-1",
        "linux.resources.network.classID: -1: ",
    ),
    (
        "/linux/resources/network/priorities/0/name",
        r#""a b""#,
        r#"linux.resources.network.priorities: "a b": the name"#,
    ),
    (
        "/linux/resources/rdma",
        r#"{"mlx":{"hcaHandles":-1}}"#,
        "linux.resources.rdma.mlx.hcaHandles: -1: ",
    ),
    (
        "/linux/resources/unified",
        r#"{"a/b":"1"}"#,
        r#"linux.resources.unified: "a/b": the name of a cgroup's file"#,
    ),
];

fn told(config: &Value) -> Option<String> {
    let checked = parse::<Spec>(config.to_string().as_bytes(), "config.json", &mut |_| {});
    let checked = checked.and_then(|parsed| spec(&parsed));
    // What a type forbids is told with the file's name.
    checked
        .err()
        .map(|error| error.to_string().replacen("config.json: ", "", 1))
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = config.pointer_mut(parent).expect("is there");
    match name.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[name] = value,
    }
}

#[test]
fn a_config_that_is_right_is_taken() {
    assert_eq!(told(&config()), None);
}

#[test]
fn what_is_wrong_in_any_field_is_named() {
    let mut missed = Vec::new();
    for (pointer, value, expected) in WRONG {
        let mut config = config();
        set(&mut config, pointer, serde_json::from_str(value).expect("JSON"));
        match told(&config) {
            Some(text) if !expected.is_empty() && text.starts_with(expected) => {}
            // One id at the very end of the range is legal.
            None if expected.is_empty() => {}
            other => missed.push(format!("{pointer} {value}: {other:?}, not {expected:?}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn an_update_is_checked_like_a_config() {
    let wrong: LinuxResources = serde_json::from_value(json!({ "cpu": { "period": 5 } })).expect("resources");
    let told = resources("", &wrong).expect_err("refused").to_string();
    assert_eq!(told, "cpu.period: 5: 1000 to 1000000");
}

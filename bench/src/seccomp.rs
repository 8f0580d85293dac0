//! Docker's default seccomp profile, as its daemon writes it for a container with the default capabilities on x86-64.

use serde_json::{Value, json};

const ALLOWED: &str = include_str!("../data/docker-seccomp.txt");

/// linux.seccomp.
pub fn docker() -> Value {
    let names = ALLOWED.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = names.flat_map(str::split_whitespace).collect();
    let only = |name: &str, index: u32, value: u64, op: &str| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": value, "op": op}]});
    // Not AF_VSOCK, which has no namespace; no new namespaces; only what personality(2) is used for in earnest.
    const NEW_NAMESPACES: u64 = 0x7e02_0000;
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        only("socket", 0, 40, "SCMP_CMP_NE"),
        only("clone", 0, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
        // The flags of clone3 are in memory, out of a filter's sight: libraries fall back to clone.
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    rules.extend([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|domain| only("personality", 0, domain, "SCMP_CMP_EQ")));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

//! Resource limits as the OCI LinuxResources object that a runtime's update understands.

use crate::types::Resources;

/// Checked and written out; the error says what is wrong with which field.
pub(crate) fn to_json(resources: &Resources) -> Result<Vec<u8>, String> {
    let Resources {
        memory_limit,
        memory_swap,
        memory_reservation,
        cpu_shares,
        cpu_quota,
        cpu_period,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight,
    } = resources;
    let limit = |name: &str, value: &Option<i64>| match value {
        Some(v) if *v < -1 || *v == 0 => Err(format!(
            "{name} is {v}; a positive number, or -1 for no limit, expected"
        )),
        _ => Ok(value.map(|v| v.to_string())),
    };
    let range = |name: &str, value: Option<u64>, low: u64, high: u64| match value {
        Some(v) if !(low..=high).contains(&v) => Err(format!("{name} is {v}; {low} to {high} expected")),
        _ => Ok(value.map(|v| v.to_string())),
    };
    let set = |name: &str, value: &Option<String>| match value {
        // Nothing that JSON would have to escape.
        Some(v) if v.is_empty() || !v.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b',') => Err(format!(
            "{name} is {v:?}; numbers and ranges such as \"0-3,7\" expected"
        )),
        _ => Ok(value.as_ref().map(|v| format!("\"{v}\""))),
    };
    let memory = [
        ("limit", limit("memory_limit", memory_limit)?),
        ("swap", limit("memory_swap", memory_swap)?),
        ("reservation", limit("memory_reservation", memory_reservation)?),
    ];
    let cpu = [
        ("shares", range("cpu_shares", *cpu_shares, 2, 262_144)?),
        ("quota", limit("cpu_quota", cpu_quota)?),
        ("period", range("cpu_period", *cpu_period, 1_000, 1_000_000)?),
        ("cpus", set("cpuset_cpus", cpuset_cpus)?),
        ("mems", set("cpuset_mems", cpuset_mems)?),
    ];
    let pids = [("limit", limit("pids_limit", pids_limit)?)];
    let block = [("weight", range("blkio_weight", blkio_weight.map(u64::from), 10, 1_000)?)];
    let parts = [
        ("memory", object(&memory)),
        ("cpu", object(&cpu)),
        ("pids", object(&pids)),
        ("blockIO", object(&block)),
    ];
    match object(&parts) {
        Some(json) => Ok(json.into_bytes()),
        None => Err("no resource is set; name at least one to change".into()),
    }
}

/// `None` if no field has a value.
fn object(fields: &[(&str, Option<String>)]) -> Option<String> {
    let set: Vec<String> = fields
        .iter()
        .filter_map(|(n, v)| v.as_ref().map(|v| format!("\"{n}\":{v}")))
        .collect();
    (!set.is_empty()).then(|| format!("{{{}}}", set.join(",")))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_what_is_set_and_right() {
        let some = Resources {
            memory_limit: Some(1 << 20),
            cpuset_cpus: Some("0-1".into()),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let json = String::from_utf8(to_json(&some).unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"memory":{"limit":1048576},"cpu":{"cpus":"0-1"},"pids":{"limit":-1}}"#
        );
        assert!(to_json(&Resources::default()).is_err());
        for bad in [
            Resources {
                memory_limit: Some(0),
                ..Resources::default()
            },
            Resources {
                cpu_shares: Some(1),
                ..Resources::default()
            },
            Resources {
                cpuset_mems: Some("0\"".into()),
                ..Resources::default()
            },
        ] {
            assert!(to_json(&bad).is_err(), "{bad:?}");
        }
    }
}

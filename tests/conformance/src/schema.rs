//! The properties of the runtime specification's JSON schema (`data/properties.txt`, `=` before a value of an enumeration), and
//! which of them a config has.

use std::collections::BTreeSet;

use serde_json::Value;

const PROPERTIES: &str = include_str!("../data/properties.txt");

/// Those without a config, and why.
pub const WITHOUT: &[(&str, &str)] = &[
    ("solaris", "another operating system"),
    ("windows", "another operating system"),
    ("vm", "for runtimes of virtual machines"),
    ("zos", "another operating system"),
    ("freebsd", "another operating system"),
    ("process.commandLine", "for Windows"),
    ("process.user.username", "for Windows"),
];

pub fn properties() -> BTreeSet<&'static str> {
    PROPERTIES.lines().filter(|line| !line.is_empty()).collect()
}

/// Adds the properties that `value` has to `found`.
pub fn collect(value: &Value, known: &BTreeSet<&str>, found: &mut BTreeSet<String>) {
    walk(value, String::new(), known, found);
}

fn walk(value: &Value, path: String, known: &BTreeSet<&str>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            // A map with keys of the user's own stands as `{}` in the schema.
            let keys = format!("{path}{{}}");
            let free = known.iter().any(|property| property.starts_with(&keys));
            for (name, member) in members.iter().filter(|(_, member)| !member.is_null()) {
                // What a case adds to the mounts of the base.
                let name = name.strip_suffix('+').unwrap_or(name);
                let inner = match (free, path.is_empty()) {
                    (true, _) => keys.clone(),
                    (false, true) => name.to_owned(),
                    (false, false) => format!("{path}.{name}"),
                };
                walk(member, inner, known, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| walk(item, format!("{path}[]"), known, found)),
        Value::String(text) => {
            let valued = format!("{path}={text}");
            if known.contains(valued.as_str()) {
                found.insert(valued);
            }
        }
        _ => {}
    }
    found.insert(path);
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_config_has_its_properties() {
        let config = serde_json::json!({
            "process": {"env": null, "rlimits": [{"soft": 1}]},
            "linux": {"resources": {"rdma": {"mine": {"hcaHandles": 1}}}, "personality": {"domain": "LINUX32"}},
        });
        let known = properties();
        let mut found = BTreeSet::new();
        collect(&config, &known, &mut found);
        for there in [
            "process.rlimits[].soft",
            "linux.resources.rdma{}.hcaHandles",
            "linux.personality.domain=LINUX32",
        ] {
            assert!(found.contains(there), "{there} in {found:?}");
        }
        assert!(!found.contains("process.env"));
    }
}

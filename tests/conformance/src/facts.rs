//! What is known of one container, as names and values that can be compared: nothing that differs from one run to the next.

use std::collections::BTreeMap;

use serde_json::Value;

/// Name to value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub BTreeMap<String, String>);

impl Facts {
    pub fn put(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What the probe said, each leaf under its path. `host` tells the machine's own namespaces.
    pub fn add_probe(&mut self, prefix: &str, said: &Value, host: impl Fn(&str) -> Option<String>) {
        for (name, value) in said.as_object().into_iter().flatten() {
            match (name.as_str(), value) {
                ("namespaces", Value::Object(all)) => {
                    for (kind, link) in all {
                        let own = if link.as_str().map(str::to_owned) == host(kind) {
                            "the host's"
                        } else {
                            "its own"
                        };
                        self.put(format!("{prefix}namespace {kind}"), own);
                    }
                }
                ("mounts", Value::Array(all)) => {
                    for line in all.iter().filter_map(Value::as_str) {
                        let at = line.split(' ').next().unwrap_or_default();
                        let mut name = format!("{prefix}mount {at}");
                        while self.has(&name) {
                            name.push_str(" again");
                        }
                        self.put(name, line.split_once(' ').map_or(line, |(_, rest)| rest));
                    }
                }
                ("limits", Value::String(text)) => {
                    for line in text.lines().skip(1) {
                        let (what, values) = line.split_at(line.len().min(26));
                        let values: Vec<&str> = values.split_whitespace().collect();
                        self.put(format!("{prefix}limit {}", what.trim()), values.join(" "));
                    }
                }
                // The hierarchies and paths are looked at from outside.
                ("cgroup", _) => {}
                (name, Value::Object(members)) => {
                    for (member, value) in members {
                        self.put(format!("{prefix}{name} {member}"), plain(value));
                    }
                }
                (name, value) => self.put(format!("{prefix}{name}"), plain(value)),
            }
        }
    }

    /// Replaces what is this run's own by what every run has in common.
    pub fn replace(&mut self, own: &[(&str, &str)]) {
        let put = |text: &str| {
            own.iter()
                .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        };
        self.0 = std::mem::take(&mut self.0)
            .into_iter()
            .map(|(name, value)| (put(&name), put(&value)))
            .collect();
    }
}

/// JSON as text, a string without its quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

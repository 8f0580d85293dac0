//! Is the container of one side the container of the other? What the kernel says about its process, less what must differ.

use crate::error::{Context, Result, ensure};
use std::collections::BTreeSet;

/// Capabilities, seccomp, mounts and cgroup controllers of a process.
pub fn fingerprint(pid: u32) -> Result<BTreeSet<String>> {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).context(format_args!("/proc/{pid}/{name}"));
    let mut facts = BTreeSet::new();
    const LINES: &[&str] = &["Cap", "Seccomp:", "NoNewPrivs:", "Uid:", "Gid:", "Groups:"];
    facts.extend(
        read("status")?
            .lines()
            .filter(|line| LINES.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned),
    );
    for line in read("mountinfo")?.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line
            .split(" - ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default();
        if let (Some(at), Some(options)) = (fields.get(4), fields.get(5)) {
            facts.insert(format!("mount {at} {kind} {options}"));
        }
    }
    for line in read("cgroup")?.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let own = path.contains("/c/");
        facts.insert(format!(
            "cgroup {controllers} {}",
            if own { "its own" } else { "shared" }
        ));
    }
    let threads = read("oom_score_adj")?;
    facts.insert(format!("oom_score_adj {}", threads.trim()));
    Ok(facts)
}

/// Fails with what differs.
pub fn agree(ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> Result<()> {
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    let (ours_only, theirs_only) = (only(ours, theirs), only(theirs, ours));
    ensure(ours_only.is_empty() && theirs_only.is_empty(), || {
        format!(
            "the two sides do not run the same container; only Berth: {ours_only:?}; only containerd: {theirs_only:?}"
        )
    })
}

//! Is the container of one side the container of the other? What the kernel says about its process, less what must differ.

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, members};
use crate::error::{BenchError, Context, Result, ensure};
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

/// The [`fingerprint`] of the process of a bundle's container, and what its cgroups say: every limit and rule, no counter.
pub fn facts(bundle: &Bundle, cgroup: &Cgroup) -> Result<BTreeSet<String>> {
    let mut pid = None;
    let mut facts = BTreeSet::new();
    for folder in cgroup.folders(&bundle.id) {
        pid = pid.or_else(|| members(&folder).first().copied());
        let hierarchy = folder.strip_prefix("/sys/fs/cgroup").unwrap_or(&folder).iter().next();
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            const LIMITS: &[&str] = &[
                "limit",
                "shares",
                "quota",
                "burst",
                "period_us",
                "runtime_us",
                "cpuset.",
                "devices.list",
                "pids.max",
                "weight",
                "swappiness",
                "state",
            ];
            const COUNTERS: &[&str] = &["pressure", "usage", "failcnt", "max_usage"];
            let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
            if is(LIMITS)
                && !is(COUNTERS)
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                facts.insert(format!("{} {name} = {text}", hierarchy.unwrap_or_default().display()));
            }
        }
    }
    let pid = pid.ok_or_else(|| BenchError::new("no process in the container's cgroups"))?;
    facts.extend(fingerprint(pid)?);
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

//! The container's cgroup, as far as a shim needs it: where it is, how often the OOM killer came, who is in it.
//!
//! v1 and hybrid: the memory controller's group. v2: the unified one. The usual mount points are taken for granted, as every runtime does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_sys::process::{pidfd_open, pidfd_send_signal};

/// How long killed processes may take to leave a group.
const DYING: Duration = Duration::from_millis(500);
const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

pub fn version() -> Version {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        Version::V2
    } else {
        Version::V1
    }
}

/// The process's group, as /proc/PID/cgroup shows it; "" if there is none.
pub fn of(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(find(&text, version()).unwrap_or_default().to_owned())
}

fn find(text: &str, version: Version) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let wanted = match version {
            Version::V1 => controllers.split(',').any(|c| c == "memory"),
            Version::V2 => controllers.is_empty(),
        };
        wanted.then_some(path)
    })
}

/// Where its files are.
pub fn folder(group: &str) -> PathBuf {
    let root = match version() {
        Version::V1 => Path::new(ROOT).join("memory"),
        Version::V2 => PathBuf::from(ROOT),
    };
    root.join(group.trim_start_matches('/'))
}

/// The file that counts OOM kills.
pub fn oom_file(group: &str) -> PathBuf {
    folder(group).join(match version() {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    })
}

/// OOM kills in the group since it was made; 0 if nothing counts them.
pub fn oom_kills(group: &str) -> u64 {
    if group.is_empty() {
        return 0;
    }
    let text = fs::read_to_string(oom_file(group)).unwrap_or_default();
    parse_oom_kills(&text)
}

fn parse_oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether this group is a container's alone: not the root, and neither ours nor above ours, nor a path out of the hierarchy.
pub fn is_its_own(group: &str) -> bool {
    let group = group.trim_end_matches('/');
    if group.split('/').any(|part| part == "..") {
        return false;
    }
    let Ok(ours) = of(std::process::id()) else { return false };
    !group.is_empty() && ours != group && !ours.starts_with(&format!("{group}/"))
}

/// Signals every process in the group and below it. Each is held by pidfd and looked at again before it is signalled. Answers how
/// many there were.
pub fn signal_all(group: &str, signal: i32) -> io::Result<usize> {
    if !is_its_own(group) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("cgroup {group:?} is not the container's alone"),
        ));
    }
    let mut count = 0;
    for pid in members(&folder(group)) {
        let Ok(pidfd) = pidfd_open(pid) else { continue };
        let still = of(pid).is_ok_and(|now| now == group || now.starts_with(&format!("{group}/")));
        if still && pidfd_send_signal(&pidfd, signal).is_ok() {
            count += 1;
        }
    }
    Ok(count)
}

/// Removes the group's folders, if a runtime has left them: whoever stays in one keeps it. For creators: it may take a while.
pub fn remove(group: &str) {
    if !is_its_own(group) {
        return;
    }
    let below = group.trim_start_matches('/');
    let folders: Vec<PathBuf> = match version() {
        Version::V2 => vec![folder(group)],
        Version::V1 => {
            let controllers = fs::read_dir(ROOT).into_iter().flatten().flatten();
            controllers.map(|controller| controller.path().join(below)).collect()
        }
    };
    let until = Instant::now() + DYING;
    for folder in folders {
        // Nothing tells when the last process that was killed has left it.
        while fs::remove_dir(&folder).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
            && Instant::now() < until
        {
            // cgroup v1 tells nobody when the last process has left a group.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn members(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect();
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        pids.extend(members(&entry.path()));
    }
    pids
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn finds_the_group_that_counts() {
        let v1 = "9:name=systemd:/x\n5:cpu,memory:/a:b/c\n0::/u\n";
        assert_eq!(find(v1, Version::V1), Some("/a:b/c"));
        assert_eq!(find(v1, Version::V2), Some("/u"));
        assert_eq!(find("garbage", Version::V2), None);
    }

    #[test]
    fn counts_kills_in_both_formats() {
        assert_eq!(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(parse_oom_kills("low 0\noom 5\noom_kill 4\noom_group_kill 1\n"), 4);
        assert_eq!(parse_oom_kills(""), 0);
    }

    #[test]
    fn never_takes_the_hosts_group_for_a_containers() {
        assert!(!is_its_own("/"));
        assert!(!is_its_own(""));
        assert!(!is_its_own("/a/../../../etc"));
        assert!(!is_its_own(&of(std::process::id()).unwrap()));
    }
}

//! A container's use from its cgroup's files: v1, v2, or v1 in hybrid mode, controller by controller.
//!
//! What a kernel does not offer stays 0: a missing file is no error, for the container may be gone at any moment.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::Usage;

/// A limit of v1 that means none: the largest number of whole pages.
const V1_UNLIMITED: u64 = 1 << 62;

/// v1 counts CPU time of user and system in ticks of 10 ms, whatever the kernel's own HZ.
const TICK_NS: u64 = 10_000_000;

/// Where one hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Which folder of the hierarchy the mount shows: not `/` in a container or a cgroup namespace.
    root: String,
}

impl Mount {
    /// The folder of a cgroup that /proc/PID/cgroup names.
    fn folder(&self, cgroup: &str) -> PathBuf {
        let below = match self.root.as_str() {
            "/" => cgroup,
            root => cgroup.strip_prefix(root).unwrap_or(cgroup),
        };
        // The name was the kernel's, but nothing here may leave the hierarchy.
        let inside = below.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
        self.point.join(inside.collect::<PathBuf>())
    }
}

/// The mounted hierarchies; a controller that has none of its own (v1) is looked for in the unified one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    unified: Option<Mount>,
    cpu: Option<Mount>,
    cpuacct: Option<Mount>,
    memory: Option<Mount>,
    pids: Option<Mount>,
    blkio: Option<Mount>,
}

impl Hierarchies {
    pub(super) fn find() -> io::Result<Self> {
        std::fs::read_to_string("/proc/self/mountinfo").map(|text| Self::parse(&text))
    }

    /// `36 35 0:31 ROOT POINT OPTIONS... - cgroup SOURCE rw,memory`; the first mount of each counts.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (fields.next(), fields.next()) else {
                continue;
            };
            let mount = Mount {
                point: unescape(point).into(),
                root: unescape(root),
            };
            let mut fields = right.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) => drop(found.unified.get_or_insert(mount)),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',') {
                        let slot = match option {
                            "cpu" => &mut found.cpu,
                            "cpuacct" => &mut found.cpuacct,
                            "memory" => &mut found.memory,
                            "pids" => &mut found.pids,
                            "blkio" => &mut found.blkio,
                            _ => continue,
                        };
                        slot.get_or_insert_with(|| mount.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The processes in a cgroup.
    pub(super) fn processes(&self, cgroup: &str) -> Vec<u32> {
        let mount = [&self.memory, &self.pids, &self.unified].into_iter().flatten().next();
        let text = mount
            .map(|m| text(&m.folder(cgroup), "cgroup.procs"))
            .unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    pub(super) fn read(&self, cgroup: &str, usage: &mut Usage) {
        let unified = self.unified.as_ref().map(|m| m.folder(cgroup));
        let v1 = |mount: &Option<Mount>| mount.as_ref().map(|m| m.folder(cgroup));
        match (v1(&self.cpuacct), &unified) {
            (Some(folder), _) => cpuacct_v1(&folder, usage),
            (None, Some(folder)) => cpu_v2(folder, usage),
            (None, None) => {}
        }
        if let Some(folder) = v1(&self.cpu) {
            throttling_v1(&folder, usage);
        }
        match (v1(&self.memory), &unified) {
            (Some(folder), _) => memory_v1(&folder, usage),
            (None, Some(folder)) => memory_v2(folder, usage),
            (None, None) => {}
        }
        if let Some(folder) = v1(&self.pids).as_ref().or(unified.as_ref()) {
            usage.pids = number(folder, "pids.current");
            usage.pids_limit = number(folder, "pids.max");
        }
        match (v1(&self.blkio), &unified) {
            (Some(folder), _) => io_v1(&folder, usage),
            (None, Some(folder)) => io_v2(folder, usage),
            (None, None) => {}
        }
    }
}

fn cpuacct_v1(folder: &Path, usage: &mut Usage) {
    usage.cpu_ns = number(folder, "cpuacct.usage");
    let stat = Table::read(folder, "cpuacct.stat");
    usage.cpu_user_ns = stat.get("user").saturating_mul(TICK_NS);
    usage.cpu_system_ns = stat.get("system").saturating_mul(TICK_NS);
}

fn throttling_v1(folder: &Path, usage: &mut Usage) {
    let stat = Table::read(folder, "cpu.stat");
    usage.cpu_periods = stat.get("nr_periods");
    usage.cpu_throttled_periods = stat.get("nr_throttled");
    usage.cpu_throttled_ns = stat.get("throttled_time");
}

fn cpu_v2(folder: &Path, usage: &mut Usage) {
    let stat = Table::read(folder, "cpu.stat");
    let ns = |name| stat.get(name).saturating_mul(1000);
    usage.cpu_ns = ns("usage_usec");
    usage.cpu_user_ns = ns("user_usec");
    usage.cpu_system_ns = ns("system_usec");
    usage.cpu_throttled_ns = ns("throttled_usec");
    usage.cpu_periods = stat.get("nr_periods");
    usage.cpu_throttled_periods = stat.get("nr_throttled");
}

fn memory_v1(folder: &Path, usage: &mut Usage) {
    let stat = Table::read(folder, "memory.stat");
    usage.memory_bytes = number(folder, "memory.usage_in_bytes");
    usage.memory_working_set_bytes = usage.memory_bytes.saturating_sub(stat.get("total_inactive_file"));
    usage.memory_limit_bytes = Some(number(folder, "memory.limit_in_bytes"))
        .filter(|l| *l < V1_UNLIMITED)
        .unwrap_or(0);
    usage.memory_peak_bytes = number(folder, "memory.max_usage_in_bytes");
    usage.swap_bytes = stat.get("total_swap");
    usage.oom_kills = Table::read(folder, "memory.oom_control").get("oom_kill");
}

fn memory_v2(folder: &Path, usage: &mut Usage) {
    let stat = Table::read(folder, "memory.stat");
    usage.memory_bytes = number(folder, "memory.current");
    usage.memory_working_set_bytes = usage.memory_bytes.saturating_sub(stat.get("inactive_file"));
    usage.memory_limit_bytes = number(folder, "memory.max");
    usage.memory_peak_bytes = number(folder, "memory.peak");
    usage.swap_bytes = number(folder, "memory.swap.current");
    usage.oom_kills = Table::read(folder, "memory.events").get("oom_kill");
}

/// Lines `8:0 Read 4096`; the files that count all schedulers' and children's requests.
fn io_v1(folder: &Path, usage: &mut Usage) {
    let sum = |name: &str, operation: &str| {
        let text = text(folder, name);
        let lines = text.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            (fields.next()? == operation).then(|| fields.next()?.parse().ok())?
        });
        lines.fold(0u64, u64::saturating_add)
    };
    let (bytes, operations) = (
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_serviced_recursive",
    );
    usage.io_read_bytes = sum(bytes, "Read");
    usage.io_write_bytes = sum(bytes, "Write");
    usage.io_reads = sum(operations, "Read");
    usage.io_writes = sum(operations, "Write");
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_v2(folder: &Path, usage: &mut Usage) {
    for field in text(folder, "io.stat").split_ascii_whitespace() {
        let Some((name, value)) = field.split_once('=') else {
            continue;
        };
        let slot = match name {
            "rbytes" => &mut usage.io_read_bytes,
            "wbytes" => &mut usage.io_write_bytes,
            "rios" => &mut usage.io_reads,
            "wios" => &mut usage.io_writes,
            _ => continue,
        };
        *slot = slot.saturating_add(value.parse().unwrap_or(0));
    }
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// A file with one number; "max" means no limit, which is told as 0.
fn number(folder: &Path, name: &str) -> u64 {
    text(folder, name).trim_end().parse().unwrap_or(0)
}

/// A file of lines `name number`.
struct Table(String);

impl Table {
    fn read(folder: &Path, name: &str) -> Self {
        Table(text(folder, name))
    }

    fn get(&self, name: &str) -> u64 {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value).unwrap_or(0)
    }
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn files(files: &[(&str, &str)]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!(
            "berth-stats-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(dir.join("c")).expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.join("c").join(name), text).expect("a file");
        }
        dir
    }

    #[test]
    fn hybrid_mounts() {
        let text = "\
30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 25 0:27 /box /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/cpu,cpu\\040acct rw - cgroup cgroup rw,cpu,cpuacct
33 25 0:27 / /other rw - cgroup cgroup rw,memory
34 25 0:29 / /tmp rw - tmpfs tmpfs rw,memory
";
        let found = Hierarchies::parse(text);
        let memory = found.memory.expect("memory");
        assert_eq!(memory.folder("/box/c"), Path::new("/sys/fs/cgroup/memory/c"));
        assert_eq!(memory.folder("/box/../../etc"), Path::new("/sys/fs/cgroup/memory/etc"));
        assert_eq!(found.cpu, found.cpuacct);
        assert_eq!(found.cpu.expect("cpu").point, Path::new("/sys/fs/cgroup/cpu,cpu acct"));
        assert_eq!(
            found.unified.expect("v2").folder("/a"),
            Path::new("/sys/fs/cgroup/unified/a")
        );
        assert_eq!(found.pids, None);
    }

    #[test]
    fn v2_files() {
        let dir = files(&[
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 5\ninactive_file 300\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "2000\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10\n",
            ),
        ]);
        let mount = Mount {
            point: dir.clone(),
            root: "/".into(),
        };
        let mut usage = Usage::default();
        Hierarchies {
            unified: Some(mount),
            ..Default::default()
        }
        .read("/c", &mut usage);
        std::fs::remove_dir_all(dir).expect("clean");
        let expected = Usage {
            cpu_ns: 30_000,
            cpu_user_ns: 20_000,
            cpu_system_ns: 10_000,
            cpu_throttled_ns: 9_000,
            cpu_periods: 4,
            cpu_throttled_periods: 2,
            memory_bytes: 1000,
            memory_working_set_bytes: 700,
            memory_peak_bytes: 2000,
            pids: 3,
            pids_limit: 10,
            io_read_bytes: 11,
            io_write_bytes: 2,
            io_reads: 3,
            io_writes: 4,
            oom_kills: 1,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn v1_files() {
        let dir = files(&[
            ("cpuacct.usage", "30\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 9\n"),
            ("memory.usage_in_bytes", "1000\n"),
            (
                "memory.stat",
                "inactive_file 1\ntotal_inactive_file 300\ntotal_swap 7\n",
            ),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max_usage_in_bytes", "2000\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 5\n8:0 Write 6\n8:16 Read 1\nTotal 12\n",
            ),
        ]);
        let mount = || {
            Some(Mount {
                point: dir.clone(),
                root: "/".into(),
            })
        };
        let found = Hierarchies {
            cpu: mount(),
            cpuacct: mount(),
            memory: mount(),
            pids: mount(),
            blkio: mount(),
            unified: None,
        };
        let mut usage = Usage::default();
        found.read("/c", &mut usage);
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(
            (usage.cpu_ns, usage.cpu_user_ns, usage.cpu_system_ns),
            (30, 20_000_000, 10_000_000)
        );
        assert_eq!((usage.cpu_throttled_ns, usage.cpu_periods), (9, 4));
        assert_eq!(
            (
                usage.memory_working_set_bytes,
                usage.memory_limit_bytes,
                usage.swap_bytes
            ),
            (700, 0, 7)
        );
        assert_eq!(
            (usage.oom_kills, usage.io_read_bytes, usage.io_write_bytes, usage.pids),
            (1, 6, 6, 0)
        );
    }

    proptest! {
        #[test]
        fn no_mountinfo_panics(text in ".*", line in "[0-9 :/\\\\a-z,-]*") {
            Hierarchies::parse(&text);
            Hierarchies::parse(&format!("{line} - cgroup {line}"));
            unescape(&line);
        }
    }
}

//! The process of every container of the suite: says as one line of JSON what it sees of its surroundings, then waits for the end
//! of its standard input. Its arguments name paths to look at besides; `--seccomp` asks for the verdict on every system call.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

fn main() {
    let mut facts = Map::new();
    let args: Vec<String> = std::env::args().collect();
    facts.insert("fds".into(), fds());
    facts.insert("args".into(), json!(args));
    let mut env: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    env.sort();
    facts.insert("env".into(), json!(env));
    facts.insert("cwd".into(), json!(std::env::current_dir().ok()));
    for name in [
        "limits",
        "uid_map",
        "gid_map",
        "setgroups",
        "oom_score_adj",
        "personality",
        "timens_offsets",
        "cgroup",
        "loginuid",
        "coredump_filter",
        "attr/current",
    ] {
        facts.insert(name.into(), json!(read(&format!("/proc/self/{name}"))));
    }
    facts.insert("status".into(), status());
    facts.insert("mounts".into(), mounts());
    let numbers = stat();
    for (name, index) in [("nice", 16), ("rt_priority", 37), ("policy", 38)] {
        facts.insert(name.into(), json!(numbers.get(index)));
    }
    let own = std::process::id().to_string();
    facts.insert("leads_session".into(), json!(numbers.get(3) == Some(&own)));
    facts.insert(
        "has_terminal".into(),
        json!(numbers.get(4).is_some_and(|device| device != "0")),
    );
    let size = rustix::termios::tcgetwinsize(std::io::stdin());
    facts.insert(
        "terminal_size".into(),
        json!(size.ok().map(|size| (size.ws_row, size.ws_col))),
    );
    facts.insert("io_priority".into(), json!(berth_sys::probe::io_priority().ok()));
    let keyring = berth_sys::probe::session_keyring();
    facts.insert(
        "keyring".into(),
        json!(
            keyring
                .map_err(|error| error.raw_os_error())
                .map_or_else(|error| json!(error), |text| json!(text))
        ),
    );
    let mut namespaces = Map::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}"));
        namespaces.insert(name.into(), json!(link.ok()));
    }
    facts.insert("namespaces".into(), Value::Object(namespaces));
    let names = rustix::system::uname();
    facts.insert("hostname".into(), json!(names.nodename().to_string_lossy()));
    facts.insert("domainname".into(), json!(read("/proc/sys/kernel/domainname")));
    facts.insert(
        "links".into(),
        json!(
            read("/proc/net/dev")
                .lines()
                .skip(2)
                .filter_map(|line| line.split(':').next())
                .map(str::trim)
                .collect::<Vec<_>>()
        ),
    );
    let mut files = Map::new();
    list(Path::new("/dev"), &mut files);
    for path in args.iter().skip(1).filter(|arg| arg.starts_with('/')) {
        list(Path::new(path), &mut files);
    }
    facts.insert("files".into(), Value::Object(files));
    if args.iter().any(|arg| arg == "--seccomp") {
        facts.insert("seccomp".into(), verdicts());
    }
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{}", Value::Object(facts)).and_then(|()| out.flush());
    drop(out);
    if told.is_ok() {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(
        |error| format!("{:?}", error.kind()),
        |text| text.trim_end_matches(['\n', '\0']).to_owned(),
    )
}

fn stat() -> Vec<String> {
    let text = read("/proc/self/stat");
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').map(str::to_owned).collect()
}

/// What does not depend on the moment.
fn status() -> Value {
    const LINES: &[&str] = &[
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "SigPnd",
        "ShdPnd",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "THP_enabled",
    ];
    let text = read("/proc/self/status");
    let mut all = Map::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if LINES.contains(&name) {
            all.insert(
                name.to_owned(),
                json!(value.split_whitespace().collect::<Vec<_>>().join(" ")),
            );
        }
    }
    Value::Object(all)
}

/// Root, place, options, propagation, kind, source and the file system's own options of every mount.
fn mounts() -> Value {
    let text = read("/proc/self/mountinfo");
    let line = |line: &str| {
        let (mount, fs) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let propagation: Vec<&str> = mount
            .get(6..)?
            .iter()
            .filter_map(|word| word.split(':').next())
            .collect();
        Some(format!(
            "{} {} {} {} {fs}",
            mount.get(4)?,
            mount.get(3)?,
            mount.get(5)?,
            propagation.join(",")
        ))
    };
    let mut all: Vec<String> = text.lines().filter_map(line).collect();
    all.sort();
    json!(all)
}

fn fds() -> Value {
    let mut all = Map::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.to_string_lossy().into_owned();
        let kind = link.split(['[', ':']).next().unwrap_or_default().to_owned();
        if !link.starts_with("/proc/") {
            all.insert(entry.file_name().to_string_lossy().into_owned(), json!(kind));
        }
    }
    Value::Object(all)
}

/// The file, and what is in it if it is a folder.
fn list(path: &Path, into: &mut Map<String, Value>) {
    let Ok(data) = fs::symlink_metadata(path) else {
        into.insert(path.display().to_string(), json!("missing"));
        return;
    };
    let kind = data.file_type();
    let letter = if kind.is_dir() {
        "folder".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap_or_default().display())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!(
            "device {}:{}",
            rustix::fs::major(data.rdev()),
            rustix::fs::minor(data.rdev())
        )
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!(
            "file {:?}",
            read(&path.to_string_lossy()).chars().take(64).collect::<String>()
        )
    };
    into.insert(
        path.display().to_string(),
        json!(format!(
            "{letter} {:o} {}:{}",
            data.mode() & 0o7777,
            data.uid(),
            data.gid()
        )),
    );
    if kind.is_dir() && !matches!(path.to_str(), Some("/dev/pts")) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten().take(64) {
            list(&entry.path(), into);
        }
    }
}

fn verdicts() -> Value {
    let verdict = |number| {
        format!(
            "{:?}",
            berth_sys::probe::try_call(number).unwrap_or(berth_sys::probe::Verdict::NotTried)
        )
    };
    let all: Map<String, Value> = (0..470)
        .map(|number| (number.to_string(), json!(verdict(number))))
        .collect();
    Value::Object(all)
}

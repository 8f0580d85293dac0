//! Every key of the configuration file, as data: what may stand there, its default, and whether SIGHUP applies it.
//! The check of a file, `berthd config default` and the tests all read this one table, so they can't disagree.

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Text,
    /// Absolute path; empty where the text says what empty means.
    Path,
    Flag,
    Number {
        min: i64,
        max: i64,
    },
    Choice(&'static [&'static str]),
    Texts,
}

impl Kind {
    /// The allowed values in words, for an error message.
    pub fn allowed(self) -> String {
        match self {
            Kind::Text => "a string".into(),
            Kind::Path => "a string with an absolute path".into(),
            Kind::Flag => "true or false".into(),
            Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Kind::Texts => "a list of strings".into(),
        }
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At the next SIGHUP.
    Reload,
    /// When the daemon is started again.
    Restart,
}

pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// As it is written in TOML.
    pub default: &'static str,
    pub applies: Applies,
    pub about: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    applies: Applies,
    about: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default,
        applies,
        about,
    }
}

const HOUR_MS: i64 = 3_600_000;

use Applies::{Reload, Restart};

/// The fixed sections, in the order in which `berthd config default` prints them.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("daemon", "address", Kind::Path, "\"\"", Restart, "Socket of the API; empty = berthd.sock in the state folder. Whoever can open it is root."),
    key("daemon", "ttrpc_address", Kind::Path, "\"\"", Restart, "Socket on which shims of others tell events; empty = the address with .ttrpc behind it."),
    key("daemon", "state", Kind::Path, "\"/run/berth\"", Restart, "Run-time state; belongs on a tmpfs."),
    key("daemon", "root", Kind::Path, "\"/var/lib/berth\"", Restart, "What outlives a reboot, logs among it."),
    key("daemon", "shim", Kind::Path, "\"\"", Restart, "The berth-shim program; empty = beside berthd, then in PATH."),
    key("daemon", "log_level", Kind::Text, "\"info\"", Reload, "error, warn, info, debug or trace; or a filter such as \"info,berth_supervisor=debug\"."),
    key("daemon", "log_format", Kind::Choice(&["text", "json", "journald"]), "\"text\"", Restart, "The daemon's own log: text or json on its stderr, or journald itself, with every field on its own."),
    key("daemon", "metrics_address", Kind::Text, "\"\"", Restart, "Prometheus metrics: \"unix:/PATH\" or a loopback \"127.0.0.1:PORT\"; empty = none."),
    key("daemon", "worker_threads", Kind::Number { min: 1, max: 64 }, "2", Restart, "Threads that serve requests."),
    key("start", "concurrency", Kind::Number { min: 1, max: 10_000 }, "10", Reload, "How many starts work at once; any number may wait."),
    key("start", "queue_limit", Kind::Number { min: 1, max: 10_000_000 }, "100000", Reload, "How many starts may wait; one more is refused."),
    key("start", "timeout_ms", Kind::Number { min: 1, max: HOUR_MS }, "60000", Reload, "A start that takes longer, counted from its permit, is undone."),
    key("runtime", "default", Kind::Text, "\"\"", Reload, "Runtime of a request that names none; empty = embedded, the one that needs no other program."),
    key("runtime", "allow_paths", Kind::Flag, "false", Reload, "Let a request name a runtime by its path."),
    key("runtime", "timeout_ms", Kind::Number { min: 1, max: HOUR_MS }, "30000", Reload, "Limit of each call of a runtime."),
    key("runtime", "containerd", Kind::Texts, "[]", Reload, "Which of our runtimes a client of containerd's means, as \"NAME=RUNTIME\": a runtime's name such as io.containerd.runc.v2, or a binary such as runc or /usr/bin/runc. \"runc=embedded\" holds unless runc is named."),
    key("runtime", "systemd_cgroup", Kind::Flag, "false", Reload, "Let systemd make the cgroups (cgroup v2; cgroupsPath is slice:prefix:name), whichever the runtime. Docker asks for it by itself."),
    key("log", "format", Kind::Choice(&["cri", "json", "plain"]), "\"cri\"", Reload, "Format of containers' logs where the request does not say."),
    key("log", "policy", Kind::Choice(&["block", "drop"]), "\"block\"", Reload, "On a full or slow disk: hold the container's output back, or drop and count it."),
    key("log", "max_size", Kind::Number { min: 4096, max: 1 << 40 }, "10485760", Reload, "Bytes after which a log file is rotated."),
    key("log", "max_files", Kind::Number { min: 1, max: 1000 }, "3", Reload, "Log files kept of a container, the current one among them."),
    key("stop", "timeout_ms", Kind::Number { min: 0, max: HOUR_MS }, "10000", Reload, "How long Stop waits before SIGKILL."),
    key("shim", "drain_timeout_ms", Kind::Number { min: 0, max: HOUR_MS }, "2000", Reload, "After the exit: how long output is read from a pipe that a grandchild holds open."),
    key("shim", "oom_score_adj", Kind::Number { min: -1000, max: 1000 }, "-998", Restart, "oom_score_adj of shims; best effort."),
    key("shim", "template", Kind::Flag, "true", Restart, "Fork shims from a template; false = exec each."),
    key("events", "keep", Kind::Number { min: 1, max: 100_000_000 }, "100000", Restart, "Events kept for readers that come back."),
    key("events", "keep_bytes", Kind::Number { min: 65_536, max: 1 << 40 }, "16777216", Restart, "Bytes of them; the smaller limit wins."),
];

/// Keys of each `[runtimes.NAME]`.
#[rustfmt::skip]
pub const RUNTIME_KEYS: &[Key] = &[
    key("runtimes", "path", Kind::Path, "\"\"", Reload, "The runtime's program; must be given."),
    key("runtimes", "args", Kind::Texts, "[]", Reload, "Arguments before the sub-command."),
    key("runtimes", "root", Kind::Path, "\"\"", Reload, "Its --root; empty = a folder in the daemon's state."),
    key("runtimes", "systemd_cgroup", Kind::Flag, "false", Reload, "Call it with --systemd-cgroup."),
];

/// The whole default file, with what each key means.
pub fn default_file() -> String {
    let mut out = String::from("# Berth's configuration. Every key stands here with its default.\n");
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            out += &format!("\n[{section}]\n");
        }
        let reload = if key.applies == Applies::Reload {
            " (SIGHUP applies it)"
        } else {
            ""
        };
        out += &format!("# {}{reload}\n{} = {}\n", key.about, key.name, key.default);
    }
    out += "\n# A runtime of your own, or another way to call a known one:\n# [runtimes.NAME]\n";
    for key in RUNTIME_KEYS {
        out += &format!("# {} = {}   # {}\n", key.name, key.default, key.about);
    }
    out
}

#[cfg(test)]
mod test {
    use super::*;

    /// The page for people names every key, with its default and when it applies.
    #[test]
    fn the_documentation_is_complete() {
        let page = include_str!("../../../../docs/config.md");
        for key in KEYS.iter().chain(RUNTIME_KEYS) {
            let section = if key.section == "runtimes" {
                "runtimes.NAME"
            } else {
                key.section
            };
            let name = format!("| `{section}.{}` |", key.name);
            let row = page
                .lines()
                .find(|line| line.starts_with(&name))
                .unwrap_or_else(|| panic!("{name} is missing"));
            let applies = if key.applies == Applies::Reload {
                "SIGHUP |"
            } else {
                "restart |"
            };
            assert!(row.ends_with(applies), "{row}");
            let default = key.default.trim_matches('"');
            let derived = key.name == "address" || default.is_empty();
            assert!(
                derived || row.contains(&format!("| `{default}` |")),
                "{row} should say {default}"
            );
        }
    }
}

//! What the supervisor must be told at its start. The daemon fills it from flags and file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_core::LogDefaults;

#[derive(Debug, Clone)]
pub struct Config {
    /// Run-time state, on tmpfs.
    pub state: PathBuf,
    /// What outlives a reboot: logs.
    pub root: PathBuf,
    pub start: StartConfig,
    pub runtime: RuntimeConfig,
    pub log: LogDefaults,
    pub stop_timeout: Duration,
    pub shim: ShimConfig,
    pub events: EventsConfig,
    /// Which runtime is meant where a client of containerd's API names a runtime, or the program of one.
    pub containerd_runtimes: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct StartConfig {
    /// Starts at work at once.
    pub concurrency: usize,
    /// Starts waiting; one more is refused.
    pub queue_limit: usize,
    /// Of one start, counted from its permit.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Empty = embedded, the runtime that is part of the shim.
    pub default: String,
    /// Whether a request may name a runtime by its path.
    pub allow_paths: bool,
    /// Of one call of a runtime.
    pub timeout: Duration,
    /// systemd makes the cgroups, whichever the runtime.
    pub systemd_cgroup: bool,
    /// By name; names that are not here are looked up on PATH if they are among the four known ones.
    pub runtimes: BTreeMap<String, Runtime>,
}

#[derive(Debug, Clone, Default)]
pub struct Runtime {
    /// Absolute, or a name to look up on PATH.
    pub path: PathBuf,
    /// Before the sub-command.
    pub args: Vec<String>,
    /// `None` = one in each container's own folder, so that it goes with the container.
    pub root: Option<PathBuf>,
    pub systemd_cgroup: bool,
}

#[derive(Debug, Clone)]
pub struct ShimConfig {
    /// The berth-shim binary.
    pub path: PathBuf,
    /// Fork shims from a template process instead of exec'ing each.
    pub template: bool,
    /// How long the output may stay open after the exit.
    pub drain_timeout: Duration,
    pub oom_score_adj: i32,
    /// Of one call to a shim that does not run a runtime.
    pub call_timeout: Duration,
    /// Of connecting to one shim at the daemon's start.
    pub adopt_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// How many events the history keeps at least.
    pub keep: u64,
    pub keep_bytes: u64,
}

impl Config {
    /// The defaults, but for the folders and the shim's path.
    pub fn new(state: impl Into<PathBuf>, root: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            root: root.into(),
            start: StartConfig::default(),
            runtime: RuntimeConfig::default(),
            log: LogDefaults::default(),
            stop_timeout: Duration::from_secs(10),
            shim: ShimConfig::new(shim),
            events: EventsConfig::default(),
            containerd_runtimes: BTreeMap::from([("runc".into(), "embedded".into())]),
        }
    }
}

impl Default for StartConfig {
    fn default() -> Self {
        Self {
            concurrency: 10,
            queue_limit: 100_000,
            timeout: Duration::from_secs(60),
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            default: String::new(),
            allow_paths: false,
            systemd_cgroup: false,
            timeout: Duration::from_secs(30),
            runtimes: BTreeMap::new(),
        }
    }
}

impl ShimConfig {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            template: true,
            drain_timeout: Duration::from_secs(2),
            oom_score_adj: -998,
            call_timeout: Duration::from_secs(10),
            adopt_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            keep: 100_000,
            keep_bytes: 16 << 20,
        }
    }
}

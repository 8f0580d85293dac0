//! What callers say to the supervisor and hear from it. Plain values: `api` converts them to and from messages, once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_core::{
    ContainerKey, Cursor, EventKind, ExecId, ExitStatus, Incarnation, Namespace, RestartPolicy, Signal, Stdio, Stream,
    TerminalSize,
};

/// The whole of Run and Create. Only key and bundle must be chosen; `RunSpec::new` fills in the rest.
#[derive(Debug, Clone)]
pub struct RunSpec {
    pub key: ContainerKey,
    /// Absolute.
    pub bundle: PathBuf,
    /// Name of a configured runtime, or a path where the configuration allows it; empty = the default.
    pub runtime: String,
    pub stdio: Stdio,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<Signal>,
    pub stop_timeout: Option<Duration>,
    /// Counted from the permit.
    pub start_timeout: Option<Duration>,
    /// For a caller whose API hands over a spec in place of a bundle: the daemon makes one and removes it with the container.
    pub made: Option<MadeBundle>,
    pub runtime_options: RuntimeOptions,
    pub restart: RestartPolicy,
    /// Remove it when it has ended.
    pub remove: bool,
    /// Our init is the first process and starts the bundle's.
    pub init: bool,
}

/// What a bundle is made of.
#[derive(Debug, Clone, Default)]
pub struct MadeBundle {
    /// config.json, to the byte.
    pub config: Vec<u8>,
    /// Mounted in this order at `rootfs`.
    pub rootfs: Vec<RootfsMount>,
    /// Who may pass through it to the root file system: root's group inside, where the spec maps groups.
    pub group: Option<u32>,
}

/// As mount(8) takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootfsMount {
    pub kind: String,
    pub source: String,
    /// Below the root file system; empty = the root file system itself.
    pub target: String,
    pub options: Vec<String>,
}

/// On top of what the configuration says about the runtime.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The runtime may be given as a path, whatever the configuration says: the caller's API names programs so.
    pub allow_path: bool,
    /// `--root` of a command, below which the namespace's own folder lies.
    pub root: Option<PathBuf>,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
}

impl RunSpec {
    pub fn new(key: ContainerKey, bundle: impl Into<PathBuf>) -> Self {
        Self {
            key,
            bundle: bundle.into(),
            runtime: String::new(),
            stdio: Stdio::default(),
            labels: BTreeMap::new(),
            stop_signal: None,
            stop_timeout: None,
            start_timeout: None,
            made: None,
            runtime_options: RuntimeOptions::default(),
            restart: RestartPolicy::No,
            remove: false,
            init: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub pid: u32,
    pub incarnation: Incarnation,
}

#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// `None` = the supervisor makes one.
    pub exec_id: Option<ExecId>,
    pub process: ExecProcess,
    pub stdio: Stdio,
}

#[derive(Debug, Clone)]
pub enum ExecProcess {
    /// A whole OCI process object.
    Json(Vec<u8>),
    /// The init's own process with these changes.
    Overrides(ExecOverrides),
}

#[derive(Debug, Clone, Default)]
pub struct ExecOverrides {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub additional_gids: Vec<u32>,
    /// `None` = those of the init process.
    pub capabilities: Option<Vec<String>>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Rlimit {
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecStarted {
    pub pid: u32,
    pub exec_id: ExecId,
}

/// `None` = the container's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopSpec {
    pub timeout: Option<Duration>,
    pub signal: Option<Signal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deleted {
    /// `None` if it was gone already.
    pub exit: Option<ExitStatus>,
    /// That it had; 0 = none.
    pub pid: u32,
    /// What could not be removed yet and is retried in the background; empty = nothing is left.
    pub left: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Update {
    Fields(Resources),
    /// A whole OCI LinuxResources object.
    Json(Vec<u8>),
}

/// Only what is `Some` changes; units and ranges as in `berth.v1.Resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_limit: Option<i64>,
    pub memory_swap: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub cpu_shares: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u32>,
}

pub use berth_core::state::State as ContainerState;

#[derive(Debug, Clone)]
pub struct ContainerView {
    pub key: ContainerKey,
    pub incarnation: Incarnation,
    pub bundle: PathBuf,
    pub runtime: String,
    pub labels: BTreeMap<String, String>,
    pub state: ContainerState,
    /// 0 = none yet, or ended.
    pub pid: u32,
    /// Likewise, but also after the end.
    pub last_pid: u32,
    /// Nanoseconds since the Unix epoch, 0 = not yet.
    pub created_at: i64,
    pub started_at: i64,
    pub exit: Option<ExitStatus>,
    pub execs: Vec<ExecView>,
    pub stdio: Stdio,
    pub stop_signal: Signal,
    pub stop_timeout: Duration,
    pub shim_pid: u32,
    /// Only if asked for.
    pub processes: Vec<ProcessInfo>,
    pub cgroup: String,
    /// Folder of the log.
    pub log_path: Option<PathBuf>,
    pub log_dropped_bytes: u64,
    pub oom_kills: u64,
    pub stages: Vec<Stage>,
    pub restart: RestartPolicy,
    pub restart_count: u32,
    /// When it is to be started again; 0 = it is not.
    pub restart_at: i64,
    pub remove: bool,
    /// Only if asked for: what its cgroup limits.
    pub limits: Option<Resources>,
}

#[derive(Debug, Clone)]
pub struct ExecView {
    pub exec_id: ExecId,
    /// 0 = none yet, or ended.
    pub pid: u32,
    /// Likewise, but also after the end.
    pub last_pid: u32,
    pub started_at: i64,
    /// `None` = it runs, or has not been started.
    pub exit: Option<ExitStatus>,
    pub terminal: bool,
    /// `None` if an earlier daemon started it.
    pub stdio: Option<Stdio>,
}

#[derive(Debug, Clone)]
pub struct ProcessInfo {
    pub pid: u32,
    /// `None` = the init process or one that belongs to nobody in particular.
    pub exec_id: Option<ExecId>,
    pub command: String,
}

/// One stage of a start and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub name: String,
    pub duration: Duration,
}

/// What happened, before it has a number; `events::Bus::publish` gives it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Nanoseconds since the Unix epoch.
    pub at: i64,
    pub kind: EventKind,
    pub key: ContainerKey,
    pub incarnation: Incarnation,
    pub exec_id: Option<ExecId>,
    /// 0 = none.
    pub pid: u32,
    pub exit: Option<ExitStatus>,
    /// For `Started`.
    pub stages: Vec<Stage>,
    /// For `StartFailed`: why.
    pub message: String,
    /// For `Oom`: kills since the start, this one among them.
    pub oom_kills: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub cursor: Cursor,
    pub what: NewEvent,
}

#[derive(Debug, Clone)]
pub struct EventQuery {
    /// `None` = all.
    pub namespace: Option<Namespace>,
    pub since: Since,
    /// `None` = all.
    pub id: Option<berth_core::ContainerId>,
    pub history_only: bool,
    /// Empty = all.
    pub kinds: Vec<EventKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Only live events.
    Now,
    /// All history there is.
    Oldest,
    After(Cursor),
}

#[derive(Debug, Clone)]
pub enum EventItem {
    Event(Event),
    /// The reader was too slow: read on with this cursor.
    Lagged(Cursor),
    /// All history was sent; sent once.
    CaughtUp(Cursor),
}

#[derive(Debug, Clone)]
pub struct LogQuery {
    pub key: ContainerKey,
    pub follow: bool,
    pub tail: Option<u64>,
    /// Nanoseconds since the Unix epoch, 0 = all.
    pub since: i64,
    pub until: i64,
    /// Go on behind the entry with this cursor; empty = none.
    pub cursor: String,
    /// Empty = both.
    pub streams: Vec<Stream>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub time: i64,
    pub stream: Stream,
    pub data: Vec<u8>,
    pub cursor: String,
    /// Lines that rotation removed before they could be read are missing before this one.
    pub gap: bool,
}

#[derive(Debug, Clone)]
pub struct StatsQuery {
    pub namespace: Namespace,
    /// Empty = all of the namespace.
    pub ids: Vec<berth_core::ContainerId>,
    /// `None` = once.
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct StatsSample {
    /// Nanoseconds since the Unix epoch.
    pub at: i64,
    pub containers: Vec<ContainerStats>,
    /// Of cgroups v2 alone.
    pub unified: bool,
}

/// Units as in `berth.v1.ContainerStats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStats {
    pub key: ContainerKey,
    pub usage: Usage,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub cpu_throttled_ns: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub memory_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_limit_bytes: u64,
    pub memory_peak_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    pub pids_limit: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub io_reads: u64,
    pub io_writes: u64,
    pub oom_kills: u64,
    pub networks: Vec<NetworkUsage>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    pub interface: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Where the output of an attachment begins, and whether it is a terminal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachOpened {
    pub offset: u64,
    pub terminal: bool,
}

#[derive(Debug, Clone)]
pub enum AttachInput {
    Stdin(Vec<u8>),
    CloseStdin,
    Resize(TerminalSize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachOutput {
    Chunk {
        stream: Stream,
        data: Vec<u8>,
        offset: u64,
    },
    /// So many bytes are missing here.
    Lost(u64),
    /// The process has ended and all output was sent; the last one.
    Exit(ExitStatus),
}

/// Both ends of an attachment. Dropping it detaches; the process does not notice.
pub struct Attachment {
    pub opened: AttachOpened,
    /// Waits while the process does not read.
    pub input: tokio::sync::mpsc::Sender<AttachInput>,
    pub output: tokio::sync::mpsc::Receiver<Result<AttachOutput, crate::Error>>,
}

#[derive(Debug, Clone)]
pub struct RuntimeInfo {
    pub name: String,
    pub path: PathBuf,
    /// First line of `--version`, empty if it does not tell.
    pub version: String,
    pub default: bool,
}

/// A call that is being served, for SIGUSR1's dump.
#[derive(Debug, Clone)]
pub struct LiveCall {
    pub operation: &'static str,
    pub key: Option<ContainerKey>,
    /// What it does or waits for now.
    pub stage: &'static str,
    pub age: Duration,
}

//! The records as they lie on disk: twins of the domain's types, converted at this edge only.
//!
//! Fields are only ever added, with a default. Ids are text here: a record that somebody broke by hand must still be told apart by its
//! error, not fail as a whole folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `container.json`: what the daemon was asked for and how far it is. Written by the daemon only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRecord {
    pub namespace: String,
    pub id: String,
    /// 32 hexadecimal digits.
    pub incarnation: String,
    pub boot_id: String,
    /// Of the request that made it; empty = none was given.
    pub request_id: String,
    /// Of the request that started it, if that was another one.
    pub start_request_id: String,
    /// The shim was sent that start, or is just about to be.
    pub start_sent: bool,
    /// Run, not Create: the start belongs to the same request.
    pub run: bool,
    pub bundle: PathBuf,
    /// The daemon made the bundle, which goes with the container.
    pub own_bundle: bool,
    pub runtime: RuntimeRecord,
    pub stdio: StdioRecord,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: u32,
    pub stop_timeout_ms: u64,
    pub start_timeout_ms: u64,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// 0 = not yet.
    pub started_at: i64,
    pub state: StateRecord,
    /// Its creation failed or was cut short and is being taken back: whatever is found of it is no container.
    pub undoing: bool,
    /// It was made, and that waits for the event journal.
    pub made: bool,
    /// Stages of the start and their times, for Get.
    pub stages: Vec<StageRecord>,
    pub restart: RestartRecord,
    /// It is removed when it has ended.
    pub remove: bool,
    /// Our init is its first process.
    pub init: bool,
}

/// The restart policy, and how it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartRecord {
    pub policy: RestartPolicyRecord,
    /// Of `on_failure`; 0 = any number.
    pub max: u32,
    pub count: u32,
    pub failures: u32,
    /// The last one before a restart.
    pub pause_ms: u64,
    /// Somebody asked for its end.
    pub stopped: bool,
    /// Incarnation whose end was looked at, and in which boot.
    pub decided_for: String,
    pub decided_boot: String,
    /// Nanoseconds since 1970; 0 = it stays ended.
    pub due_at: i64,
    /// That end.
    pub last: Option<ExitRecord>,
    /// It makes room for its next life: not deleted.
    pub replaced: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicyRecord {
    #[default]
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageRecord {
    pub name: String,
    pub duration_us: u64,
}

/// How far the daemon was when it last wrote: a hint, the shim knows better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateRecord {
    #[default]
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
    Deleting,
}

/// The runtime's name, and all that is needed to call it again after the configuration has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeRecord {
    pub name: String,
    pub kind: DriverKind,
    /// Absolute path; empty for the embedded one.
    pub binary: PathBuf,
    pub args: Vec<String>,
    /// The runtime's own `--root`.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    #[default]
    Command,
    Embedded,
}

/// Nothing is left to defaults in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StdioRecord {
    pub to: StdioToRecord,
    pub terminal: bool,
    pub width: u16,
    pub height: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdioToRecord {
    #[default]
    Null,
    Fifo {
        #[serde(default)]
        stdin: Option<PathBuf>,
        #[serde(default)]
        stdout: Option<PathBuf>,
        #[serde(default)]
        stderr: Option<PathBuf>,
        #[serde(default)]
        owner: Option<(u32, u32)>,
    },
    File {
        path: PathBuf,
    },
    Logger {
        program: PathBuf,
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        strict: bool,
    },
    Log {
        format: FormatRecord,
        policy: PolicyRecord,
        max_size: u64,
        max_files: u32,
        #[serde(default)]
        stdin: bool,
        #[serde(default)]
        discard: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatRecord {
    #[default]
    Cri,
    Json,
    Plain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyRecord {
    #[default]
    Block,
    Drop,
}

/// A process that can be known again: the number alone is reused by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    pub pid: u32,
    /// /proc/PID/stat field 22.
    pub start_time: u64,
}

/// `shim.json`: who serves this container. Written by the shim only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimRecord {
    pub shim: ProcessRecord,
    pub boot_id: String,
    /// Berth's version, for people.
    pub version: String,
    pub incarnation: String,
    /// Once the runtime's create is done.
    pub init: Option<ProcessRecord>,
    /// As /proc/PID/cgroup shows it for the memory controller (v1) or the unified hierarchy (v2).
    pub cgroup: String,
    pub state: ShimState,
    /// The cgroup's `oom_kill` counter before the start.
    pub oom_baseline: u64,
    /// 0 = not yet.
    pub started_at: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimState {
    #[default]
    Empty,
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// `exit.json`, and the `exit` of an exec. Written by the shim, or by the daemon for a shim that is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    pub incarnation: String,
    /// Empty = the init.
    pub exec_id: String,
    pub pid: u32,
    /// 0 to 255; 128 + signal for a process that a signal ended.
    pub code: u32,
    /// 0 = none.
    pub signal: u32,
    pub reason: ReasonRecord,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// One line, short: it must fit the reserved space.
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonRecord {
    #[default]
    Exited,
    Signaled,
    Oom,
    StartFailed,
    Lost,
    Reboot,
}

/// `exec-ID.json`: one more process of the container. Written by the shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRecord {
    pub exec_id: String,
    pub incarnation: String,
    pub process: ProcessRecord,
    pub request_id: String,
    pub terminal: bool,
    pub started_at: i64,
    /// `None` = it runs, or the shim was lost.
    pub exit: Option<ExitRecord>,
}

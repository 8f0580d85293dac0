//! The command line: runc's commands and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Berth's OCI runtime, a runc-compatible command.
#[derive(Debug, Parser)]
#[command(name = "berth-oci", version, about, max_term_width = 100)]
pub struct Cli {
    /// Folder of the runtime's state
    #[arg(long, global = true, default_value = "/run/berth-oci")]
    pub root: PathBuf,
    /// File that errors are appended to
    #[arg(long, global = true)]
    pub log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Accepted for compatibility
    #[arg(long, global = true)]
    pub debug: bool,
    /// Make cgroups through systemd (cgroup v2; cgroupsPath is slice:prefix:name)
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Accepted for compatibility
    #[arg(long, value_name = "BOOL")]
    pub rootless: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container and leave it before its command
    Create(Create),
    /// Let a created container run its command
    Start { id: String },
    /// Make a container, start it, wait for it and delete it
    Run {
        #[command(flatten)]
        create: Create,
        /// Do not wait
        #[arg(short, long)]
        detach: bool,
    },
    /// Start one more process in a container
    Exec(Exec),
    /// Send a signal
    Kill {
        /// To every process of the container
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Remove a container
    Delete {
        /// Kill it first
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Print the state of a container as JSON
    State { id: String },
    /// List containers
    List {
        #[arg(short, long, default_value = "table")]
        format: String,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Freeze a container
    Pause { id: String },
    /// Thaw a container
    Resume { id: String },
    /// List the processes of a container
    Ps {
        #[arg(short, long, default_value = "table")]
        format: String,
        id: String,
    },
    /// Change resource limits
    Update(Update),
    /// Tell what a container uses, and when it lacks memory
    Events {
        /// Once, and no more
        #[arg(long)]
        stats: bool,
        /// Between two reports: a number with ns, us, ms, s, m or h
        #[arg(long, default_value = "5s")]
        interval: String,
        id: String,
    },
    /// Write a config.json to begin with
    Spec {
        /// Folder to write it to
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// For a caller that is not root
        #[arg(long = "rootless")]
        for_rootless: bool,
    },
    /// Print what this runtime can do as JSON
    Features,
    /// Not supported
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Not supported
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Folder with config.json
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// File for the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting (initramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the process keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// File with the OCI process object
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Socket that gets the terminal's master
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// File for the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Give it a terminal; needs --console-socket
    #[arg(short, long)]
    pub tty: bool,
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Working folder
    #[arg(long)]
    pub cwd: Option<String>,
    /// NAME=value
    #[arg(short, long)]
    pub env: Vec<String>,
    /// UID or UID:GID
    #[arg(short, long)]
    pub user: Option<String>,
    /// One more group
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// One more capability
    #[arg(short, long)]
    pub cap: Vec<String>,
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// Also in a paused container: it runs when that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// File with an OCI resources object, `-` = stdin
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Bytes, memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds a period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds that may be saved up for later
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// 1 = only when nobody else wants the CPU
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    pub id: String,
}

//! Where a process's stdin, stdout and stderr go.

use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdio {
    pub to: StdioTo,
    /// A pseudo-terminal in place of pipes.
    pub terminal: bool,
    pub size: TerminalSize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StdioTo {
    /// Input is empty, output is thrown away.
    Null,
    Fifo(FifoSpec),
    Log(LogSpec),
    /// Both streams are appended to one file of the caller's.
    File(PathBuf),
    /// A program of the caller's reads both streams.
    Logger(LoggerSpec),
}

/// Run once for each process whose output it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerSpec {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// It must say that it is ready; without, ending before that is as good.
    pub strict: bool,
}

/// Named pipes that the caller made and owns; `None` = null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FifoSpec {
    pub stdin: Option<PathBuf>,
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
    /// User and group that the pipes get, so that the process can open them again; `None` = as they are.
    pub owner: Option<(u32, u32)>,
}

/// Output that Berth keeps. What is `None` was left to the daemon's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSpec {
    pub format: Option<LogFormat>,
    pub policy: Option<LogPolicy>,
    /// Bytes at which the file is rotated, 4,096 or more.
    pub max_size: Option<u64>,
    /// 1 to 1,000, the current one among them.
    pub max_files: Option<u32>,
    /// Keep the input open for Attach.
    pub stdin: bool,
    /// No file, only the window for Attach.
    pub discard: bool,
}

/// The daemon's own `[log]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDefaults {
    pub format: LogFormat,
    pub policy: LogPolicy,
    pub max_size: u64,
    pub max_files: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Cri,
    Json,
    Plain,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogPolicy {
    #[default]
    Block,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout = 1,
    Stderr = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { width: 80, height: 24 }
    }
}

impl Default for LogDefaults {
    fn default() -> Self {
        Self {
            format: LogFormat::Cri,
            policy: LogPolicy::Block,
            max_size: 10 << 20,
            max_files: 3,
        }
    }
}

/// Logs with the daemon's defaults: what a container gets that asks for nothing.
impl Default for Stdio {
    fn default() -> Self {
        Self {
            to: StdioTo::Log(LogSpec::default()),
            terminal: false,
            size: TerminalSize::default(),
        }
    }
}

impl Stdio {
    pub fn null() -> Self {
        Self {
            to: StdioTo::Null,
            terminal: false,
            size: TerminalSize::default(),
        }
    }

    /// Nothing is left to defaults afterwards, so that a record says what really happens.
    pub fn resolve(mut self, defaults: &LogDefaults) -> Self {
        if let StdioTo::Log(log) = &mut self.to {
            log.format.get_or_insert(defaults.format);
            log.policy.get_or_insert(defaults.policy);
            log.max_size.get_or_insert(defaults.max_size);
            log.max_files.get_or_insert(defaults.max_files);
        }
        self
    }
}

//! The daemon's configuration: flags over file over defaults, checked whole before anything is done with it.

mod document;
pub mod keys;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use document::{Document, Value};
use keys::{Applies, KEYS};

use crate::cli::Flags;

/// Where the file is looked for if no flag names one; there it may be missing.
pub const DEFAULT_PATH: &str = "/etc/berth/config.toml";

/// Nobody writes a bigger file by hand.
const MAX_FILE: u64 = 1 << 20;

/// Bytes of a unix socket's path that the kernel takes.
const MAX_SOCKET_PATH: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read the configuration {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} has more than {MAX_FILE} bytes or is not UTF-8", .path.display())]
    NotText { path: PathBuf },
    #[error("{origin}:{line}: {message}")]
    Syntax {
        origin: String,
        line: usize,
        message: String,
    },
    /// One complaint a line.
    #[error("{problems}")]
    Invalid { problems: String },
    #[error("{place}{key}: {message}")]
    Value {
        /// `FILE:LINE: `, or nothing where no file says it.
        place: String,
        key: &'static str,
        message: String,
    },
}

impl ConfigError {
    fn value(key: &'static str, message: String) -> Self {
        Self::Value {
            place: String::new(),
            key,
            message,
        }
    }

    /// With the line of the key.
    fn found_in(self, source: &Source) -> Self {
        match self {
            Self::Value { key, message, .. } => Self::Value {
                place: source.place(&key.split('.').collect::<Vec<_>>()),
                key,
                message,
            },
            other => other,
        }
    }
}

/// The file, for messages that come after it was read.
#[derive(Debug, Default)]
struct Source {
    text: String,
    origin: String,
}

impl Source {
    fn place(&self, key: &[&str]) -> String {
        match document::line_of_key(&self.text, key) {
            Some(line) => format!("{}:{line}: ", self.origin),
            None => String::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    Unix(PathBuf),
    Loopback(std::net::SocketAddr),
}

/// A runtime as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    pub path: PathBuf,
    pub args: Vec<String>,
    /// None = a folder in the daemon's state.
    pub root: Option<PathBuf>,
    pub systemd_cgroup: bool,
}

/// Everything the daemon is told, typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub address: PathBuf,
    /// Of shims that are not ours.
    pub ttrpc_address: PathBuf,
    pub state: PathBuf,
    pub root: PathBuf,
    /// None = found beside berthd, then in PATH.
    pub shim: Option<PathBuf>,
    pub log_level: String,
    pub log_format: LogFormat,
    pub metrics_address: Option<MetricsAddress>,
    pub worker_threads: usize,
    pub start_concurrency: usize,
    pub start_queue_limit: usize,
    pub start_timeout_ms: u32,
    /// None = the first found.
    pub default_runtime: Option<String>,
    pub allow_runtime_paths: bool,
    pub systemd_cgroup: bool,
    pub runtime_timeout_ms: u32,
    /// Our runtimes by what a client of containerd's calls them.
    pub containerd_runtimes: BTreeMap<String, String>,
    pub runtimes: BTreeMap<String, Runtime>,
    /// "cri", "json" or "plain".
    pub container_log_format: String,
    pub container_log_drop: bool,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
    pub stop_timeout_ms: u32,
    pub drain_timeout_ms: u32,
    pub shim_oom_score_adj: i32,
    pub shim_template: bool,
    pub events_keep: u64,
    pub events_keep_bytes: u64,
}

impl Config {
    /// Reads the file that the flags name (or the default one, if it is there) and lays the flags over it.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (document, source) = read(flags.config.as_deref())?;
        // Alone first: what is wrong in it has a line.
        Self::from_document(&document).map_err(|error| error.found_in(&source))?;
        Self::with_flags(document, flags)
    }

    /// What is not there on this machine, which need not be wrong: it may come later.
    pub fn missing(&self, flags: &Flags) -> Result<Vec<String>, ConfigError> {
        let (_, source) = read(flags.config.as_deref())?;
        let mut warnings = Vec::new();
        let mut warn = |key: &[&str], message: String| {
            warnings.push(format!("{}{}: {message}", source.place(key), key.join(".")));
        };
        let programs = self.runtimes.iter().map(|(name, runtime)| {
            let key = ["runtimes", name.as_str(), "path"];
            (key.to_vec(), &runtime.path)
        });
        let shim = self.shim.iter().map(|path| (vec!["daemon", "shim"], path));
        for (key, path) in programs.chain(shim) {
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {}
                Ok(_) => warn(&key, format!("{} is not a program", path.display())),
                Err(error) => warn(&key, format!("{}: {error}", path.display())),
            }
        }
        for (name, runtime) in &self.containerd_runtimes {
            if !is_runtime(runtime, &self.runtimes) {
                warn(
                    &["runtime", "containerd"],
                    format!("{name} is to be {runtime}, which is not in the configuration"),
                );
            }
        }
        Ok(warnings)
    }

    fn with_flags(mut document: Document, flags: &Flags) -> Result<Self, ConfigError> {
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                document.values.insert(key.to_owned(), value);
            }
        };
        let path = |path: &Option<PathBuf>| {
            path.as_deref()
                .map(|p| Value::Text(absolute(p).to_string_lossy().into_owned()))
        };
        set("daemon.address", path(&flags.address));
        set("daemon.ttrpc_address", path(&flags.ttrpc_address));
        set("daemon.state", path(&flags.state));
        set("daemon.root", path(&flags.root));
        set("daemon.shim", path(&flags.shim));
        set("daemon.log_level", flags.log_level.clone().map(Value::Text));
        set(
            "start.concurrency",
            flags.start_concurrency.map(|n| Value::Number(n.into())),
        );
        Self::from_document(&document)
    }

    fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let read = Fields(&document.values);
        let state = PathBuf::from(read.text("daemon.state"));
        let address = match read.path("daemon.address") {
            Some(path) => path,
            None => state.join("berthd.sock"),
        };
        if address.as_os_str().len() > MAX_SOCKET_PATH {
            let message = format!(
                "a unix socket's path has at most {MAX_SOCKET_PATH} bytes, {} has {}",
                address.display(),
                address.as_os_str().len()
            );
            return Err(ConfigError::value("daemon.address", message));
        }
        let runtimes: BTreeMap<String, Runtime> = document
            .runtimes
            .iter()
            .map(|(name, values)| (name.clone(), runtime(values)))
            .collect();
        let default_runtime = Some(read.text("runtime.default").to_owned()).filter(|name| !name.is_empty());
        if let Some(name) = &default_runtime
            && !is_runtime(name, &runtimes)
        {
            let message = format!(
                "{name:?} is not in the configuration: add [runtimes.{name}] with its path, or name one of {}",
                berth_supervisor::KNOWN_RUNTIMES.join(", ")
            );
            return Err(ConfigError::value("runtime.default", message));
        }
        let ttrpc_address = read.path("daemon.ttrpc_address").unwrap_or_else(|| {
            let mut beside = address.clone().into_os_string();
            beside.push(".ttrpc");
            beside.into()
        });
        Ok(Config {
            address,
            ttrpc_address,
            root: PathBuf::from(read.text("daemon.root")),
            shim: read.path("daemon.shim"),
            log_level: log_level(read.text("daemon.log_level"))?,
            log_format: match read.text("daemon.log_format") {
                "json" => LogFormat::Json,
                "journald" => LogFormat::Journald,
                _ => LogFormat::Text,
            },
            metrics_address: metrics_address(read.text("daemon.metrics_address"))?,
            worker_threads: read.number("daemon.worker_threads"),
            start_concurrency: read.number("start.concurrency"),
            start_queue_limit: read.number("start.queue_limit"),
            start_timeout_ms: read.number("start.timeout_ms"),
            default_runtime,
            allow_runtime_paths: read.flag("runtime.allow_paths"),
            systemd_cgroup: read.flag("runtime.systemd_cgroup"),
            runtime_timeout_ms: read.number("runtime.timeout_ms"),
            containerd_runtimes: containerd_runtimes(read.texts("runtime.containerd"))?,
            runtimes,
            container_log_format: read.text("log.format").to_owned(),
            container_log_drop: read.text("log.policy") == "drop",
            container_log_max_size: read.number("log.max_size"),
            container_log_max_files: read.number("log.max_files"),
            stop_timeout_ms: read.number("stop.timeout_ms"),
            drain_timeout_ms: read.number("shim.drain_timeout_ms"),
            shim_oom_score_adj: read.number("shim.oom_score_adj"),
            shim_template: read.flag("shim.template"),
            events_keep: read.number("events.keep"),
            events_keep_bytes: read.number("events.keep_bytes"),
            state,
        })
    }

    /// Lays the part of `newer` that SIGHUP applies over this configuration. The second value names the keys that changed
    /// but wait for a restart.
    pub fn reloaded(&self, newer: &Config) -> (Config, Vec<&'static str>) {
        let mut waiting = Vec::new();
        let mut note = |changed: bool, key: &'static str| {
            if changed {
                waiting.push(key);
            }
        };
        note(self.address != newer.address, "daemon.address");
        note(self.ttrpc_address != newer.ttrpc_address, "daemon.ttrpc_address");
        note(self.state != newer.state, "daemon.state");
        note(self.root != newer.root, "daemon.root");
        note(self.shim != newer.shim, "daemon.shim");
        note(self.log_format != newer.log_format, "daemon.log_format");
        note(self.metrics_address != newer.metrics_address, "daemon.metrics_address");
        note(self.worker_threads != newer.worker_threads, "daemon.worker_threads");
        note(
            self.shim_oom_score_adj != newer.shim_oom_score_adj,
            "shim.oom_score_adj",
        );
        note(self.shim_template != newer.shim_template, "shim.template");
        note(self.events_keep != newer.events_keep, "events.keep");
        note(self.events_keep_bytes != newer.events_keep_bytes, "events.keep_bytes");
        debug_assert!(waiting.iter().all(|w| {
            KEYS.iter()
                .any(|k| format!("{}.{}", k.section, k.name) == *w && k.applies == Applies::Restart)
        }));
        let merged = Config {
            address: self.address.clone(),
            ttrpc_address: self.ttrpc_address.clone(),
            state: self.state.clone(),
            root: self.root.clone(),
            shim: self.shim.clone(),
            log_format: self.log_format,
            metrics_address: self.metrics_address.clone(),
            worker_threads: self.worker_threads,
            shim_oom_score_adj: self.shim_oom_score_adj,
            shim_template: self.shim_template,
            events_keep: self.events_keep,
            events_keep_bytes: self.events_keep_bytes,
            ..newer.clone()
        };
        (merged, waiting)
    }
}

/// Values that the document's check has already held to their kinds.
struct Fields<'a>(&'a BTreeMap<String, Value>);

impl Fields<'_> {
    fn text(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|p| !p.is_empty()).map(PathBuf::from)
    }

    fn texts(&self, key: &str) -> &[String] {
        match self.0.get(key) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key) == Some(&Value::Flag(true))
    }

    /// The table's range is inside the type's; a test builds the extremes.
    fn number<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        match self.0.get(key) {
            Some(Value::Number(number)) => T::try_from(*number).unwrap_or_default(),
            _ => T::default(),
        }
    }
}

fn containerd_runtimes(pairs: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut runtimes = BTreeMap::from([("runc".to_owned(), "embedded".to_owned())]);
    for pair in pairs {
        match pair.split_once('=') {
            Some((name, runtime)) if !name.is_empty() && !runtime.is_empty() => {
                runtimes.insert(name.to_owned(), runtime.to_owned());
            }
            _ => {
                let message = format!("{pair:?} is not NAME=RUNTIME");
                return Err(ConfigError::value("runtime.containerd", message));
            }
        }
    }
    Ok(runtimes)
}

fn is_runtime(name: &str, runtimes: &BTreeMap<String, Runtime>) -> bool {
    runtimes.contains_key(name) || berth_supervisor::KNOWN_RUNTIMES.contains(&name)
}

fn runtime(values: &BTreeMap<String, Value>) -> Runtime {
    let read = Fields(values);
    Runtime {
        path: PathBuf::from(read.text("path")),
        args: match values.get("args") {
            Some(Value::Texts(args)) => args.clone(),
            _ => Vec::new(),
        },
        root: read.path("root"),
        systemd_cgroup: read.flag("systemd_cgroup"),
    }
}

fn log_level(text: &str) -> Result<String, ConfigError> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) if !text.is_empty() && text.split(',').all(names_a_level) => Ok(text.to_owned()),
        _ => Err(ConfigError::value(
            "daemon.log_level",
            format!(
                "must be error, warn, info, debug, trace, or a filter such as \"info,berth_supervisor=debug\", not {text:?}"
            ),
        )),
    }
}

/// A word alone would be a target of that name, of which everything is told and of all others nothing: not what a misspelled level means.
fn names_a_level(directive: &str) -> bool {
    let word = directive.trim();
    word.contains(['=', '[']) || word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
}

fn metrics_address(text: &str) -> Result<Option<MetricsAddress>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:")
        && path.starts_with('/')
        && path.len() <= MAX_SOCKET_PATH
    {
        return Ok(Some(MetricsAddress::Unix(path.into())));
    }
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(MetricsAddress::Loopback(address))),
        _ => Err(ConfigError::value(
            "daemon.metrics_address",
            format!("must be \"unix:/PATH\" or a loopback address such as \"127.0.0.1:9180\", not {text:?}"),
        )),
    }
}

/// A flag's path is relative to where the daemon was started; the daemon itself has no working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn read(named: Option<&Path>) -> Result<(Document, Source), ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Document::defaults(), Source::default()));
        }
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigError::NotText { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })?;
    let origin = path.to_string_lossy().into_owned();
    Ok((Document::parse(&text, &origin)?, Source { text, origin }))
}

#[cfg(test)]
mod test;

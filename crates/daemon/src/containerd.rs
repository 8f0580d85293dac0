//! In containerd's place: called as `containerd`, or as `berthd containerd …`, the daemon takes containerd's flags and reads what it
//! can of its configuration. Docker in managed mode starts its containerd so.
//!
//! What the file says and we do not have is told once, in a warning; `/etc/berth/config.toml` holds the rest as ever.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::cli::Flags;
use crate::error::Error;

const NAME: &str = "containerd";
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";

/// Bytes of a configuration, and of an event to publish.
const MAX_INPUT: u64 = 16 << 20;

#[derive(Debug, clap::Parser)]
#[command(name = NAME, disable_version_flag = true, about = "Berth in the place of containerd")]
struct Cli {
    /// Configuration file of containerd's, version 2 to 4
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// trace, debug, info, warn, error, fatal or panic
    #[arg(short, long, value_name = "L", global = true)]
    log_level: Option<String>,
    /// Socket of the API
    #[arg(short, long, value_name = "PATH", global = true)]
    address: Option<PathBuf>,
    /// What outlives a reboot
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Run-time state
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Publish the event on standard input
    Publish {
        #[arg(long)]
        topic: String,
        #[arg(long)]
        namespace: String,
    },
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// What holds where no file says otherwise
    Default,
    /// What holds now
    Dump,
}

/// What is to be done.
pub enum Wish {
    Serve {
        flags: Flags,
        warnings: Vec<String>,
    },
    Print(String),
    Publish {
        address: PathBuf,
        namespace: String,
        topic: String,
        event: Vec<u8>,
    },
}

/// The arguments behind the name, if we are called in containerd's place.
pub fn arguments(args: &[OsString]) -> Option<Vec<OsString>> {
    let called = args.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| name == NAME) {
        return Some(args[1..].to_vec());
    }
    args.get(1).filter(|arg| *arg == NAME).map(|_| args[2..].to_vec())
}

pub fn parse(args: Vec<OsString>) -> Result<Wish, Error> {
    let args = args.into_iter().map(doubled);
    let cli = Cli::parse_from(std::iter::once(OsString::from(NAME)).chain(args));
    if cli.version {
        let (package, version) = (env!("CARGO_PKG_REPOSITORY"), berth_api::CONTAINERD_VERSION);
        return Ok(Wish::Print(format!("{NAME} {package} {version} unknown\n")));
    }
    let text = match &cli.config {
        Some(path) => Some(read(path)?),
        None => match read(Path::new(DEFAULT_CONFIG)) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read?),
        },
    };
    let origin = cli.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let (file, warnings) = match &text {
        Some(text) => File::parse(text, &origin)?,
        None => (File::default(), Vec::new()),
    };
    let flags = Flags {
        address: cli.address.or(file.address).or_else(|| Some(DEFAULT_ADDRESS.into())),
        ttrpc_address: file.ttrpc_address,
        state: cli.state.or(file.state).or_else(|| Some("/run/containerd".into())),
        root: cli.root.or(file.root).or_else(|| Some("/var/lib/containerd".into())),
        log_level: cli.log_level.or(file.level).as_deref().map(level),
        ..Flags::default()
    };
    Ok(match cli.command {
        None => Wish::Serve { flags, warnings },
        Some(Command::Config(ConfigCommand::Default)) => Wish::Print(dump(&Flags {
            address: Some(DEFAULT_ADDRESS.into()),
            state: Some("/run/containerd".into()),
            root: Some("/var/lib/containerd".into()),
            ..Flags::default()
        })),
        Some(Command::Config(ConfigCommand::Dump)) => Wish::Print(dump(&flags)),
        Some(Command::Publish { topic, namespace }) => {
            let mut event = Vec::new();
            let read = std::io::stdin().take(MAX_INPUT).read_to_end(&mut event);
            read.map_err(|source| Error::Io {
                operation: "read",
                what: "the event on standard input".into(),
                source,
            })?;
            let address = flags.address.unwrap_or_default();
            Wish::Publish {
                address,
                namespace,
                topic,
                event,
            }
        }
    })
}

/// Go's flags may have one dash: `-config` is ours with two. A letter alone is a short one.
fn doubled(arg: OsString) -> OsString {
    let Some(text) = arg.to_str() else { return arg };
    let name = text.split('=').next().unwrap_or_default();
    let is_long = matches!(
        name,
        "-config" | "-log-level" | "-address" | "-root" | "-state" | "-version" | "-topic" | "-namespace"
    );
    if is_long { format!("-{text}").into() } else { arg }
}

/// containerd's levels that we don't have.
fn level(level: &str) -> String {
    match level {
        "fatal" | "panic" => "error".into(),
        "warning" => "warn".into(),
        level => level.to_owned(),
    }
}

fn dump(flags: &Flags) -> String {
    let quoted =
        |path: &Option<PathBuf>| toml::Value::String(path.as_deref().unwrap_or(Path::new("")).display().to_string());
    format!(
        "version = 2\nroot = {}\nstate = {}\n\n[grpc]\n  address = {}\n",
        quoted(&flags.root),
        quoted(&flags.state),
        quoted(&flags.address)
    )
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT).read_to_string(&mut text));
    read.map_err(|source| Error::Io {
        operation: "read",
        what: format!("the configuration {}", path.display()),
        source,
    })?;
    Ok(text)
}

/// What is taken from containerd's file.
#[derive(Debug, Default, PartialEq, Eq)]
struct File {
    address: Option<PathBuf>,
    ttrpc_address: Option<PathBuf>,
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    level: Option<String>,
}

/// Where version 4 keeps what earlier ones have in tables of their own.
const SERVERS: [(&str, &str); 3] = [
    ("io.containerd.server.v1.grpc", "grpc"),
    ("io.containerd.server.v1.ttrpc", "ttrpc"),
    ("io.containerd.server.v1.debug", "debug"),
];

impl File {
    fn parse(text: &str, origin: &Path) -> Result<(Self, Vec<String>), Error> {
        let wrong = |message: String| Error::Containerd {
            path: origin.to_owned(),
            message,
        };
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
        let mut warnings = Vec::new();
        match table.remove("version").map_or(Some(1), |version| version.as_integer()) {
            Some(2..=4) => {}
            Some(0 | 1) => warnings.push("version 1 is read as version 2".into()),
            other => return Err(wrong(format!("version {other:?} is not one of 2, 3, 4"))),
        }
        let mut file = File::default();
        let mut plugins = match table.remove("plugins") {
            Some(toml::Value::Table(plugins)) => plugins,
            _ => toml::Table::new(),
        };
        for (plugin, section) in SERVERS {
            if let Some(value) = plugins.remove(plugin) {
                table.insert(section.into(), value);
            }
        }
        // Snapshotters, CRI and the rest.
        warnings.extend(plugins.keys().map(|name| format!("plugins.{name:?} is not read")));
        for (key, value) in table {
            match (key.as_str(), value) {
                ("root", toml::Value::String(path)) => file.root = given(path),
                ("state", toml::Value::String(path)) => file.state = given(path),
                ("grpc" | "ttrpc" | "debug", toml::Value::Table(section)) => file.section(&key, section, &mut warnings),
                // What it asks for holds here anyway.
                ("oom_score" | "disabled_plugins" | "required_plugins" | "subreaper", _) => {}
                (key, _) => warnings.push(format!("{key} is not read")),
            }
        }
        Ok((file, warnings))
    }

    fn section(&mut self, name: &str, section: toml::Table, warnings: &mut Vec<String>) {
        for (key, value) in section {
            match (name, key.as_str(), value) {
                ("grpc", "address", toml::Value::String(path)) => self.address = given(path),
                ("ttrpc", "address", toml::Value::String(path)) => self.ttrpc_address = given(path),
                ("debug", "level", toml::Value::String(level)) => self.level = Some(level).filter(|l| !l.is_empty()),
                // Its own socket tells Go's insides.
                ("debug", ..) => {}
                ("grpc", "max_recv_message_size" | "max_send_message_size", _) => {}
                (_, "uid" | "gid", toml::Value::Integer(0)) => {}
                (name, key, _) => warnings.push(format!("{name}.{key} is not read")),
            }
        }
    }
}

fn given(path: String) -> Option<PathBuf> {
    let path = path.strip_prefix("unix://").map(str::to_owned).unwrap_or(path);
    Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod test {
    use super::*;

    fn parse(text: &str) -> (File, Vec<String>) {
        File::parse(text, Path::new("t")).expect("valid")
    }

    #[test]
    fn what_dockerd_writes_for_its_own() {
        let (file, warnings) = parse(
            "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nimports = []\noom_score = 0\nroot = \"/d/root\"\nstate = \"/d/state\"\n\
             version = 2\n[grpc]\naddress = \"/d/c.sock\"\ngid = 0\nuid = 0\nmax_recv_message_size = 16777216\n\
             [debug]\naddress = \"/d/debug.sock\"\nlevel = \"warn\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1\n",
        );
        let wanted = File {
            address: Some("/d/c.sock".into()),
            root: Some("/d/root".into()),
            state: Some("/d/state".into()),
            level: Some("warn".into()),
            ..File::default()
        };
        assert_eq!(file, wanted);
        assert_eq!(
            warnings,
            [
                "plugins.\"io.containerd.grpc.v1.cri\" is not read",
                "imports is not read"
            ]
        );
    }

    #[test]
    fn version_4_keeps_its_servers_among_the_plugins() {
        let (file, warnings) = parse(
            "version = 4\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/a\"\ngid = 7\n\
             [plugins.\"io.containerd.server.v1.ttrpc\"]\naddress = \"unix:///b\"\n",
        );
        assert_eq!(
            (file.address, file.ttrpc_address),
            (Some("/a".into()), Some("/b".into()))
        );
        assert_eq!(warnings, ["grpc.gid is not read"]);
        for wrong in ["version = 5", "version = \"2\"", "[grpc"] {
            assert!(File::parse(wrong, Path::new("t")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_flags() {
        let args = |args: &[&str]| arguments(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(args(&["/usr/bin/berthd", "--state", "containerd"]), None);
        assert_eq!(
            args(&["/usr/bin/containerd", "-l", "x"]),
            Some(vec!["-l".into(), "x".into()])
        );
        assert_eq!(args(&["berthd", "containerd"]), Some(Vec::new()));
        assert_eq!(doubled("-config=/x".into()), "--config=/x");
        assert_eq!(doubled("-l".into()), "-l");
        assert_eq!(level("panic"), "error");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*", key in "[a-z_.]{1,12}", value in "[0-9a-z\"'\\[\\]{}=., -]{0,12}") {
            let _ = File::parse(&text, Path::new("t"));
            let _ = File::parse(&format!("version = 3\n[grpc]\n{key} = {value}\n"), Path::new("t"));
        }
    }
}

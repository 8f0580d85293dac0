//! The daemon's own log: on stderr, text for people or JSON for machines, or to journald itself. Its filter can be changed while it runs.

use std::io;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Config, LogFormat};
use crate::error::Error;

/// Changes the filter.
pub struct Log {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Log {
    /// `level` was checked with the configuration.
    pub fn set_level(&self, level: &str) {
        let set = directives(level)
            .parse()
            .map_err(|e: tracing_subscriber::filter::ParseError| e.to_string())
            .and_then(&self.set);
        if let Err(error) = set {
            tracing::error!(error, level, "the log level can't be changed");
        }
    }
}

pub fn start(config: &Config) -> Result<Log, Error> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::Io {
        operation: "start",
        what: "the log".into(),
        source: io::Error::other(e),
    };
    if config.log_format == LogFormat::Journald {
        return to_journald(&config.log_level, failed);
    }
    let plain = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(&config.log_level)))
        .with_writer(io::stderr)
        .with_ansi(false);
    // The two formats are two types all the way up to the handle.
    macro_rules! begin {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map_err(failed)?;
            Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }};
    }
    Ok(match config.log_format {
        LogFormat::Text | LogFormat::Journald => Log { set: begin!(plain) },
        LogFormat::Json => Log {
            set: begin!(plain.json().flatten_event(true)),
        },
    })
}

fn to_journald(level: &str, failed: impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Error) -> Result<Log, Error> {
    let layer = tracing_journald::layer().map_err(|error| failed(error.into()))?;
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives(level)));
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(layer.with_syslog_identifier("berthd".into()));
    subscriber.try_init().map_err(|error| failed(error.into()))?;
    Ok(Log {
        set: Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())),
    })
}

/// One word is about our own crates: what the HTTP/2 library has to say at debug drowns everything else. A filter is taken as
/// it is written.
fn directives(level: &str) -> String {
    match level.to_ascii_lowercase().as_str() {
        word @ ("debug" | "trace") => {
            let ours = ["berthd", "berth_api", "berth_supervisor", "berth_record"];
            ours.iter()
                .fold("info".to_owned(), |all, name| format!("{all},{name}={word}"))
        }
        _ => level.to_owned(),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_word_is_about_us_and_a_filter_is_its_own() {
        assert_eq!(directives("warn"), "warn");
        assert!(directives("debug").starts_with("info,berthd=debug,"));
        assert_eq!(directives("h2=trace,info"), "h2=trace,info");
        for level in ["off", "warn", "DEBUG", "trace", "h2=trace,info"] {
            directives(level).parse::<EnvFilter>().expect("a filter");
        }
    }
}

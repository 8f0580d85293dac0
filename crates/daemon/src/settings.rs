//! The configuration as the supervisor takes it.

use std::path::PathBuf;
use std::time::Duration;

use berth_core::{LogDefaults, LogFormat, LogPolicy};
use berth_supervisor as supervisor;

use crate::config::{self, Config};

pub fn supervisor(config: &Config, shim: PathBuf) -> supervisor::Config {
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let mut settings = supervisor::Config::new(&config.state, &config.root, shim);
    settings.start = supervisor::StartConfig {
        concurrency: config.start_concurrency,
        queue_limit: config.start_queue_limit,
        timeout: ms(config.start_timeout_ms),
    };
    settings.runtime = supervisor::RuntimeConfig {
        default: config.default_runtime.clone().unwrap_or_default(),
        allow_paths: config.allow_runtime_paths,
        systemd_cgroup: config.systemd_cgroup,
        timeout: ms(config.runtime_timeout_ms),
        runtimes: config
            .runtimes
            .iter()
            .map(|(name, r)| (name.clone(), runtime(r)))
            .collect(),
    };
    settings.containerd_runtimes = config.containerd_runtimes.clone();
    settings.log = LogDefaults {
        format: match config.container_log_format.as_str() {
            "json" => LogFormat::Json,
            "plain" => LogFormat::Plain,
            _ => LogFormat::Cri,
        },
        policy: if config.container_log_drop {
            LogPolicy::Drop
        } else {
            LogPolicy::Block
        },
        max_size: config.container_log_max_size,
        max_files: config.container_log_max_files,
    };
    settings.stop_timeout = ms(config.stop_timeout_ms);
    settings.shim.template = config.shim_template;
    settings.shim.drain_timeout = ms(config.drain_timeout_ms);
    settings.shim.oom_score_adj = config.shim_oom_score_adj;
    settings.events = supervisor::EventsConfig {
        keep: config.events_keep,
        keep_bytes: config.events_keep_bytes,
    };
    settings
}

fn runtime(runtime: &config::Runtime) -> supervisor::Runtime {
    supervisor::Runtime {
        path: runtime.path.clone(),
        args: runtime.args.clone(),
        root: runtime.root.clone(),
        systemd_cgroup: runtime.systemd_cgroup,
    }
}

//! The daemon's life: open the supervisor, listen, serve, hear signals, drain.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Api;
use berth_record::Layout;
use berth_supervisor::{ContainerState, Supervisor};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::Flags;
use crate::config::Config;
use crate::error::Error;
use crate::listen::{self, Listening};
use crate::logging::Log;
use crate::{doctor, metrics, process, settings, stores, systemd};

/// Starts that are at work get this long to end before the daemon does.
const DRAIN: Duration = Duration::from_secs(10);

/// Connections get this long after it: their last answers are on the way. Streams without end are cut.
const HANG_UP: Duration = Duration::from_millis(500);

/// Before anything that takes time: signals that only ask for something must not end a daemon that does not listen to them yet. The
/// handlers stay when this small runtime has gone.
pub fn hold_signals() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            operation: "start",
            what: "a runtime for signals".into(),
            source,
        })?;
    let _context = runtime.enter();
    drop(hear(SignalKind::hangup())?);
    drop(hear(SignalKind::user_defined1())?);
    Ok(())
}

fn hear(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Io {
        operation: "hear",
        what: "signals".into(),
        source,
    })
}

pub async fn run(config: Config, flags: Flags, log: Log) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let shim = process::find_shim(config.shim.as_deref())?;
    // Before any socket: it locks the state folder and starts the template, which must inherit nothing.
    let supervisor = Supervisor::open(settings::supervisor(&config, shim.clone())).await?;
    process::raise_descriptors();
    let listening = match Listening::inherited()? {
        Some(listening) => listening,
        None => Listening::bind(&config.address)?,
    };
    let ttrpc_address = config.ttrpc_address.clone();
    let (address, ours) = (listening.address.clone(), listening.is_ours());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %address.display(),
        state = %config.state.display(),
        root = %config.root.display(),
        "serving"
    );
    let (hang_up, hung_up) = oneshot::channel::<()>();
    let (meta, content) = stores::open(&config.root).await?;
    supervisor.keep_in(Arc::new(stores::Kept(meta.clone()))).await;
    let shims = listen::beside(&config.ttrpc_address);
    let has_shims = shims.is_some();
    let api = Api::new(supervisor.clone(), meta, content).with_shims(shims);
    let serving = tokio::spawn(api.serve(listening.listener, async {
        // Dropped is as good as sent.
        let _ = hung_up.await;
    }));
    let metrics = metrics::start(config.metrics_address.as_ref(), supervisor.clone()).await?;
    let watchdog = tokio::spawn(systemd::watchdog(address.clone(), supervisor.clone()));
    systemd::ready(&address);
    let layout = Layout::new(&config.state, &config.root);
    let (found, looked) = (supervisor.clone(), supervisor.clone());
    let examination = tokio::spawn(async move {
        tell_found(&found).await;
        doctor::at_start(looked, layout).await;
    });

    let mut daemon = Daemon {
        config,
        flags,
        log,
        shim,
        supervisor,
    };
    let mut serving = serving;
    let ended = loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop(name) => {
                    tracing::info!(signal = name, "ending; containers stay");
                    break None;
                }
                Wish::Reload => daemon.reload(),
                Wish::Dump => daemon.dump(),
            },
            ended = &mut serving => break Some(ended),
        }
    };
    systemd::stopping();
    watchdog.abort();
    examination.abort();
    let result = match ended {
        // It serves until it is told to end: this is a failure.
        Some(ended) => Err(served(ended)
            .err()
            .unwrap_or_else(|| Error::Serve("it ended by itself".into()))),
        None => {
            daemon.drain(&mut signals).await;
            drop(hang_up);
            match tokio::time::timeout(HANG_UP, &mut serving).await {
                Ok(ended) => served(ended),
                Err(_) => {
                    serving.abort();
                    Ok(())
                }
            }
        }
    };
    listen::remove(&address, ours);
    listen::remove(&ttrpc_address, has_shims);
    metrics.end();
    tracing::info!("ended");
    result
}

/// Once per start: what is still there of the last daemon's.
async fn tell_found(supervisor: &Supervisor) {
    supervisor.adopted().await;
    let Ok(found) = supervisor.list(None, Default::default(), false).await else {
        return;
    };
    let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
    let running = found.iter().filter(|container| runs(container.state)).count();
    if !found.is_empty() {
        tracing::info!(containers = found.len(), "found {running} running");
    }
}

fn served<E: std::error::Error>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            Err(Error::Serve(format!("{error}{cause}")))
        }
        Err(error) => Err(Error::Serve(error.to_string())),
    }
}

struct Daemon {
    config: Config,
    flags: Flags,
    log: Log,
    shim: PathBuf,
    supervisor: Supervisor,
}

impl Daemon {
    /// SIGHUP. A file that is wrong changes nothing.
    fn reload(&mut self) {
        let newer = match Config::load(&self.flags) {
            Ok(newer) => newer,
            Err(error) => {
                tracing::error!(%error, "the configuration is not reloaded");
                return;
            }
        };
        let (config, waiting) = self.config.reloaded(&newer);
        self.config = config;
        self.log.set_level(&self.config.log_level);
        self.supervisor
            .reconfigure(settings::supervisor(&self.config, self.shim.clone()));
        tracing::info!("the configuration is reloaded");
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "changed, but they wait for a restart");
        }
    }

    /// SIGUSR1.
    fn dump(&self) {
        let calls = self.supervisor.calls();
        tracing::info!(calls = calls.len(), "live calls, the oldest first");
        for call in calls {
            let id = call.key.as_ref().map(ToString::to_string).unwrap_or_default();
            let age_ms = u64::try_from(call.age.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(operation = call.operation, id, stage = call.stage, age_ms, "live call");
        }
    }

    /// No new starts; those at work end, or their time does, or a second signal comes.
    async fn drain(&self, signals: &mut Signals) {
        systemd::draining(DRAIN);
        let drained = self.supervisor.shutdown(DRAIN);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => return,
                wish = signals.next() => match wish {
                    Wish::Stop(name) => {
                        tracing::warn!(signal = name, "a second signal: not waiting for starts at work");
                        return;
                    }
                    Wish::Dump => self.dump(),
                    Wish::Reload => {}
                },
            }
        }
    }
}

enum Wish {
    Stop(&'static str),
    Reload,
    Dump,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        Ok(Signals {
            term: hear(SignalKind::terminate())?,
            int: hear(SignalKind::interrupt())?,
            hup: hear(SignalKind::hangup())?,
            usr1: hear(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.term.recv() => Wish::Stop("SIGTERM"),
            _ = self.int.recv() => Wish::Stop("SIGINT"),
            _ = self.hup.recv() => Wish::Reload,
            _ = self.usr1.recv() => Wish::Dump,
        }
    }
}

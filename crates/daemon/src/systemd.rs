//! What systemd is told, and its watchdog: a sign of life is sent only after a real call has gone through the socket and
//! the supervisor.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_supervisor::Supervisor;
use sd_notify::NotifyState;

/// Without systemd this does nothing.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd can't be told");
    }
}

pub fn ready(address: &Path) {
    let status = format!("Serving on {}", address.display());
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Runs for ever, if systemd wants a watchdog.
pub async fn watchdog(address: PathBuf, supervisor: Supervisor) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // One late answer is forgiven: the next one is still in time.
    let period = limit / 3;
    loop {
        // systemd asks for a sign of life by the clock.
        tokio::time::sleep(period).await;
        match berth_api::round_trip(&address, &supervisor, period).await {
            Ok(()) => notify(&[NotifyState::Watchdog]),
            Err(error) => {
                tracing::error!(error, within = ?period, "a call of our own was not answered; no sign of life for systemd");
            }
        }
    }
}

/// A short line for `systemctl status`.
pub fn draining(timeout: Duration) {
    notify(&[NotifyState::Status(&format!(
        "Draining for at most {} s; containers stay",
        timeout.as_secs()
    ))]);
}

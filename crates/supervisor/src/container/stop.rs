//! Stop: the stop signal, then SIGKILL, then the exit.

use berth_core::state::State;
use berth_core::{ContainerKey, ErrorCode, ExitStatus, Signal};
use tokio::time::Duration;
use tokio::time::error::Elapsed;

use super::task::Task;
use super::{Handle, Wish, calls};
use crate::Error;
use crate::reply::{self, Reply};
use crate::stage::stage;
use crate::types::StopSpec;

/// How long a killed container may take to end before the caller is told that it hangs.
const HANGS: Duration = Duration::from_secs(10);

impl Task {
    pub(super) fn begin_stop(&mut self, spec: StopSpec, reply: Reply<ExitStatus>) {
        stage!("stop.begun");
        let Some(handle) = self.env.registry.get(&self.key) else {
            return;
        };
        let own = Signal::from_number(self.record.stop_signal).unwrap_or(Signal::TERM);
        let signal = spec.signal.unwrap_or(own);
        let patience = spec
            .timeout
            .unwrap_or(Duration::from_millis(self.record.stop_timeout_ms));
        // Nothing of its command runs yet, and what waits in its place may ignore every other signal.
        let (signal, all) = match self.state {
            State::Created => (Signal::KILL, true),
            _ => (signal, false),
        };
        let key = self.key.clone();
        tokio::spawn(async move {
            reply.stage("waiting for its end");
            let mut exit = ended_by(&handle, &key, signal, all, patience).await;
            if exit.is_err() {
                reply.stage("killed");
                exit = ended_by(&handle, &key, Signal::KILL, true, HANGS).await;
            }
            stage!("stop.ended");
            reply.send(match exit {
                Ok(Some(exit)) => Ok(exit),
                Ok(None) => Err(Error::new(
                    ErrorCode::NotFound,
                    "stop",
                    &key,
                    "the container was deleted before it ended",
                )),
                Err(_) if handle.now().is_some_and(|s| s.view.shim_pid == 0) => Err(calls::no_shim("stop", &key)),
                Err(_) => {
                    let message = format!(
                        "it has not ended {} s after SIGKILL: a process hangs in the kernel (see /proc/PID/stack); \
                         delete with force frees the id and cleans up when it lets go",
                        HANGS.as_secs()
                    );
                    Err(Error::new(ErrorCode::Timeout, "stop", &key, message))
                }
            });
            stage!("stop.answered");
        });
    }
}

/// Sends the signal and waits for the end. A signal that did not arrive is sent again when the container has changed: its shim is
/// there again, say.
async fn ended_by(
    handle: &Handle,
    key: &ContainerKey,
    signal: Signal,
    all: bool,
    patience: Duration,
) -> Result<Option<ExitStatus>, Elapsed> {
    let sending = async {
        let mut changes = handle.watch();
        loop {
            changes.mark_seen();
            let (reply, answer) = reply::unnamed("stop", key);
            let wish = Wish::Signal {
                exec: None,
                signal,
                all,
                request_id: String::new(),
                reply,
            };
            if handle.wish(wish).await.is_err() {
                break;
            }
            match answer.get().await {
                Ok(()) => break,
                // It may have ended just now, and its end is what is waited for.
                Err(error) => tracing::debug!(container = %key, %error, %signal, "a signal of stop was not delivered"),
            }
            if !changes.changed().await {
                break;
            }
        }
        stage!("stop.signalled");
        std::future::pending().await
    };
    tokio::time::timeout(patience, async {
        tokio::select! {
            biased;
            // First: that a signal was delivered is noted also when the end is there already.
            never = sending => never,
            exit = handle.ended(None) => exit,
        }
    })
    .await
}

//! Stop: the stop signal, then SIGKILL, then the exit.

use berth_core::{ErrorCode, ExitStatus, Signal};
use berth_wire::rpc::Method;
use berth_wire::shim as wire;
use tokio::time::Duration;

use super::calls;
use super::task::Task;
use crate::Error;
use crate::reply::Reply;
use crate::stage::stage;
use crate::types::StopSpec;

/// How long a killed container may take to end before the caller is told that it hangs.
const HANGS: Duration = Duration::from_secs(10);

impl Task {
    pub(super) fn begin_stop(&mut self, spec: StopSpec, reply: Reply<ExitStatus>) {
        stage!("stop.begun");
        let Some(link) = self.link.clone() else {
            return reply.send(Err(calls::no_shim("stop", &self.key)));
        };
        let Some(handle) = self.env.registry.get(&self.key) else {
            return;
        };
        let own = Signal::from_number(self.record.stop_signal).unwrap_or(Signal::TERM);
        let signal = spec.signal.unwrap_or(own);
        let patience = spec
            .timeout
            .unwrap_or(Duration::from_millis(self.record.stop_timeout_ms));
        let (key, deadline) = (self.key.clone(), self.env.config().shim.call_timeout);
        tokio::spawn(async move {
            let send = async |signal: Signal, all| {
                let signal = signal.number();
                let request = wire::SignalRequest {
                    exec_id: String::new(),
                    signal,
                    all,
                    request_id: String::new(),
                };
                // It may have ended just now, and its end is what is waited for.
                let sent = link
                    .client
                    .call::<wire::SignalResponse>(Method::Signal, &request, deadline)
                    .await;
                if let Err(error) = sent {
                    tracing::debug!(container = %key, %error, signal, "a signal of stop was not delivered");
                }
            };
            reply.stage("waiting for its end");
            send(signal, false).await;
            stage!("stop.signalled");
            let mut exit = tokio::time::timeout(patience, handle.ended(None)).await;
            if exit.is_err() {
                reply.stage("killed");
                send(Signal::KILL, true).await;
                exit = tokio::time::timeout(HANGS, handle.ended(None)).await;
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

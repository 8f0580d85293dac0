//! Signals to this program while a session lives: passed on, or its end.

use std::future::poll_fn;
use std::task::Poll;

use berth_wire::v1::SignalRequest;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{End, Target};
use crate::error::{CliError, Result};
use berth_client::{Client, random_id};

pub const WINCH: i32 = rustix::process::Signal::WINCH.as_raw();
const USR1: i32 = rustix::process::Signal::USR1.as_raw();
const USR2: i32 = rustix::process::Signal::USR2.as_raw();

/// Whether the signal would have ended us by default and by intent; the others are only passed on.
pub fn ends(signal: i32) -> bool {
    !matches!(signal, WINCH | USR1 | USR2)
}

/// So many interrupts mean it: the session ends though the process does not.
const IMPATIENT: u32 = 3;

/// Passes signals on to the process, as long as somebody has patience.
pub struct Proxy {
    client: Client,
    id: String,
    exec_id: String,
    passes: bool,
    interrupts: u32,
}

impl Proxy {
    pub fn new(target: &Target) -> Self {
        Self {
            client: target.client.clone(),
            id: target.id.clone(),
            exec_id: target.exec_id.clone(),
            passes: target.proxy_signals,
            interrupts: 0,
        }
    }

    /// The end of the session, if the signal means us.
    pub fn pass(&mut self, signal: i32) -> Option<End> {
        if signal == WINCH {
            return None;
        }
        if ends(signal) {
            self.interrupts += 1;
            if !self.passes || self.interrupts >= IMPATIENT {
                return Some(End::Signalled(signal));
            }
        }
        let (client, id) = (self.client.clone(), self.id.clone());
        let request = SignalRequest {
            namespace: client.namespace.clone(),
            id: id.clone(),
            exec_id: self.exec_id.clone(),
            signal: signal.to_string(),
            all: false,
            request_id: random_id(),
        };
        // Whether it arrives is seen by what the process does.
        tokio::spawn(async move {
            let _ = client
                .call("kill", &id, request, |mut stub, request| async move {
                    stub.signal(request).await
                })
                .await;
        });
        None
    }
}

pub struct Signals(Vec<(i32, Signal)>);

impl Signals {
    /// From here on the signals have no default effect.
    pub fn catch() -> Result<Self> {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::window_change(),
        ];
        let caught = kinds
            .into_iter()
            .map(|kind| signal(kind).map(|signal| (kind.as_raw_value(), signal)));
        caught.collect::<Result<_, _>>().map(Self).map_err(CliError::Signals)
    }

    pub async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }

    pub async fn next_ending(&mut self) -> i32 {
        loop {
            let signal = self.next().await;
            if ends(signal) {
                return signal;
            }
        }
    }
}

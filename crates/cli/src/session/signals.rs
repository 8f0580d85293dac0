//! Signals to this program while a session lives: passed on, or its end.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{CliError, Result};

pub const WINCH: i32 = rustix::process::Signal::WINCH.as_raw();
const USR1: i32 = rustix::process::Signal::USR1.as_raw();
const USR2: i32 = rustix::process::Signal::USR2.as_raw();

/// Whether the signal would have ended us by default and by intent; the others are only passed on.
pub fn ends(signal: i32) -> bool {
    !matches!(signal, WINCH | USR1 | USR2)
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

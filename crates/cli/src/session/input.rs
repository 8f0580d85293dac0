//! Our stdin, read by a thread of its own: a read that nobody ends must not hold the program.

use std::thread;

use rustix::stdio::stdin;
use tokio::sync::{mpsc, watch};

use crate::term::{self, DetachKeys};

const CHUNK: usize = 32 << 10;

pub enum Typed {
    Bytes(Vec<u8>),
    End,
    /// The detach keys: told even while bytes wait.
    Detach,
}

pub struct Input {
    bytes: mpsc::Receiver<Vec<u8>>,
    detached: watch::Receiver<bool>,
}

impl Input {
    /// Reads from now on, never more than one chunk ahead. With keys it looks for them.
    pub fn start(keys: Option<DetachKeys>) -> Self {
        let (sender, bytes) = mpsc::channel(1);
        let (detach, detached) = watch::channel(false);
        // Never joined: it sits in a read, and ends with the program.
        thread::spawn(move || read(keys, &sender, &detach));
        Self { bytes, detached }
    }

    /// The next of what was typed; without `wants_bytes` only whether somebody leaves.
    pub async fn next(&mut self, wants_bytes: bool) -> Typed {
        tokio::select! {
            biased;
            // Ended without the keys: nobody will type them.
            Ok(_) = self.detached.wait_for(|&detached| detached) => Typed::Detach,
            bytes = self.bytes.recv(), if wants_bytes => bytes.map_or(Typed::End, Typed::Bytes),
            else => std::future::pending().await,
        }
    }
}

fn read(mut keys: Option<DetachKeys>, sender: &mpsc::Sender<Vec<u8>>, detach: &watch::Sender<bool>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        // An error (the terminal is gone) is the end of input, too.
        let count = term::read(stdin(), &mut buffer).unwrap_or(0);
        if count == 0 {
            return;
        }
        let (bytes, found) = match &mut keys {
            Some(keys) => keys.scan(&buffer[..count]),
            None => (buffer[..count].to_vec(), false),
        };
        if !bytes.is_empty() && sender.blocking_send(bytes).is_err() {
            return;
        }
        if found {
            detach.send_replace(true);
            return;
        }
    }
}

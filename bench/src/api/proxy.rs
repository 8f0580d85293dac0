//! Between dockerd and the engine below it: bytes pass as they are, and how long each call took is read off the HTTP/2 frames.
//!
//! A call begins with the client's HEADERS of a stream and ends with the server's END_STREAM. One that never ends, a
//! subscription, counts nothing.

use crate::error::Result;
use crate::measure::millis;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What a client says before its first frame.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Calls that ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub calls: usize,
    /// Of all together; calls at the same time count each.
    pub ms: f64,
}

#[derive(Default)]
struct Calls {
    open: HashMap<(usize, u32), Instant>,
    ended: Spent,
}

type Shared = Arc<Mutex<Calls>>;

pub struct Proxy {
    calls: Shared,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub fn start(at: &Path, engine: PathBuf) -> Result<Proxy> {
        let listener = UnixListener::bind(at)?;
        let calls = Shared::default();
        let shared = calls.clone();
        let accepting = tokio::spawn(async move {
            let mut connection = 0;
            // Connections end with their clients.
            while let Ok((client, _)) = listener.accept().await {
                connection += 1;
                tokio::spawn(pass(connection, client, engine.clone(), shared.clone()));
            }
        });
        Ok(Proxy { calls, accepting })
    }

    /// The calls that ended since the last time.
    pub fn take(&self) -> Spent {
        std::mem::take(&mut lock(&self.calls).ended)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(calls: &Shared) -> std::sync::MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass(connection: usize, client: UnixStream, engine: PathBuf, calls: Shared) {
    let Ok(engine) = UnixStream::connect(engine).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    let begun = |kind, _, stream| match kind {
        HEADERS => drop(
            lock(&calls)
                .open
                .entry((connection, stream))
                .or_insert_with(Instant::now),
        ),
        RST_STREAM => drop(lock(&calls).open.remove(&(connection, stream))),
        _ => {}
    };
    let ended = |kind, flags: u8, stream| {
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends || kind == RST_STREAM {
            let mut calls = lock(&calls);
            if let Some(begin) = calls.open.remove(&(connection, stream)).filter(|_| ends) {
                calls.ended.calls += 1;
                calls.ended.ms += millis(begin.elapsed());
            }
        }
    };
    tokio::join!(
        copy(from_client, to_engine, Frames::after(PREFACE), begun),
        copy(from_engine, to_client, Frames::after(0), ended)
    );
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frames: Frames,
    mut tell: impl FnMut(u8, u8, u32),
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        frames.read(&buffer[..read], &mut tell);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // The other side hears of the end by it.
    let _ = to.shutdown().await;
}

/// Where frames begin in the bytes of one direction.
struct Frames {
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    fn after(skip: usize) -> Frames {
        Frames {
            skip,
            head: Vec::with_capacity(FRAME_HEAD),
        }
    }

    /// Tells kind, flags and stream of each frame whose head ends in these bytes.
    fn read(&mut self, mut data: &[u8], tell: &mut impl FnMut(u8, u8, u32)) {
        while !data.is_empty() {
            let skipped = self.skip.min(data.len());
            self.skip -= skipped;
            data = &data[skipped..];
            let take = (FRAME_HEAD - self.head.len()).min(data.len());
            self.head.extend(&data[..take]);
            data = &data[take..];
            if let &[a, b, c, kind, flags, s, t, u, v] = self.head.as_slice() {
                tell(kind, flags, u32::from_be_bytes([s, t, u, v]) & (u32::MAX >> 1));
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let frame = |length: u8, kind, flags, stream: u8| {
            let mut frame = vec![0, 0, length, kind, flags, 0x80, 0, 0, stream];
            frame.extend(std::iter::repeat_n(1, length.into()));
            frame
        };
        let bytes = [
            vec![7; PREFACE],
            frame(0, 4, 0, 0),
            frame(20, 1, 4, 1),
            frame(3, 0, 1, 1),
        ]
        .concat();
        for piece in [1, 2, 7, 30, bytes.len()] {
            let (mut frames, mut seen) = (Frames::after(PREFACE), Vec::new());
            for data in bytes.chunks(piece) {
                frames.read(data, &mut |kind, flags, stream| seen.push((kind, flags, stream)));
            }
            assert_eq!(seen, [(4, 0, 0), (1, 4, 1), (0, 1, 1)], "{piece}");
        }
    }
}

//! Named pipes as a caller makes them for `StdioFifo`.
use crate::v1::{Stdio, StdioFifo, stdio};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Three FIFOs in a folder.
pub struct Fifos {
    pub stdin: PathBuf,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

pub fn make(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap_or_else(|e| panic!("mkfifo {}: {e}", path.display()));
}

impl Fifos {
    pub fn new(dir: &Path, name: &str) -> Fifos {
        let path = |end: &str| {
            let path = dir.join(format!("{name}.{end}"));
            make(&path);
            path
        };
        Fifos {
            stdin: path("stdin"),
            stdout: path("stdout"),
            stderr: path("stderr"),
        }
    }

    fn text(path: &Path) -> String {
        path.to_str().expect("utf-8").to_owned()
    }

    pub fn stdio(&self) -> Stdio {
        Stdio {
            to: Some(stdio::To::Fifo(StdioFifo {
                stdin: Fifos::text(&self.stdin),
                stdout: Fifos::text(&self.stdout),
                stderr: Fifos::text(&self.stderr),
            })),
            ..Stdio::default()
        }
    }

    /// Only stdout, as a job without input has it.
    pub fn stdout_only(&self) -> Stdio {
        let to = StdioFifo {
            stdout: Fifos::text(&self.stdout),
            ..StdioFifo::default()
        };
        Stdio {
            to: Some(stdio::To::Fifo(to)),
            ..Stdio::default()
        }
    }
}

/// Opens the reading end; never waits.
pub fn reader(path: &Path) -> pipe::Receiver {
    pipe::OpenOptions::new()
        .open_receiver(path)
        .unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

/// Opens the writing end once somebody reads.
pub async fn writer(path: &Path) -> pipe::Sender {
    crate::until("a reader of the FIFO", || {
        pipe::OpenOptions::new().open_sender(path).ok()
    })
    .await
}

/// All bytes until every writer has closed. A reader that comes before any writer sees EOF: so it first waits for a byte or
/// for `ended` (the container's exit).
pub async fn read_all(from: pipe::Receiver, ended: impl Future<Output = ()>) -> Vec<u8> {
    crate::within("the FIFO's end of file", crate::LIMIT * 2, read_to_end(from, ended)).await
}

async fn read_to_end(mut from: pipe::Receiver, ended: impl Future<Output = ()>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut ended = std::pin::pin!(ended);
    let mut over = false;
    loop {
        let mut chunk = vec![0; 1 << 16];
        tokio::select! {
            biased;
            read = from.read(&mut chunk) => match read.expect("read the FIFO") {
                0 if over => return all,
                // No writer yet, or none any more: only the exit tells which.
                0 => { (&mut ended).await; over = true }
                n => all.extend_from_slice(&chunk[..n]),
            },
            () = &mut ended, if !over => over = true,
        }
    }
}

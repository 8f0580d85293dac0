//! A session through named pipes of our own, for commands without a terminal.
//!
//! The bytes pass neither berthd nor a shim: a pipe holds the process while we are slow, so that nothing is ever lost
//! (`berth exec web tar c /srv > backup.tar`), whatever happens to berthd meanwhile. Only the exit is asked of berthd.

use std::io;
use std::path::{Path, PathBuf};

use berth_wire::v1::{CloseStdinRequest, Stdio, StdioFifo, Stream, WaitRequest, stdio::To};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

use super::input::{Input, Typed};
use super::output::{self, Output};
use super::signals::Proxy;
use super::{End, Signals, Target};
use crate::error::{CliError, Result};
use berth_client::random_id;

const CHUNK: usize = 64 << 10;

/// Named pipes in a private folder, which is gone when this is dropped.
#[derive(Debug)]
pub struct Fifos {
    folder: PathBuf,
    stdin: bool,
    stdout: Receiver,
    stderr: Receiver,
}

impl Fifos {
    pub fn make(stdin: bool) -> Result<Self> {
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|folder| folder.is_dir());
        let folder = base
            .unwrap_or_else(std::env::temp_dir)
            .join(format!("berth-exec-{}", random_id()));
        let failed = |source: io::Error| CliError::File {
            operation: "make pipes in",
            path: folder.clone(),
            source,
        };
        rustix::fs::mkdir(&folder, Mode::RWXU).map_err(|error| failed(error.into()))?;
        let opened = (|| {
            for name in ["stdin", "stdout", "stderr"] {
                rustix::fs::mkfifoat(CWD, folder.join(name), Mode::RUSR | Mode::WUSR)?;
            }
            // Before the process is made: what it writes finds its reader.
            let open = |name| OpenOptions::new().open_receiver(folder.join(name));
            Ok((open("stdout")?, open("stderr")?))
        })();
        match opened {
            Ok((stdout, stderr)) => Ok(Self {
                folder,
                stdin,
                stdout,
                stderr,
            }),
            Err(error) => {
                remove(&folder);
                Err(failed(error))
            }
        }
    }

    pub fn stdio(&self) -> Stdio {
        let path = |name| self.folder.join(name).to_string_lossy().into_owned();
        let stdin = if self.stdin { path("stdin") } else { String::new() };
        Stdio {
            to: Some(To::Fifo(StdioFifo {
                stdin,
                stdout: path("stdout"),
                stderr: path("stderr"),
            })),
            ..Default::default()
        }
    }

    /// Whether an error is about them: berthd may see another /tmp than we do.
    pub fn is_blamed(&self, error: &CliError) -> bool {
        matches!(error, CliError::Berthd(berth_client::Error::Refused { message, .. }) if message.contains(&*self.folder.to_string_lossy()))
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    // Nothing else is in it, and nobody to tell.
    let _ = std::fs::remove_dir_all(folder);
}

/// Stays with an exec that was started on these pipes.
pub async fn run(target: Target, fifos: Fifos, signals: Signals) -> Result<End> {
    super::while_read(run_into(target, fifos, signals, Output::start(output::standard()))).await
}

async fn run_into(target: Target, mut fifos: Fifos, mut signals: Signals, mut output: Output) -> Result<End> {
    output.keep_little();
    let mut stdin = Stdin::open(&fifos);
    remove(&fifos.folder);
    let mut proxy = Proxy::new(&target);
    let request = WaitRequest {
        namespace: target.client.namespace.clone(),
        id: target.id.clone(),
        exec_id: target.exec_id.clone(),
    };
    let wait = target
        .client
        .call("exec", &target.id, request, |mut stub, request| async move {
            stub.wait(request).await
        });
    tokio::pin!(wait);
    let mut pending = None;
    let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut out_open, mut err_open) = (true, true);
    let exit = loop {
        tokio::select! {
            count = fifos.stdout.read(&mut out), if out_open && pending.is_none() => {
                let count = count.unwrap_or(0);
                out_open = count > 0;
                pending = out_open.then(|| (Stream::Stdout, out[..count].to_vec()));
            }
            count = fifos.stderr.read(&mut err), if err_open && pending.is_none() => {
                let count = count.unwrap_or(0);
                err_open = count > 0;
                pending = err_open.then(|| (Stream::Stderr, err[..count].to_vec()));
            }
            written = output.write(&mut pending), if pending.is_some() => {
                if let Err(error) = written {
                    return Ok(End::OutputClosed(error));
                }
            }
            () = stdin.pump(), if stdin.is_open() => if !stdin.is_open() { close_stdin(&target) },
            signal = signals.next() => if let Some(end) = proxy.pass(signal) { return Ok(end) },
            response = &mut wait => break response?.exit.unwrap_or_default(),
        }
    };
    drop(stdin);
    // The process has ended: what it wrote is in the pipes. Its children may hold them open for ever; they are not waited for.
    let drain = async {
        for (stream, fifo, buffer) in [
            (Stream::Stdout, &fifos.stdout, &mut out),
            (Stream::Stderr, &fifos.stderr, &mut err),
        ] {
            loop {
                if pending.is_some() {
                    output.write(&mut pending).await?;
                }
                // Not tokio's read: it believes what it knows of readiness, which may be a moment old.
                match rustix::io::read(fifo, buffer.as_mut_slice()) {
                    Ok(count) if count > 0 => pending = Some((stream, buffer[..count].to_vec())),
                    Err(Errno::INTR) => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
        output.finish(&mut pending).await
    };
    tokio::select! {
        biased;
        drained = drain => Ok(drained.map_or_else(End::OutputClosed, |()| End::Exited(exit))),
        signal = signals.next_ending() => Ok(End::Signalled(signal)),
    }
}

/// berthd holds the pipe open, too, so that a writer may come and go: the end must be said.
fn close_stdin(target: &Target) {
    let (client, id) = (target.client.clone(), target.id.clone());
    let request = CloseStdinRequest {
        namespace: client.namespace.clone(),
        id: id.clone(),
        exec_id: target.exec_id.clone(),
        request_id: random_id(),
    };
    // The process may have ended just now.
    tokio::spawn(async move {
        let _ = client
            .call("close stdin of", &id, request, |mut stub, request| async move {
                stub.close_stdin(request).await
            })
            .await;
    });
}

/// Our stdin on its way to the pipe.
struct Stdin {
    to: Option<(Sender, Input)>,
    bytes: Vec<u8>,
}

impl Stdin {
    fn open(fifos: &Fifos) -> Self {
        // No reader = the process has ended already.
        let sender = fifos
            .stdin
            .then(|| OpenOptions::new().open_sender(fifos.folder.join("stdin")).ok())
            .flatten();
        Self {
            to: sender.map(|sender| (sender, Input::start(None))),
            bytes: Vec::new(),
        }
    }

    fn is_open(&self) -> bool {
        self.to.is_some()
    }

    /// One step: takes input, or passes some on.
    async fn pump(&mut self) {
        let Some((sender, input)) = &mut self.to else { return };
        if self.bytes.is_empty() {
            match input.next(true).await {
                Typed::Bytes(bytes) => self.bytes = bytes,
                Typed::End | Typed::Detach => self.to = None,
            }
            return;
        }
        match sender.write(&self.bytes).await {
            Ok(count) => drop(self.bytes.drain(..count)),
            // It reads no more.
            Err(_) => self.to = None,
        }
    }
}

#[cfg(test)]
mod test {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::term::DetachKeys;
    use berth_client::fake::{Daemon, Script};

    #[tokio::test]
    async fn what_an_ended_process_wrote_is_all_there() {
        let daemon = Daemon::start(Script::default()).await;
        let target = Target {
            client: daemon.client().await,
            id: "web".into(),
            exec_id: "e".into(),
            offset: None,
            stdin: false,
            detach_keys: DetachKeys::parse("").expect("no keys"),
            proxy_signals: true,
        };
        let fifos = Fifos::make(false).expect("pipes");
        let folder = fifos.folder.clone();
        // A pipe's whole room, written and closed before anybody reads; stderr is held open, as by a child left behind.
        let writer = |name| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(folder.join(name))
                .expect("pipe")
        };
        writer("stdout").write_all(&[b'x'; 65_536]).expect("room");
        let mut left_behind = writer("stderr");
        left_behind.write_all(b"oh").expect("room");
        let written = Arc::new(Mutex::new((0, Vec::new())));
        let sink = written.clone();
        let output = Output::start(move |stream, data| {
            let mut written = sink.lock().expect("sink");
            match stream {
                Stream::Stderr => written.1.extend_from_slice(data),
                Stream::Stdout | Stream::Unspecified => written.0 += data.len(),
            }
            Ok(())
        });
        let end = run_into(target, fifos, Signals::catch().expect("signals"), output).await;
        assert!(matches!(end, Ok(End::Exited(exit)) if exit.code == 7));
        assert_eq!(*written.lock().expect("sink"), (65_536, b"oh".to_vec()));
        assert!(!folder.exists());
    }
}

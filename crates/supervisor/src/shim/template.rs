//! Makes shims: a template process that is exec'ed once and forks them on request; without one, each is exec'ed.
//!
//! Both run from a sealed copy of the binary in memory: /proc/self/exe of a shim can't be written, and an upgrade that replaces the
//! file changes nothing under us. A template that ends is replaced at the next fork; its shims live on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use berth_core::ContainerKey;
use berth_record::Folder;
use berth_sys::process::{self, Limit};
use berth_sys::socket;
use berth_wire::shim::{ForkRequest, ForkResponse};
use prost::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::exec;
use crate::deps::{BoxFuture, Forked, ShimProcess, Shims, Stream, watched};

/// A message of the template's fits.
const MESSAGE: usize = 4096;

/// The real `Shims`.
pub struct Launcher {
    program: Arc<OwnedFd>,
    /// `None` = not wanted, or not running just now.
    template: Mutex<Option<Arc<Template>>>,
    use_template: bool,
    /// The limit of open files that we were started with.
    nofile: Limit,
}

struct Template {
    socket: AsyncFd<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_token: u64,
    waiting: HashMap<u64, oneshot::Sender<io::Result<ShimProcess>>>,
    ended: bool,
}

impl Launcher {
    /// Copies the binary and starts the template, if one is wanted.
    pub fn new(binary: &Path, use_template: bool) -> io::Result<Self> {
        let program = Arc::new(berth_sys::memfd::sealed_copy(
            "berth-shim",
            std::fs::File::open(binary)?,
        )?);
        let nofile = process::limit_nofile();
        let template = if use_template {
            Some(Template::start(&program, nofile)?)
        } else {
            None
        };
        Ok(Self {
            program,
            template: Mutex::new(template),
            use_template,
            nofile,
        })
    }

    /// The running template, or a new one; `None` if there is to be none.
    fn template(&self) -> Option<Arc<Template>> {
        if !self.use_template {
            return None;
        }
        let mut current = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|t| t.state().ended) {
            *current = Template::start(&self.program, self.nofile)
                .inspect_err(|error| tracing::warn!(%error, "the shims' template can't be started; shims are exec'ed"))
                .ok();
        }
        current.clone()
    }
}

impl Shims for Launcher {
    fn fork<'a>(&'a self, folder: &'a Arc<Folder>, key: &'a ContainerKey) -> BoxFuture<'a, io::Result<Forked>> {
        Box::pin(async move {
            let (ours, theirs) = socket::stream_pair(true)?;
            let forked = match self.template() {
                Some(template) => template.fork(key, folder, &theirs).await,
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let process = match forked {
                Ok(process) => process,
                // The template is gone or there is none; any other error is the machine's and would hit an exec too.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                    exec::shim(
                        self.program.clone(),
                        folder.clone(),
                        theirs,
                        key.to_string(),
                        self.nofile,
                    )
                    .await?
                }
                Err(e) => return Err(e),
            };
            let stream = UnixStream::from_std(ours.into())?;
            Ok(Forked {
                stream: Box::new(stream),
                process: Arc::new(process),
            })
        })
    }

    fn connect<'a>(&'a self, folder: &'a Arc<Folder>) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let socket = socket::connect_at(folder.as_fd(), berth_record::SOCKET, true)?;
            Ok(Box::new(UnixStream::from_std(socket.into())?) as Box<dyn Stream>)
        })
    }
}

impl Template {
    fn start(program: &OwnedFd, nofile: Limit) -> io::Result<Arc<Self>> {
        let (ours, theirs) = socket::seqpacket_pair(true)?;
        berth_sys::file::set_nonblocking(&theirs, false)?;
        let pid = exec::spawn(
            program.as_fd(),
            &[OsStr::new("template")],
            &[(theirs.as_fd(), 3)],
            nofile,
        )?;
        let template = Arc::new(Self {
            socket: watched(ours, Interest::READABLE | Interest::WRITABLE)?,
            state: Mutex::default(),
        });
        let reader = template.clone();
        tokio::spawn(async move {
            let why = reader.read().await;
            tracing::warn!(reason = %why, pid, "the shims' template has ended");
            {
                let mut state = reader.state();
                state.ended = true;
                // Their senders gone, those who wait take the other way.
                state.waiting.clear();
            }
            exec::reap(pid).await;
        });
        Ok(template)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fork(&self, key: &ContainerKey, folder: &Folder, theirs: &OwnedFd) -> io::Result<ShimProcess> {
        let (sender, answer) = oneshot::channel();
        let token = {
            let mut state = self.state();
            if state.ended {
                return Err(io::ErrorKind::NotConnected.into());
            }
            state.last_token += 1;
            let token = state.last_token;
            state.waiting.insert(token, sender);
            token
        };
        let request = ForkRequest {
            token,
            name: key.to_string(),
        }
        .encode_to_vec();
        let fds = [folder.as_fd(), theirs.as_fd()];
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, |s| socket::send_fds(s, &request, &fds))
            .await;
        if sent.is_err() {
            self.state().waiting.remove(&token);
            return Err(io::ErrorKind::NotConnected.into());
        }
        answer.await.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Hands answers to those who wait; says why it ended.
    async fn read(&self) -> String {
        let mut buffer = [0; MESSAGE];
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, |s| socket::recv_fds(s, &mut buffer))
                .await;
            let received = match received {
                Ok(received) if received.len > 0 => received,
                Ok(_) => return "it closed its socket".into(),
                Err(e) => return e.to_string(),
            };
            let answer = match ForkResponse::decode(&buffer[..received.len]) {
                Ok(answer) => answer,
                Err(e) => return format!("an answer that makes no sense: {e}"),
            };
            let process = match received.fds.into_iter().next() {
                Some(pidfd) if answer.pid > 0 => ShimProcess::new(answer.pid.unsigned_abs(), pidfd),
                _ if answer.error > 0 => Err(io::Error::from_raw_os_error(answer.error)),
                _ => Err(io::Error::other("the template sent no pidfd")),
            };
            // A caller that is gone drops its end of the shim's socket, and an empty shim ends with it.
            if let Some(caller) = self.state().waiting.remove(&answer.token) {
                let _ = caller.send(process);
            }
        }
    }
}

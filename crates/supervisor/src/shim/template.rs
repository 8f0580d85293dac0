//! Makes shims: a template process that is exec'ed once and forks them on request; without one, each is exec'ed.
//!
//! Both run from a sealed copy of the binary in memory: /proc/self/exe of a shim can't be written, and an upgrade that replaces the
//! file changes nothing under us. A template that ends, or hangs and is killed, is replaced at the next fork; its shims live on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// A fork takes 0.1 ms; a template that takes this long hangs.
const HANGS: Duration = Duration::from_secs(5);

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
    process: ShimProcess,
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
        let program = Arc::new(berth_sys::memfd::sealed_program(
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
            let (mut ours, theirs) = socket::stream_pair(true)?;
            let forked = match self.template() {
                Some(template) => template.fork_in_time(key, folder, &theirs).await,
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let process = match forked {
                Ok(process) => process,
                // The template is gone or there is none; any other error is the machine's and would hit an exec too.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                    // What the template forked at the last moment, if it did, finds the old pair closed and ends.
                    let (new, theirs) = socket::stream_pair(true)?;
                    ours = new;
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

/// The longest name of a container, for which the template's arguments have room: a shim's title takes their place.
const TITLE: usize = 76 + 1 + 76;

impl Template {
    fn start(program: &OwnedFd, nofile: Limit) -> io::Result<Arc<Self>> {
        let (ours, theirs) = socket::seqpacket_pair(true)?;
        berth_sys::file::set_nonblocking(&theirs, false)?;
        let pid = exec::spawn(
            program.as_fd(),
            &[OsStr::new("template"), OsStr::new(&" ".repeat(TITLE))],
            &[(theirs.as_fd(), 3)],
            nofile,
        )?;
        // It is our child, so the number can't be another's.
        let process = ShimProcess::new(pid, process::pidfd_open(pid)?)?;
        let template = Arc::new(Self {
            process,
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

    /// One that does not answer is killed and will be replaced; its caller hears that it took too long, and no other shim is made for
    /// it: what was asked for may still appear, and two shims must not meet in one folder.
    async fn fork_in_time(&self, key: &ContainerKey, folder: &Folder, theirs: &OwnedFd) -> io::Result<ShimProcess> {
        match tokio::time::timeout(HANGS, self.fork(key, folder, theirs)).await {
            Ok(forked) => forked,
            Err(_) => {
                let pid = self.process.pid();
                tracing::error!(pid, "the shims' template hangs; it is killed and replaced");
                self.state().ended = true;
                self.process.kill();
                let message = format!(
                    "the shims' template (pid {pid}) has not answered within {} s",
                    HANGS.as_secs()
                );
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        }
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

#[cfg(test)]
mod test {
    use super::*;

    /// `yes` never reads what it is asked and never ends.
    #[tokio::test(start_paused = true)]
    async fn a_template_that_hangs_is_killed_and_replaced() {
        let root = std::env::temp_dir().join(format!("berth-template-{}", std::process::id()));
        let layout = berth_record::Layout::new(root.join("state"), root.join("root"));
        layout.prepare().unwrap();
        let key = ContainerKey::parse("", "a").unwrap();
        let folder = Arc::new(Folder::create(&layout, &key).unwrap());
        let launcher = Launcher::new(Path::new("/usr/bin/yes"), true).unwrap();
        let mut templates = Vec::new();
        for _ in 0..2 {
            templates.push(launcher.template().unwrap());
            let forked = tokio::time::timeout(Duration::from_secs(60), launcher.fork(&folder, &key)).await;
            let error = forked.expect("a deadline").err().expect("no shim");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_ne!(templates[0].process.pid(), templates[1].process.pid());
        for template in templates {
            template.process.ended().await;
            // Its reaper is woken by the same end.
            while Path::new(&format!("/proc/{}", template.process.pid())).exists() {
                tokio::task::yield_now().await;
            }
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}

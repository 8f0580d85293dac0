//! One person at one process: its output here, our input there, until it ends or somebody leaves.
//!
//! Invariants:
//! * Output is counted by the API's offsets. A broken stream is opened again at the next byte wanted, and what comes twice is cut,
//!   so that a restart of berthd neither loses nor doubles a byte. What the API says is lost is told, never glossed over.
//! * No branch of the loop waits for another: a full stdout stops the reading of output but not input, signals or detaching.
//! * The terminal is raw only while the session lives, and only if the process has a terminal and reads ours.

pub mod fifo;
mod input;
mod output;
mod refill;
mod signals;

use std::collections::VecDeque;

use berth_wire::v1::attach_request::Action;
use berth_wire::v1::attach_response::Event;
use berth_wire::v1::{
    AttachOpen, AttachRequest, AttachResponse, ErrorCode, ExitStatus, GetRequest, OutputChunk, Stream, TerminalSize,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

pub use self::signals::Signals;

use self::input::{Input, Typed};
use self::output::Output;
use self::refill::{Anchor, Refill, Shown};
use self::signals::Proxy;
use crate::error::{CliError, Result};
use crate::out;
use crate::term::{self, DetachKeys, Raw};
use berth_client::{Client, detail};

#[derive(Debug)]
pub struct Target {
    pub client: Client,
    pub id: String,
    /// Empty = the container's init.
    pub exec_id: String,
    /// The first byte of output wanted; none = what comes from now on.
    pub offset: Option<u64>,
    /// Whether our stdin goes there.
    pub stdin: bool,
    pub detach_keys: DetachKeys,
    /// Whether signals that we get go there.
    pub proxy_signals: bool,
}

#[derive(Debug)]
pub enum End {
    Exited(ExitStatus),
    Detached,
    /// We were told to end.
    Signalled(i32),
    /// Nobody reads our stdout any more.
    OutputClosed(CliError),
}

pub async fn run(target: Target, signals: Signals) -> Result<End> {
    while_read(run_into(target, signals, Output::start(output::standard()))).await
}

/// A session ends when nobody can read it any more, though the process may be silent.
async fn while_read(session: impl Future<Output = Result<End>>) -> Result<End> {
    tokio::select! {
        biased;
        end = session => end,
        () = term::stdout_closed() => Ok(End::OutputClosed(CliError::StdoutClosed)),
    }
}

async fn run_into(target: Target, signals: Signals, output: Output) -> Result<End> {
    let mut session = Session {
        next: target.offset,
        proxy: Proxy::new(&target),
        target,
        signals,
        output,
        input: None,
        raw: None,
        terminal: false,
        was_opened: false,
        closed_stdin: false,
        sent_stdin: false,
        shown: Shown::default(),
        anchor: None,
        from_log: false,
        log: None,
        exit: None,
        pending: None,
        outgoing: VecDeque::new(),
    };
    let end = session.attach().await?;
    if matches!(end, End::Exited(_))
        && let Err(end) = session.drain().await
    {
        return Ok(end);
    }
    Ok(end)
}

struct Session {
    target: Target,
    signals: Signals,
    output: Output,
    input: Option<Input>,
    raw: Option<Raw>,
    /// Whether the process has a terminal.
    terminal: bool,
    proxy: Proxy,
    was_opened: bool,
    closed_stdin: bool,
    sent_stdin: bool,
    /// Offset of the next byte wanted.
    next: Option<u64>,
    shown: Shown,
    /// Where the log begins, of a container that was watched from its first byte.
    anchor: Option<Anchor>,
    /// After a loss the log is the source of output, and the window is ignored.
    from_log: bool,
    /// The log, until its end.
    log: Option<Refill>,
    /// How the process ended, while the log is still read.
    exit: Option<ExitStatus>,
    /// Read from berthd, not yet taken by the writer. Survives a reconnect.
    pending: Option<(Stream, Vec<u8>)>,
    /// Not yet taken by the connection. Survives a reconnect.
    outgoing: VecDeque<Action>,
}

/// Why one connection's relay stopped.
enum Stop {
    End(End),
    Broken(Status),
    Failed(CliError),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Broken(status)
    }
}

impl Session {
    async fn attach(&mut self) -> Result<End> {
        let client = self.target.client.clone();
        let mut patience = client.patience();
        loop {
            let (requests, receiver) = mpsc::channel(1);
            let open = Action::Open(AttachOpen {
                namespace: client.namespace.clone(),
                id: self.target.id.clone(),
                exec_id: self.target.exec_id.clone(),
                offset: self.next,
            });
            // The channel is new and holds one.
            let _ = requests.try_send(AttachRequest { action: Some(open) });
            let mut stub = client.stub();
            let answer = tokio::select! {
                biased;
                end = self.told_to_end() => return Ok(end),
                answer = stub.attach(ReceiverStream::new(receiver)) => answer,
            };
            let stop = match answer {
                Ok(response) => self.relay(response.into_inner(), &requests).await,
                Err(status) => Stop::Broken(status),
            };
            let status = match stop {
                Stop::End(end) => return Ok(end),
                Stop::Failed(error) => return Err(error),
                Stop::Broken(status) => status,
            };
            let mut status = status;
            if detail(&status).code() == ErrorCode::ShimLost {
                if let Some(exit) = self.exit_on_record().await? {
                    return Ok(End::Exited(exit));
                }
                // berthd is about to find out, or it was the connection only: worth the same wait as a restart.
                status = Status::unavailable(status.message());
            }
            let id = self.target.id.clone();
            tokio::select! {
                biased;
                end = self.told_to_end() => return Ok(end),
                result = client.wait_or_fail(&mut patience, "attach", &id, status) => result?,
            }
        }
    }

    /// How the process ended, if it has. The stream of a process whose shim was killed breaks before it can say so.
    async fn exit_on_record(&self) -> Result<Option<ExitStatus>> {
        let Target {
            client, id, exec_id, ..
        } = &self.target;
        let request = GetRequest {
            namespace: client.namespace.clone(),
            id: id.clone(),
            processes: false,
        };
        let response = client.call("attach", id, request, |mut stub, request| async move {
            stub.get(request).await
        });
        let Some(container) = response.await?.container else {
            return Ok(None);
        };
        if exec_id.is_empty() {
            return Ok(container.exit);
        }
        let exec = container.execs.into_iter().find(|exec| exec.exec_id == *exec_id);
        Ok(exec.map_or(container.exit, |exec| exec.exit))
    }

    /// While nothing is connected a signal can't be passed on: any of them, and the detach keys, end the session.
    async fn told_to_end(&mut self) -> End {
        tokio::select! {
            signal = self.signals.next_ending() => End::Signalled(signal),
            _ = typed(&mut self.input, false) => End::Detached,
        }
    }

    async fn relay(&mut self, mut stream: Streaming<AttachResponse>, requests: &mpsc::Sender<AttachRequest>) -> Stop {
        let mut requests_open = true;
        loop {
            tokio::select! {
                message = stream.message(), if self.exit.is_none() && (self.pending.is_none() || self.log.is_some()) => {
                    let event = match message {
                        Ok(Some(response)) => response.event,
                        Ok(None) => return Stop::Broken(Status::unavailable("the stream ended before the process did")),
                        Err(status) => return Stop::Broken(status),
                    };
                    match event {
                        Some(Event::Opened(opened)) => {
                            self.next.get_or_insert(opened.offset);
                            self.opened(opened.terminal);
                        }
                        Some(Event::Output(chunk)) => self.received(chunk),
                        Some(Event::LostBytes(count)) => self.lost(count).await,
                        Some(Event::Exit(exit)) if self.log.is_some() => self.exit = Some(exit),
                        Some(Event::Exit(exit)) => return Stop::End(End::Exited(exit)),
                        None => {}
                    }
                }
                logged = logged(&mut self.log), if self.pending.is_none() => match (logged, self.exit.take()) {
                    (Some(Ok(chunk)), exit) => {
                        self.pending = Some(chunk);
                        self.exit = exit;
                    }
                    (Some(Err(error)), _) => return Stop::Failed(error),
                    (None, Some(exit)) => return Stop::End(End::Exited(exit)),
                    // The log ends with the process: its exit is on its way.
                    (None, None) => self.log = None,
                },
                written = self.output.write(&mut self.pending), if self.pending.is_some() => {
                    if let Err(error) = written {
                        return Stop::End(End::OutputClosed(error));
                    }
                }
                permit = requests.reserve(), if requests_open && !self.outgoing.is_empty() => match permit {
                    Ok(permit) => permit.send(AttachRequest { action: self.outgoing.pop_front() }),
                    Err(_) => requests_open = false,
                },
                typed = typed(&mut self.input, self.outgoing.is_empty() && !self.closed_stdin) => match typed {
                    Typed::Bytes(bytes) => {
                        self.sent_stdin = true;
                        self.outgoing.push_back(Action::Stdin(bytes.into()));
                    }
                    Typed::End => {
                        self.closed_stdin = true;
                        self.outgoing.push_back(Action::CloseStdin(true));
                    }
                    Typed::Detach => return Stop::End(End::Detached),
                },
                signal = self.signals.next() => if let Some(end) = self.signalled(signal) { return Stop::End(end) },
            }
        }
    }

    /// A connection was opened, for the first time or again.
    fn opened(&mut self, terminal: bool) {
        self.terminal = terminal;
        self.resize();
        let is_first = !std::mem::replace(&mut self.was_opened, true);
        if is_first && self.target.offset == Some(0) && self.target.exec_id.is_empty() && !terminal {
            self.anchor = Some(Anchor::find(&self.target.client, &self.target.id));
        }
        if self.closed_stdin && !self.outgoing.contains(&Action::CloseStdin(true)) {
            self.outgoing.push_back(Action::CloseStdin(true));
        }
        if !is_first && self.sent_stdin && self.raw.is_none() {
            out::complain("berthd was restarted: input that was on its way may be lost");
        }
        if self.input.is_some() || !self.target.stdin {
            return;
        }
        let keys = if terminal && term::stdin_is_terminal() {
            self.output.keep_little();
            match Raw::enter() {
                Ok(raw) => self.raw = Some(raw),
                Err(error) => out::complain(&format!("cannot set the terminal to raw mode: {error}")),
            }
            self.raw.is_some().then(|| self.target.detach_keys.clone())
        } else {
            None
        };
        self.input = Some(Input::start(keys));
    }

    fn received(&mut self, chunk: OutputChunk) {
        if self.from_log {
            return;
        }
        let stream = chunk.stream();
        let mut data = Vec::from(chunk.data);
        let end = chunk.offset.saturating_add(data.len() as u64);
        if let Some(next) = self.next {
            if let Some(missing) = chunk.offset.checked_sub(next).filter(|&missing| missing > 0) {
                self.tell_loss(missing);
            }
            let seen = usize::try_from(next.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
            data.drain(..seen.min(data.len()));
        }
        self.next = Some(self.next.map_or(end, |next| next.max(end)));
        if !data.is_empty() {
            self.shown.add(stream, data.len());
            self.pending = Some((stream, data));
        }
    }

    async fn lost(&mut self, count: u64) {
        if self.from_log {
            return;
        }
        if let Some(anchor) = self.anchor.take() {
            self.log = Refill::open(&self.target.client, &self.target.id, anchor, self.shown).await;
            if self.log.is_some() {
                self.from_log = true;
                return;
            }
        }
        self.next = self.next.map(|next| next.saturating_add(count));
        self.tell_loss(count);
    }

    fn tell_loss(&self, count: u64) {
        let remedy = if self.target.exec_id.is_empty() {
            format!(": `berth logs {}` may have them", self.target.id)
        } else {
            String::new()
        };
        out::complain(&format!(
            "{count} bytes of output are missing here, this end was too slow for them{remedy}"
        ));
    }

    fn resize(&mut self) {
        if self.terminal
            && let Some((width, height)) = term::size()
        {
            self.outgoing.push_back(Action::Resize(TerminalSize {
                width: width.into(),
                height: height.into(),
            }));
        }
    }

    fn signalled(&mut self, signal: i32) -> Option<End> {
        if signal == signals::WINCH {
            self.resize();
            return None;
        }
        // A raw terminal makes no signals: somebody means us.
        if self.raw.is_some() && signals::ends(signal) {
            return Some(End::Signalled(signal));
        }
        self.proxy.pass(signal)
    }

    /// Until the last byte is written; a signal ends even that.
    async fn drain(&mut self) -> std::result::Result<(), End> {
        tokio::select! {
            biased;
            result = self.output.finish(&mut self.pending) => result.map_err(End::OutputClosed),
            end = self.signals.next_ending() => Err(End::Signalled(end)),
        }
    }
}

async fn logged(log: &mut Option<Refill>) -> Option<Result<(Stream, Vec<u8>)>> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

async fn typed(input: &mut Option<Input>, wants_bytes: bool) -> Typed {
    match input {
        Some(input) => input.next(wants_bytes).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod test;

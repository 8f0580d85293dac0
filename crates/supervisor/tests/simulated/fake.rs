//! Shims without processes: they speak the real protocol over memory, and live on when a daemon (a tokio runtime) is dropped.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::place::FakeDisks;
use berth_core::ContainerKey;
use berth_record::{Folder, ProcessRecord, ShimRecord, ShimState};
use berth_supervisor::{BoxFuture, Forked, ShimProcess, ShimStream, Shims};
use berth_wire::hello::{self, Hello};
use berth_wire::rpc::{self, Method};
use berth_wire::shim::{self as wire, event::What};
use berth_wire::ttrpc::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

pub const BOOT: &str = "this-boot";

/// What every daemon of a test sees.
#[derive(Default)]
pub struct World {
    shims: Mutex<HashMap<String, Arc<Shim>>>,
    pub generation: std::sync::atomic::AtomicU64,
    pub disks: Arc<FakeDisks>,
    /// Whoever asks for the time next panics.
    pub defect: std::sync::atomic::AtomicBool,
}

/// One fake shim.
#[derive(Default)]
pub struct Shim {
    state: Mutex<State>,
    changed: Notify,
    hung_up: Notify,
    /// A process that stands for it in its record.
    stand_in: Mutex<Option<std::process::Child>>,
}

#[derive(Default)]
struct State {
    incarnation: String,
    state: i32,
    started_at: i64,
    exit: Option<wire::Exit>,
    outbox: Vec<wire::Event>,
    last: u64,
    /// Acknowledgements are not heard.
    deaf: bool,
    /// Nothing is answered.
    mute: bool,
    /// Connections are accepted and closed.
    closed: bool,
    connections: usize,
    /// An exec that an earlier daemon asked for, as long as the call is at work.
    being_made: Option<wire::Process>,
    /// Start is refused: another one has been under way and has just succeeded.
    started_before: bool,
    /// Starts are taken, and wait to be let through.
    starts_wait: bool,
    starts: usize,
    oom_kills: u64,
    /// Pauses are done and not answered.
    pauses_quietly: bool,
    /// Deletes are never answered.
    hangs_at_delete: bool,
    /// Execs that it was told to forget.
    forgotten: Vec<String>,
    signals: Vec<u32>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn shim(&self, key: &str) -> Arc<Shim> {
        self.shims.lock().unwrap().entry(key.to_owned()).or_default().clone()
    }
}

impl Shim {
    /// Its init ends.
    pub fn end(&self, code: u32) {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        let exit = wire::Exit {
            code,
            signal: 0,
            oom: false,
            at: 5_000_000_000,
        };
        (state.exit, state.state) = (Some(exit), wire::State::Stopped.into());
        let exited = wire::ProcessExited {
            exec_id: String::new(),
            pid: 77,
            exit: Some(exit),
        };
        let number = state.last;
        state.outbox.push(wire::Event {
            number,
            what: Some(What::Exited(exited)),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn be_deaf(&self, deaf: bool) {
        self.state.lock().unwrap().deaf = deaf;
    }

    pub fn be_mute(&self, mute: bool) {
        self.state.lock().unwrap().mute = mute;
    }

    pub fn be_closed(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// It is at work on this exec.
    pub fn makes(&self, exec_id: &str, request_id: &str) {
        self.state.lock().unwrap().being_made = Some(wire::Process {
            exec_id: exec_id.into(),
            request_id: request_id.into(),
            ..Default::default()
        });
    }

    /// That exec is made, and ends at once.
    pub fn has_made(&self, pid: u32, code: u32) {
        let mut state = self.state.lock().unwrap();
        let Some(made) = state.being_made.as_mut() else {
            panic!("no exec is being made")
        };
        made.pid = pid;
        let exited = wire::ProcessExited {
            exec_id: made.exec_id.clone(),
            pid,
            exit: Some(wire::Exit {
                code,
                ..Default::default()
            }),
        };
        state.last += 1;
        let number = state.last;
        state.outbox.push(wire::Event {
            number,
            what: Some(What::Exited(exited)),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn was_started_before(&self) {
        let mut state = self.state.lock().unwrap();
        (state.started_before, state.started_at) = (true, 1);
    }

    pub fn hold_starts(&self) {
        self.state.lock().unwrap().starts_wait = true;
    }

    /// The start that was sent first succeeds.
    pub fn let_start(&self) {
        let mut state = self.state.lock().unwrap();
        (state.starts_wait, state.started_at, state.state) = (false, 1, wire::State::Running.into());
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn starts(&self) -> usize {
        self.state.lock().unwrap().starts
    }

    /// The OOM killer has killed this many so far.
    pub fn oom(&self, count: u64) {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        state.oom_kills = count;
        let number = state.last;
        state.outbox.push(wire::Event {
            number,
            what: Some(What::Oom(wire::OomKill { count })),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    /// An exec ends, long ago by the clock of the tests.
    pub fn end_exec(&self, exec_id: &str) {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        let exited = wire::ProcessExited {
            exec_id: exec_id.into(),
            pid: 78,
            exit: Some(wire::Exit {
                at: i64::MIN / 2 + i64::try_from(state.last).unwrap(),
                ..Default::default()
            }),
        };
        let number = state.last;
        state.outbox.push(wire::Event {
            number,
            what: Some(What::Exited(exited)),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn forgotten(&self) -> Vec<String> {
        self.state.lock().unwrap().forgotten.clone()
    }

    pub fn pause_quietly(&self) {
        self.state.lock().unwrap().pauses_quietly = true;
    }

    /// It has a container that was not started, though Run was asked for.
    pub fn be_half_made(&self) {
        self.state.lock().unwrap().state = wire::State::Created.into();
    }

    /// Every connection ends; new ones are taken.
    pub fn hang_up(&self) {
        self.hung_up.notify_waiters();
    }

    pub fn hang_at_delete(&self) {
        self.state.lock().unwrap().hangs_at_delete = true;
    }

    pub fn signals(&self) -> Vec<u32> {
        self.state.lock().unwrap().signals.clone()
    }

    pub fn untold(&self) -> usize {
        self.state.lock().unwrap().outbox.len()
    }

    fn write_record(&self, folder: &Folder) {
        let mut stand_in = self.stand_in.lock().unwrap();
        let child = stand_in.get_or_insert_with(|| std::process::Command::new("sleep").arg("600").spawn().unwrap());
        let (pid, start_time) = (child.id(), berth_sys::process::start_time(child.id()).unwrap());
        let record = ShimRecord {
            shim: ProcessRecord { pid, start_time },
            boot_id: BOOT.into(),
            incarnation: self.state.lock().unwrap().incarnation.clone(),
            state: ShimState::Running,
            ..ShimRecord::default()
        };
        folder.write_shim(&record).unwrap();
    }

    async fn serve(self: Arc<Self>, key: String, folder: Arc<Folder>, stream: DuplexStream) -> io::Result<()> {
        {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            if state.closed {
                return Ok(());
            }
        }
        let (mut from, to) = tokio::io::split(stream);
        let to = Arc::new(tokio::sync::Mutex::new(to));
        let mut greeting = [0; hello::LEN];
        from.read_exact(&mut greeting).await?;
        to.lock()
            .await
            .write_all(&Hello::decode(&greeting).unwrap().answer(0, 1).encode())
            .await?;
        let mut decoder = Decoder::new();
        let mut buffer = [0; 4096];
        let mut events = None;
        loop {
            while let Some(frame) = decoder.pop().map_err(io::Error::other)? {
                let (method, body) = rpc::parse_request(frame.body).unwrap();
                let (mute, started_before) = {
                    let state = self.state.lock().unwrap();
                    (state.mute, state.started_before)
                };
                if mute {
                    continue;
                }
                let answer = match method {
                    Method::Create => match self
                        .create(&key, &folder, rpc::parse("create", body).unwrap(), &to, events)
                        .await
                    {
                        Some(answer) => rpc::response_ok(frame.stream, &answer),
                        None => continue,
                    },
                    Method::Events => {
                        events = Some(frame.stream);
                        tokio::spawn(self.clone().tell(to.clone(), frame.stream));
                        continue;
                    }
                    Method::Ack => {
                        let number = rpc::parse::<wire::AckRequest>("ack", body).unwrap().number;
                        let mut state = self.state.lock().unwrap();
                        if !state.deaf {
                            state.outbox.retain(|e| e.number > number);
                        }
                        drop(state);
                        rpc::response_ok(frame.stream, &wire::AckResponse {})
                    }
                    Method::Exec => {
                        let request: wire::ExecRequest = rpc::parse("exec", body).unwrap();
                        if request.join {
                            tokio::spawn(self.clone().join(to.clone(), frame.stream));
                            continue;
                        }
                        let made = self.state.lock().unwrap().being_made.is_some();
                        assert!(!made, "it must not be made again");
                        let answer = wire::ExecResponse {
                            pid: 78,
                            ..Default::default()
                        };
                        rpc::response_ok(frame.stream, &answer)
                    }
                    Method::Pause => {
                        let mut state = self.state.lock().unwrap();
                        state.state = wire::State::Paused.into();
                        if state.pauses_quietly {
                            continue;
                        }
                        rpc::response_ok(frame.stream, &wire::PauseResponse {})
                    }
                    Method::Resume => {
                        self.state.lock().unwrap().state = wire::State::Running.into();
                        rpc::response_ok(frame.stream, &wire::ResumeResponse {})
                    }
                    Method::Signal => {
                        let signal = rpc::parse::<wire::SignalRequest>("signal", body).unwrap().signal;
                        self.state.lock().unwrap().signals.push(signal);
                        if signal == 9 {
                            self.end(137);
                        }
                        rpc::response_ok(frame.stream, &wire::SignalResponse {})
                    }
                    Method::Start if self.takes_start() => {
                        tokio::spawn(self.clone().refuse_start(to.clone(), frame.stream));
                        continue;
                    }
                    Method::State => rpc::response_ok(frame.stream, &self.state()),
                    Method::Start if started_before => {
                        let failure = wire::Failure {
                            code: berth_core::ErrorCode::WrongState.number(),
                            ..Default::default()
                        };
                        Ok(rpc::response_err(frame.stream, "it is running", &failure))
                    }
                    Method::Delete => {
                        let exec_id = rpc::parse::<wire::DeleteRequest>("delete", body).unwrap().exec_id;
                        let mut state = self.state.lock().unwrap();
                        if state.hangs_at_delete {
                            continue;
                        }
                        if !exec_id.is_empty() {
                            state.forgotten.push(exec_id);
                        }
                        rpc::response_ok(frame.stream, &wire::DeleteResponse::default())
                    }
                    Method::Shutdown => {
                        let answer = rpc::response_ok(frame.stream, &wire::ShutdownResponse {}).unwrap();
                        let mut to = to.lock().await;
                        to.write_all(&answer).await?;
                        return to.shutdown().await;
                    }
                    _ => rpc::response_ok(frame.stream, &wire::SignalResponse {}),
                };
                to.lock().await.write_all(&answer.unwrap()).await?;
            }
            let read = tokio::select! {
                read = from.read(&mut buffer) => read?,
                () = self.hung_up.notified() => 0,
            };
            match read {
                0 => {
                    to.lock().await.shutdown().await?;
                    return Ok(());
                }
                count => decoder.push(&buffer[..count]),
            }
        }
    }

    async fn create(
        &self,
        key: &str,
        folder: &Folder,
        request: wire::CreateRequest,
        to: &tokio::sync::Mutex<tokio::io::WriteHalf<DuplexStream>>,
        events: Option<u32>,
    ) -> Option<wire::CreateResponse> {
        if key.contains("hung") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let wait = wire::ForeignWait { stage: "create".into() };
            let event = wire::Event {
                number: 0,
                what: Some(What::ForeignWait(wait)),
            };
            to.lock()
                .await
                .write_all(&rpc::data(events?, &event).unwrap())
                .await
                .ok()?;
            return None;
        }
        {
            let mut state = self.state.lock().unwrap();
            state.incarnation = request.incarnation;
            state.state = if request.start {
                wire::State::Running
            } else {
                wire::State::Created
            }
            .into();
            state.started_at = i64::from(request.start);
        }
        if key.contains("kept") {
            self.write_record(folder);
        }
        Some(wire::CreateResponse {
            pid: 77,
            started: request.start,
            ..Default::default()
        })
    }

    fn state(&self) -> wire::StateResponse {
        let state = self.state.lock().unwrap();
        let init = wire::Process {
            pid: 77,
            started_at: state.started_at,
            exit: state.exit,
            ..Default::default()
        };
        wire::StateResponse {
            incarnation: state.incarnation.clone(),
            state: state.state,
            processes: vec![init],
            last_event: state.last,
            oom_kills: state.oom_kills,
            being_made: state.being_made.iter().cloned().collect(),
            ..Default::default()
        }
    }

    fn takes_start(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.starts += 1;
        state.starts_wait
    }

    /// It waited behind the one that was sent first, and comes too late.
    async fn refuse_start(
        self: Arc<Self>,
        to: Arc<tokio::sync::Mutex<tokio::io::WriteHalf<DuplexStream>>>,
        stream: u32,
    ) {
        loop {
            let changed = self.changed.notified();
            if !self.state.lock().unwrap().starts_wait {
                let failure = wire::Failure {
                    code: berth_core::ErrorCode::WrongState.number(),
                    ..Default::default()
                };
                // A daemon that has gone hears nothing.
                let _ = to
                    .lock()
                    .await
                    .write_all(&rpc::response_err(stream, "it is running", &failure))
                    .await;
                return;
            }
            changed.await;
        }
    }

    async fn join(self: Arc<Self>, to: Arc<tokio::sync::Mutex<tokio::io::WriteHalf<DuplexStream>>>, stream: u32) {
        loop {
            let changed = self.changed.notified();
            let pid = self
                .state
                .lock()
                .unwrap()
                .being_made
                .as_ref()
                .map_or(0, |made| made.pid);
            if pid != 0 {
                let answer = wire::ExecResponse {
                    pid,
                    ..Default::default()
                };
                let answer = rpc::response_ok(stream, &answer).unwrap();
                // A daemon that has gone hears nothing.
                let _ = to.lock().await.write_all(&answer).await;
                return;
            }
            changed.await;
        }
    }

    async fn tell(self: Arc<Self>, to: Arc<tokio::sync::Mutex<tokio::io::WriteHalf<DuplexStream>>>, stream: u32) {
        let mut sent = 0;
        loop {
            let changed = self.changed.notified();
            let events: Vec<_> = self
                .state
                .lock()
                .unwrap()
                .outbox
                .iter()
                .filter(|e| e.number > sent)
                .cloned()
                .collect();
            for event in events {
                sent = event.number;
                if to
                    .lock()
                    .await
                    .write_all(&rpc::data(stream, &event).unwrap())
                    .await
                    .is_err()
                {
                    return;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(child) = self.stand_in.get_mut().unwrap() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

pub struct FakeShims(pub Arc<World>);

impl Shims for FakeShims {
    fn fork<'a>(&'a self, folder: &'a Arc<Folder>, key: &'a ContainerKey) -> BoxFuture<'a, io::Result<Forked>> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(
                self.0
                    .shim(&key.to_string())
                    .serve(key.to_string(), folder.clone(), theirs),
            );
            Ok(Forked {
                stream: Box::new(ours),
                process: Arc::new(ShimProcess::fake(1)),
            })
        })
    }

    fn connect<'a>(&'a self, folder: &'a Arc<Folder>) -> BoxFuture<'a, io::Result<Box<dyn ShimStream>>> {
        Box::pin(async move {
            let record = folder.container()?.ok_or(io::ErrorKind::NotFound)?;
            let key = format!("{}/{}", record.namespace, record.id);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(self.0.shim(&key).serve(key, folder.clone(), theirs));
            Ok(Box::new(ours) as Box<dyn ShimStream>)
        })
    }
}

//! What goes on meanwhile: each actor runs one container after the other under the same id, and knows how each must end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_e2e::v1::{self, ExitStatus};
use berth_e2e::{Bundle, Client, Daemon};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::ledger::{Ledger, Who};

/// A call that has not been answered by now hangs: faults last less than a second each.
const LIMIT: Duration = Duration::from_secs(60);
/// Nobody tells when a daemon is back.
const RETRY: Duration = Duration::from_millis(20);

pub struct Actor {
    id: String,
    bundles: PathBuf,
    cgroup: String,
    client: Client,
    random: fastrand::Rng,
    ledger: Arc<Ledger>,
    stopped: watch::Receiver<bool>,
    /// How many containers it has had.
    lives: u64,
}

/// What a container is for, and so how it ends.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Ends within a millisecond.
    Short,
    /// Prints numbered lines and ends.
    Writer { lines: u64 },
    /// Other commands run in it; SIGTERM ends it.
    Host { execs: u64 },
}

/// The daemon refused, or the container is gone in a way that a killed shim explains.
struct Broken;

impl Actor {
    pub fn new(
        daemon: &Daemon,
        number: u64,
        random: fastrand::Rng,
        ledger: Arc<Ledger>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            id: format!("a{number}"),
            bundles: daemon.dir.join("b"),
            cgroup: daemon.cgroup.clone(),
            client: daemon.connect(),
            random,
            ledger,
            stopped,
            lives: 0,
        }
    }

    pub async fn work(mut self) {
        while !*self.stopped.borrow() {
            self.lives += 1;
            let role = match self.random.u8(0..3) {
                0 => Role::Short,
                1 => Role::Writer {
                    lines: self.random.u64(1..2000),
                },
                _ => Role::Host {
                    execs: self.random.u64(0..4),
                },
            };
            let code = self.random.u32(0..126);
            self.ledger.begin(&self.id);
            // What broke has been written down, or is excused by a wound; how it stands may tell why.
            if self.live(role, code).await.is_err() && !self.ledger.is_wounded(&self.id) {
                let request = v1::GetRequest {
                    id: self.id.clone(),
                    ..Default::default()
                };
                let found = self
                    .client
                    .get(request)
                    .await
                    .map(|answer| answer.into_inner().container);
                self.ledger.wrong(format!(
                    "{} life {}: {role:?} with code {code}: {found:?}",
                    self.id, self.lives
                ));
            }
            let deleted = self.delete().await;
            self.ledger.end(&self.id);
            if deleted.is_err() {
                return;
            }
        }
    }

    async fn live(&mut self, role: Role, code: u32) -> Result<(), Broken> {
        let line = match role {
            Role::Short => format!("exit {code}"),
            Role::Writer { lines } => {
                format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; done; exit {code}")
            }
            Role::Host { .. } => format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 1000 & wait $!; done"),
        };
        let bundle = Bundle::new(&self.bundles, &self.cgroup, &self.id, &["/bin/sh", "-c", &line]);
        let request = v1::RunRequest {
            container: Some(bundle.spec()),
            request_id: format!("{}-{}", self.id, self.lives),
        };
        let client = self.client.clone();
        let run = self.insist("run", || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.run(request).await }
        });
        let incarnation = run.await?.incarnation;
        match role {
            Role::Short => {}
            Role::Writer { .. } => {}
            Role::Host { execs } => {
                self.trapped().await?;
                for number in 0..execs {
                    self.exec(&incarnation, number).await?;
                }
                self.signal().await?;
            }
        }
        let exit = self.wait("").await?;
        let who = Who {
            incarnation,
            exec: String::new(),
        };
        self.ledger.ended(&self.id, who, code, &exit);
        if let Role::Writer { lines } = role {
            self.read(lines).await?;
        }
        Ok(())
    }

    /// A signal before the trap is set would end it with another code.
    async fn trapped(&self) -> Result<(), Broken> {
        let end = Instant::now() + LIMIT;
        while self.log().await?.is_empty() {
            if self.ledger.is_wounded(&self.id) {
                return Err(Broken);
            }
            if Instant::now() > end {
                self.ledger
                    .wrong(format!("{}: its first line is not in the log", self.id));
                return Err(Broken);
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    async fn exec(&mut self, incarnation: &str, number: u64) -> Result<(), Broken> {
        let exec = format!("e{number}");
        let code = self.random.u32(0..126);
        let request = v1::ExecRequest {
            id: self.id.clone(),
            exec_id: exec.clone(),
            args: ["/bin/sh", "-c", &format!("exit {code}")].map(str::to_owned).to_vec(),
            request_id: format!("{}-{}-{exec}", self.id, self.lives),
            ..Default::default()
        };
        let client = self.client.clone();
        self.insist("exec", || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.exec(request).await }
        })
        .await?;
        let exit = self.wait(&exec).await?;
        self.ledger.count(|counts| counts.execs += 1);
        let who = Who {
            incarnation: incarnation.to_owned(),
            exec,
        };
        self.ledger.ended(&self.id, who, code, &exit);
        Ok(())
    }

    async fn signal(&self) -> Result<(), Broken> {
        let request = v1::SignalRequest {
            id: self.id.clone(),
            signal: "TERM".into(),
            request_id: format!("{}-{}-term", self.id, self.lives),
            ..Default::default()
        };
        let client = self.client.clone();
        let end = Instant::now() + LIMIT;
        loop {
            let (mut client, request) = (client.clone(), request.clone());
            match tokio::time::timeout(LIMIT, client.signal(request)).await {
                Ok(Ok(_)) => return Ok(()),
                // The first try arrived, its answer did not: the container has ended.
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => return Ok(()),
                Ok(Err(status)) if is_broken(&status) && Instant::now() < end => tokio::time::sleep(RETRY).await,
                Ok(Err(status)) => return Err(self.failed("signal", &status)),
                Err(_) => return Err(self.hangs("signal")),
            }
        }
    }

    async fn wait(&self, exec: &str) -> Result<ExitStatus, Broken> {
        let request = v1::WaitRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            ..Default::default()
        };
        let client = self.client.clone();
        let answer = self.insist("wait", || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.wait(request).await }
        });
        Ok(answer.await?.exit.unwrap_or_default())
    }

    async fn log(&self) -> Result<String, Broken> {
        let request = v1::LogsRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        let client = self.client.clone();
        let read = self.insist("logs", || {
            let (mut client, request) = (client.clone(), request.clone());
            async move {
                let mut stream = client.logs(request).await?.into_inner();
                let mut bytes = Vec::new();
                while let Some(answer) = stream.message().await? {
                    bytes.extend(answer.entries.iter().flat_map(|entry| entry.data.to_vec()));
                }
                Ok(tonic::Response::new(bytes))
            }
        });
        Ok(String::from_utf8_lossy(&read.await?).into_owned())
    }

    /// Every line, once, in order.
    async fn read(&self, lines: u64) -> Result<(), Broken> {
        let text = self.log().await?;
        if self.ledger.is_wounded(&self.id) {
            return Ok(());
        }
        let expected: String = (1..=lines).map(|number| format!("line {number}\n")).collect();
        if text != expected {
            let got = text.lines().count();
            self.ledger
                .wrong(format!("{}: {got} lines in the log, {lines} were printed", self.id));
        }
        self.ledger.count(|counts| counts.lines += lines);
        Ok(())
    }

    async fn delete(&self) -> Result<(), Broken> {
        let request = v1::DeleteRequest {
            id: self.id.clone(),
            force: true,
            request_id: format!("{}-{}-delete", self.id, self.lives),
            ..Default::default()
        };
        let client = self.client.clone();
        let deleted = self.insist("delete", || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.delete(request).await }
        });
        deleted.await.map(drop)
    }

    /// The same request until a daemon answers it.
    async fn insist<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, Broken>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + LIMIT;
        loop {
            match tokio::time::timeout(LIMIT, call()).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if is_broken(&status) && Instant::now() < end => tokio::time::sleep(RETRY).await,
                Ok(Err(status)) => return Err(self.failed(what, &status)),
                Err(_) => return Err(self.hangs(what)),
            }
        }
    }

    fn failed(&self, what: &str, status: &Status) -> Broken {
        if !self.ledger.is_wounded(&self.id) {
            let (code, message) = (status.code(), status.message());
            self.ledger
                .wrong(format!("{} life {}: {what}: {code:?}: {message}", self.id, self.lives));
        }
        Broken
    }

    fn hangs(&self, what: &str) -> Broken {
        self.ledger
            .wrong(format!("{} life {}: {what} hangs", self.id, self.lives));
        Broken
    }
}

/// The connection broke or the daemon is ending: it says nothing about the request.
fn is_broken(status: &Status) -> bool {
    use std::error::Error as _;
    let transport = status.source().is_some();
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => transport || status.message().contains("h2 protocol error"),
        _ => false,
    }
}

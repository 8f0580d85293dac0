//! One client for both sides: what the bench does to a container, in the words of Berth's API or of containerd's.
//!
//! Each side gets one connection, whatever the number of requests in flight.

use crate::bundle::{Bundle, Fifos};
use crate::containerd::Containerd;
use crate::error::{Context, Result};
use berth_wire::v1::supervisor_client::SupervisorClient;
use berth_wire::v1::{self, stdio};
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use tonic::transport::{Channel, Endpoint};

pub type Berth = SupervisorClient<Channel>;

#[derive(Clone)]
pub enum Client {
    Berth(Berth),
    Containerd(Containerd),
}

/// One HTTP/2 connection over a unix socket.
pub async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket: PathBuf = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://socket")
        .connect_with_connector(connect)
        .await
}

pub fn berth(channel: Channel) -> Berth {
    SupervisorClient::new(channel)
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(16 << 20)
}

/// Berth's words for: standard input empty, output thrown away.
pub fn no_stdio() -> v1::Stdio {
    v1::Stdio {
        to: Some(stdio::To::Null(v1::StdioNull {})),
        ..Default::default()
    }
}

fn fifo_stdio(fifos: &Fifos) -> v1::Stdio {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let fifo = v1::StdioFifo {
        stdin: String::new(),
        stdout: path(&fifos.stdout),
        stderr: path(&fifos.stderr),
    };
    v1::Stdio {
        to: Some(stdio::To::Fifo(fifo)),
        ..Default::default()
    }
}

fn stdio_of(bundle: &Bundle) -> v1::Stdio {
    match &bundle.fifos {
        Some(fifos) => fifo_stdio(fifos),
        None if bundle.logs => v1::Stdio {
            to: Some(stdio::To::Log(v1::StdioLog::default())),
            ..Default::default()
        },
        None => no_stdio(),
    }
}

impl Client {
    /// The stages that Berth's starts went through, with the mean of each in milliseconds; nothing from others.
    pub async fn stages(&self) -> Result<Vec<(String, f64)>> {
        let Client::Berth(client) = self else {
            return Ok(Vec::new());
        };
        let answer = client.clone().list(v1::ListRequest::default()).await?.into_inner();
        let count = answer.containers.len().max(1) as f64;
        let mut means: Vec<(String, f64)> = Vec::new();
        for stage in answer.containers.into_iter().flat_map(|container| container.stages) {
            let ms = stage.duration_us as f64 / 1000.0 / count;
            match means.iter_mut().find(|(name, _)| *name == stage.name) {
                Some((_, mean)) => *mean += ms,
                None => means.push((stage.name, ms)),
            }
        }
        Ok(means)
    }

    /// From nothing to a running process; gives its pid.
    pub async fn start(&self, bundle: &Bundle) -> Result<u32> {
        match self {
            Client::Berth(client) => {
                let container = v1::ContainerSpec {
                    id: bundle.id.clone(),
                    bundle: bundle.path.to_string_lossy().into_owned(),
                    stdio: Some(stdio_of(bundle)),
                    ..Default::default()
                };
                let request = v1::RunRequest {
                    container: Some(container),
                    ..Default::default()
                };
                let answer = client
                    .clone()
                    .run(request)
                    .await
                    .context(format_args!("starting {}", bundle.id))?;
                Ok(answer.into_inner().pid)
            }
            Client::Containerd(client) => {
                let path = |path: &Path| path.to_string_lossy().into_owned();
                let (stdout, stderr) = match &bundle.fifos {
                    Some(fifos) => (path(&fifos.stdout), path(&fifos.stderr)),
                    None => Default::default(),
                };
                client
                    .start(bundle, stdout, stderr)
                    .await
                    .context(format_args!("starting {}", bundle.id))
            }
        }
    }

    /// Kills it, waits for its end and removes it.
    pub async fn remove(&self, id: &str) -> Result<()> {
        match self {
            Client::Berth(client) => {
                let request = v1::DeleteRequest {
                    id: id.to_owned(),
                    force: true,
                    ..Default::default()
                };
                client
                    .clone()
                    .delete(request)
                    .await
                    .context(format_args!("removing {id}"))?;
                Ok(())
            }
            Client::Containerd(client) => client.remove(id).await.context(format_args!("removing {id}")),
        }
    }

    /// Runs a command in it to its end, forgets it, and gives its exit code.
    pub async fn exec(&self, id: &str, exec_id: &str, process: &[u8]) -> Result<u32> {
        match self {
            Client::Berth(client) => {
                let mut client = client.clone();
                let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
                let request = v1::ExecRequest {
                    id: id.clone(),
                    exec_id: exec_id.clone(),
                    process_json: process.to_vec().into(),
                    stdio: Some(no_stdio()),
                    ..Default::default()
                };
                client.exec(request).await.context("exec")?;
                let request = v1::WaitRequest {
                    id: id.clone(),
                    exec_id: exec_id.clone(),
                    ..Default::default()
                };
                let answer = client.wait(request).await.context("waiting for an exec")?.into_inner();
                let request = v1::DeleteRequest {
                    id,
                    exec_id,
                    ..Default::default()
                };
                client.delete(request).await.context("deleting an exec")?;
                Ok(answer.exit.unwrap_or_default().code)
            }
            Client::Containerd(client) => client.exec(id, exec_id, process).await.context("exec"),
        }
    }

    /// Ids and pids of what runs.
    pub async fn running(&self) -> Result<Vec<(String, u32)>> {
        let mut running = match self {
            Client::Berth(client) => {
                let answer = client.clone().list(v1::ListRequest::default()).await?.into_inner();
                let running = answer.containers.into_iter();
                let running = running.filter(|container| container.state() == v1::ContainerState::Running);
                running
                    .map(|container| (container.id, container.pid))
                    .collect::<Vec<_>>()
            }
            Client::Containerd(client) => client.running().await?,
        };
        running.sort();
        Ok(running)
    }
}

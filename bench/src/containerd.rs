//! Stock containerd as a peer: its configuration, and its API as its own clients use it.

use crate::bundle::Bundle;
use crate::error::Result;
use berth_wire::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container, containers_client::ContainersClient,
};
use berth_wire::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest, ListTasksRequest,
    StartRequest, WaitRequest, tasks_client::TasksClient,
};
use berth_wire::containerd::{json, pack, runc, task};
use prost_types::Any;
use std::path::Path;
use tonic::Request;
use tonic::transport::Channel;

const SIGKILL: u32 = 9;

#[derive(Clone)]
pub struct Containerd {
    containers: ContainersClient<Channel>,
    tasks: TasksClient<Channel>,
    /// Path of the OCI runtime's binary.
    runtime: String,
}

/// containerd's defaults, but for what Docker switches off as well (CRI), and its folders.
pub fn config(work: &Path, socket: &Path) -> String {
    let (root, state) = (work.join("root"), work.join("state"));
    format!(
        "version = 3\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[grpc]\n  address = {socket:?}\n"
    )
}

impl Containerd {
    pub fn new(channel: Channel, runtime: &Path) -> Containerd {
        Containerd {
            containers: ContainersClient::new(channel.clone()),
            tasks: TasksClient::new(channel),
            runtime: runtime.to_string_lossy().into_owned(),
        }
    }

    pub async fn start(&self, bundle: &Bundle, stdout: String, stderr: String) -> Result<u32> {
        let (mut containers, mut tasks) = (self.containers.clone(), self.tasks.clone());
        let options = runc::Options {
            binary_name: self.runtime.clone(),
            ..Default::default()
        };
        let container = Container {
            id: bundle.id.clone(),
            runtime: Some(container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: Some(pack(&options)),
            }),
            spec: Some(Any {
                type_url: json::SPEC.into(),
                value: bundle.spec.clone(),
            }),
            ..Default::default()
        };
        containers
            .create(request(CreateContainerRequest {
                container: Some(container),
            }))
            .await?;
        let container_id = bundle.id.clone();
        let create = CreateTaskRequest {
            container_id: container_id.clone(),
            stdout,
            stderr,
            ..Default::default()
        };
        tasks.create(request(create)).await?;
        let start = StartRequest {
            container_id,
            ..Default::default()
        };
        Ok(tasks.start(request(start)).await?.into_inner().pid)
    }

    pub async fn remove(&self, id: &str) -> Result<()> {
        let (mut containers, mut tasks) = (self.containers.clone(), self.tasks.clone());
        let container_id = id.to_owned();
        let kill = KillRequest {
            container_id: container_id.clone(),
            signal: SIGKILL,
            all: true,
            ..Default::default()
        };
        tasks.kill(request(kill)).await?;
        self.wait(id).await?;
        tasks
            .delete(request(DeleteTaskRequest {
                container_id: container_id.clone(),
            }))
            .await?;
        containers
            .delete(request(DeleteContainerRequest { id: container_id }))
            .await?;
        Ok(())
    }

    /// Waits for its end, and forgets it.
    pub async fn finish(&self, id: &str) -> Result<u32> {
        let code = self.wait(id).await?;
        self.tasks
            .clone()
            .delete(request(DeleteTaskRequest {
                container_id: id.to_owned(),
            }))
            .await?;
        self.containers
            .clone()
            .delete(request(DeleteContainerRequest { id: id.to_owned() }))
            .await?;
        Ok(code)
    }

    async fn wait(&self, id: &str) -> Result<u32> {
        let wait = WaitRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.tasks.clone().wait(request(wait)).await?.into_inner().exit_status)
    }

    pub async fn exec(&self, id: &str, exec_id: &str, process: &[u8]) -> Result<u32> {
        let mut tasks = self.tasks.clone();
        let (container_id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let spec = Some(Any {
            type_url: json::PROCESS.into(),
            value: process.to_vec(),
        });
        let exec = ExecProcessRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            spec,
            ..Default::default()
        };
        tasks.exec(request(exec)).await?;
        tasks
            .start(request(StartRequest {
                container_id: container_id.clone(),
                exec_id: exec_id.clone(),
            }))
            .await?;
        let wait = WaitRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
        };
        let code = tasks.wait(request(wait)).await?.into_inner().exit_status;
        tasks
            .delete_process(request(DeleteProcessRequest { container_id, exec_id }))
            .await?;
        Ok(code)
    }

    pub async fn running(&self) -> Result<Vec<(String, u32)>> {
        let tasks = self
            .tasks
            .clone()
            .list(request(ListTasksRequest::default()))
            .await?
            .into_inner()
            .tasks;
        Ok(tasks
            .into_iter()
            .filter(|task| task.status() == task::Status::Running)
            .map(|task| (task.id, task.pid))
            .collect())
    }
}

/// Every call names its namespace in a header.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", "bench".parse().expect("ASCII"));
    request
}

//! Processes of containers: tasks and their execs, over the same supervisor as our own API.
//!
//! Invariants: a task is there from its Create's success to its Delete's, neither earlier nor later: clients refuse to remove a container
//! as long as Get finds its task, and take "not found" for "gone". Times and codes of an exit are the same in every answer and event.

mod answer;
mod launch;
mod metrics;
mod rehearse;
mod stdio;

use berth_core::{ContainerKey, ErrorCode, ExecId, ExitStatus, Namespace, Signal, TerminalSize};
use berth_supervisor::{ContainerState, ContainerView, ExecProcess, ExecSpec, ExecView, Update};
use berth_wire::containerd::services::tasks::v1::tasks_server as server;
use berth_wire::containerd::services::tasks::v1::*;
use berth_wire::containerd::{events, pack, runc, task, type_name, types};
use prost_types::Any;
use tonic::{Code, Request, Response, Status};

pub use answer::exit_code;
use answer::{Refusal, refuse};
pub use rehearse::request as rehearse_request;
pub use stdio::paths;

use super::{Context, containers, header, time};

pub struct Tasks(pub Context);

/// An empty exec id means the init.
fn exec_id(text: &str) -> Result<Option<ExecId>, Status> {
    match text {
        "" => Ok(None),
        id => ExecId::new(id)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("{error}: invalid argument"))),
    }
}

fn key_of<T>(request: &Request<T>, id: &str) -> Result<ContainerKey, Status> {
    let namespace = header::namespace(request.metadata())?;
    key(&namespace, id)
}

fn key(namespace: &Namespace, id: &str) -> Result<ContainerKey, Status> {
    ContainerKey::parse(namespace.as_str(), id)
        .map_err(|error| Status::invalid_argument(format!("{error}: invalid argument")))
}

fn not_found(what: &str, id: &str) -> Status {
    Status::not_found(format!("{what} {id}: not found"))
}

impl Tasks {
    /// The task, if its Create has succeeded and its Delete has not.
    async fn task(&self, key: &ContainerKey) -> Result<ContainerView, Status> {
        match self.0.supervisor.look(key).await {
            Ok(view) if is_task(&view) => Ok(view),
            Ok(_) => Err(not_found("task", key.id.as_str())),
            Err(error) if error.code() == ErrorCode::NotFound => Err(not_found("task", key.id.as_str())),
            Err(error) => Err(refuse(Refusal::Plain, &error)),
        }
    }

    async fn exec_of(&self, key: &ContainerKey, exec: &ExecId) -> Result<ExecView, Status> {
        let task = self.task(key).await?;
        let exec = task.execs.into_iter().find(|e| e.exec_id == *exec);
        exec.ok_or_else(|| not_found("exec", key.id.as_str()))
    }
}

fn is_task(view: &ContainerView) -> bool {
    !matches!(view.state, ContainerState::Queued | ContainerState::Creating)
}

#[tonic::async_trait]
impl server::Tasks for Tasks {
    async fn create(&self, request: Request<CreateTaskRequest>) -> Result<Response<CreateTaskResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let request = request.into_inner();
        if request.checkpoint.is_some() {
            return Err(Status::unimplemented("restoring from a checkpoint is not built yet"));
        }
        let container = containers::find(&self.0, &key).await?;
        let config = self.0.supervisor.config();
        let spec = launch::spec(key.clone(), container, request, &config)?;
        let created = self.0.supervisor.create(spec, None).await;
        let created = created.map_err(|error| match error.code() {
            ErrorCode::AlreadyExists => Status::already_exists(format!("task {}: already exists", key.id)),
            _ => refuse(Refusal::Create, &error),
        })?;
        Ok(Response::new(CreateTaskResponse {
            container_id: key.id.to_string(),
            pid: created.pid,
        }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let supervisor = &self.0.supervisor;
        let pid = match exec_id(&request.get_ref().exec_id)? {
            None => {
                self.task(&key).await?;
                supervisor.start(key, None).await
            }
            Some(exec) => {
                let task = self.task(&key).await?;
                if task.exit.is_some() {
                    let message = format!("container {} init process is not running: failed precondition", key.id);
                    return Err(Status::failed_precondition(message));
                }
                let started = supervisor.start_exec(key, exec).await;
                return match started {
                    Ok(pid) => Ok(Response::new(StartResponse { pid })),
                    Err(error) => Err(refuse(Refusal::Exec, &error)),
                };
            }
        };
        let pid = pid.map_err(|error| refuse(Refusal::Start, &error))?;
        Ok(Response::new(StartResponse { pid }))
    }

    async fn delete(&self, request: Request<DeleteTaskRequest>) -> Result<Response<DeleteResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let task = self.task(&key).await?;
        // What was never started has nothing to lose.
        let force = matches!(task.state, ContainerState::Created);
        let deleted = self.0.supervisor.delete(key.clone(), None, force, None).await;
        let deleted = deleted.map_err(|error| refuse(Refusal::Plain, &error))?;
        if deleted.pid == 0 && deleted.exit.is_none() {
            // Another call was faster.
            return Err(not_found("task", key.id.as_str()));
        }
        let exit = deleted.exit.or(task.exit);
        Ok(Response::new(DeleteResponse {
            id: String::new(),
            pid: deleted.pid,
            exit_status: exit.as_ref().map_or(0, exit_code),
            exited_at: exit.map(|exit| time::stamp(exit.exited_at)),
        }))
    }

    async fn delete_process(&self, request: Request<DeleteProcessRequest>) -> Result<Response<DeleteResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let Some(exec) = exec_id(&request.get_ref().exec_id)? else {
            return Err(Status::invalid_argument("an exec id is needed: invalid argument"));
        };
        self.exec_of(&key, &exec).await?;
        let deleted = self.0.supervisor.delete(key, Some(exec.clone()), false, None).await;
        let deleted = deleted.map_err(|error| refuse(Refusal::Plain, &error))?;
        Ok(Response::new(DeleteResponse {
            id: exec.to_string(),
            pid: deleted.pid,
            exit_status: deleted.exit.as_ref().map_or(0, exit_code),
            exited_at: deleted.exit.map(|exit| time::stamp(exit.exited_at)),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let task = self.task(&key).await?;
        let process = match exec_id(&request.get_ref().exec_id)? {
            None => answer::init(&task),
            Some(id) => {
                let exec = task.execs.iter().find(|e| e.exec_id == id);
                let exec = exec.ok_or_else(|| not_found("exec", id.as_str()))?;
                answer::exec(&task, exec)
            }
        };
        Ok(Response::new(GetResponse { process: Some(process) }))
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let views = self.0.supervisor.list(Some(namespace), Default::default(), false).await;
        let views = views.map_err(|error| refuse(Refusal::Plain, &error))?;
        let tasks = views.iter().filter(|view| is_task(view)).map(answer::init).collect();
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let KillRequest {
            exec_id: exec,
            signal,
            all,
            ..
        } = request.into_inner();
        let exec = exec_id(&exec)?;
        let number = signal;
        let finished = || Err(Status::not_found("process already finished: not found"));
        let task = self.task(&key).await?;
        match &exec {
            None if task.exit.is_some() => return finished(),
            None => {}
            Some(exec) => {
                let exec = self.exec_of(&key, exec).await?;
                if exec.exit.is_some() {
                    return finished();
                }
                if exec.last_pid == 0 {
                    return Err(Status::failed_precondition("process not created: failed precondition"));
                }
            }
        }
        let Some(signal) = Signal::from_number(number) else {
            // Signal 0 asks whether there is a process.
            return match number {
                0 => Ok(Response::new(())),
                _ => Err(Status::invalid_argument(format!("signal {number}: invalid argument"))),
            };
        };
        match self.0.supervisor.signal(key, exec, signal, all, None).await {
            Ok(()) => Ok(Response::new(())),
            Err(error) if matches!(error.code(), ErrorCode::WrongState | ErrorCode::NotFound) => finished(),
            Err(error) => Err(refuse(Refusal::Plain, &error)),
        }
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let request = request.into_inner();
        let key = key(&namespace, &request.container_id)?;
        let Some(exec) = exec_id(&request.exec_id)? else {
            return Err(Status::invalid_argument("an exec id is needed: invalid argument"));
        };
        self.task(&key).await?;
        let (process, size) = launch::process(request.spec, request.terminal)?;
        let mut stdio = stdio::parse(&request.stdin, &request.stdout, &request.stderr, request.terminal)?;
        stdio.size = size;
        let spec = ExecSpec {
            exec_id: Some(exec.clone()),
            process: ExecProcess::Json(process),
            stdio,
        };
        let added = self.0.supervisor.add_exec(key.clone(), spec).await;
        added.map_err(|error| match error.code() {
            ErrorCode::AlreadyExists => Status::already_exists(format!("id {exec}: already exists")),
            _ => refuse(Refusal::Exec, &error),
        })?;
        let event = events::TaskExecAdded {
            container_id: key.id.to_string(),
            exec_id: exec.to_string(),
        };
        self.0.events.publish(&key.namespace, "/tasks/exec-added", &event);
        Ok(Response::new(()))
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let ResizePtyRequest {
            exec_id: exec,
            width,
            height,
            ..
        } = request.into_inner();
        let exec = exec_id(&exec)?;
        let task = self.task(&key).await?;
        let terminal = match &exec {
            None => task.stdio.terminal,
            Some(exec) => self.exec_of(&key, exec).await?.terminal,
        };
        let side = |side: u32| {
            u16::try_from(side)
                .map_err(|_| Status::invalid_argument(format!("a terminal's side of {side}: invalid argument")))
        };
        let size = TerminalSize {
            width: side(width)?,
            height: side(height)?,
        };
        // Without a terminal, or with one that nobody sees, there is nothing to do.
        if !terminal || (size.width, size.height) == (0, 0) {
            return Ok(Response::new(()));
        }
        let resized = self.0.supervisor.resize_terminal(key, exec, size).await;
        resized.map_err(|error| refuse(Refusal::Plain, &error))?;
        Ok(Response::new(()))
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let exec = exec_id(&request.get_ref().exec_id)?;
        let task = self.task(&key).await?;
        if let Some(exec) = &exec
            && !task.execs.iter().any(|e| e.exec_id == *exec)
        {
            return Err(not_found("exec", exec.as_str()));
        }
        if !request.get_ref().stdin {
            return Ok(Response::new(()));
        }
        match self.0.supervisor.close_stdin(key, exec, None).await {
            // It has ended, and its input with it.
            Err(error) if error.code() != ErrorCode::WrongState => Err(refuse(Refusal::Plain, &error)),
            _ => Ok(Response::new(())),
        }
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        self.task(&key).await?;
        let paused = self.0.supervisor.pause(key, None).await;
        paused
            .map(Response::new)
            .map_err(|error| refuse(Refusal::Plain, &error))
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        self.task(&key).await?;
        let resumed = self.0.supervisor.resume(key, None).await;
        resumed
            .map(Response::new)
            .map_err(|error| refuse(Refusal::Plain, &error))
    }

    async fn list_pids(&self, request: Request<ListPidsRequest>) -> Result<Response<ListPidsResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        self.task(&key).await?;
        let view = self.0.supervisor.get(key, true).await;
        let view = view.map_err(|error| refuse(Refusal::Plain, &error))?;
        let processes = view.processes.into_iter().map(|process| task::ProcessInfo {
            pid: process.pid,
            info: process.exec_id.map(|exec| {
                pack(&runc::ProcessDetails {
                    exec_id: exec.to_string(),
                })
            }),
        });
        Ok(Response::new(ListPidsResponse {
            processes: processes.collect(),
        }))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let request = request.into_inner();
        let key = key(&namespace, &request.container_id)?;
        self.task(&key).await?;
        let Some(Any { type_url, value }) = request.resources else {
            return Err(Status::invalid_argument("resources are needed: invalid argument"));
        };
        if !type_name(&type_url).ends_with("LinuxResources") {
            let message = format!("resources of type {type_url:?}, not LinuxResources: invalid argument");
            return Err(Status::invalid_argument(message));
        }
        let updated = self.0.supervisor.update(key, Update::Json(value), None).await;
        updated
            .map(Response::new)
            .map_err(|error| refuse(Refusal::Plain, &error))
    }

    async fn metrics(&self, request: Request<MetricsRequest>) -> Result<Response<MetricsResponse>, Status> {
        let namespace = header::namespace(request.metadata())?;
        let metrics: Vec<types::Metric> =
            metrics::read(&self.0.supervisor, namespace, &request.into_inner().filters).await?;
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let key = key_of(&request, &request.get_ref().container_id)?;
        let exec = exec_id(&request.get_ref().exec_id)?;
        match &exec {
            None => drop(self.task(&key).await?),
            Some(exec) => drop(self.exec_of(&key, exec).await?),
        }
        let exit: ExitStatus = tokio::select! {
            biased;
            exit = self.0.supervisor.wait(key, exec) => exit.map_err(|error| refuse(Refusal::Plain, &error))?,
            () = self.0.ending.begun() => return Err(Status::new(Code::Unavailable, "the daemon is ending")),
        };
        Ok(Response::new(WaitResponse {
            exit_status: exit_code(&exit),
            exited_at: Some(time::stamp(exit.exited_at)),
        }))
    }
}

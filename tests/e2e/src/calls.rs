//! The calls that tests make all the time, with their limits, on the shared connection.
use crate::v1::{self, stdio};
use crate::{Bundle, Daemon, LIMIT, within};
use tonic::{Request, Status};

pub fn null() -> v1::Stdio {
    v1::Stdio {
        to: Some(stdio::To::Null(v1::StdioNull {})),
        ..Default::default()
    }
}

pub fn log(log: v1::StdioLog) -> v1::Stdio {
    v1::Stdio {
        to: Some(stdio::To::Log(log)),
        ..Default::default()
    }
}

impl Daemon {
    /// Run, or its error.
    pub async fn try_run(&self, spec: v1::ContainerSpec) -> Result<v1::RunResponse, Status> {
        let request = v1::RunRequest {
            container: Some(spec),
            request_id: String::new(),
        };
        Ok(within("run", LIMIT, self.api().run(request)).await?.into_inner())
    }

    pub async fn try_create(&self, spec: v1::ContainerSpec) -> Result<v1::CreateResponse, Status> {
        let request = v1::CreateRequest {
            container: Some(spec),
            request_id: String::new(),
        };
        Ok(within("create", LIMIT, self.api().create(request)).await?.into_inner())
    }

    pub async fn try_start(&self, id: &str) -> Result<v1::StartResponse, Status> {
        let request = v1::StartRequest {
            id: id.into(),
            ..Default::default()
        };
        Ok(within("start", LIMIT, self.api().start(request)).await?.into_inner())
    }

    /// Runs the bundle and gives the pid of its init.
    pub async fn run(&self, bundle: &Bundle) -> u32 {
        self.try_run(bundle.spec())
            .await
            .unwrap_or_else(|e| panic!("run {}: {e:?}", bundle.id))
            .pid
    }

    /// Runs and waits for the end.
    pub async fn run_to_end(&self, bundle: &Bundle) -> v1::ExitStatus {
        self.run(bundle).await;
        self.wait(&bundle.id).await
    }

    pub async fn wait(&self, id: &str) -> v1::ExitStatus {
        self.wait_exec(id, "").await
    }

    pub async fn wait_exec(&self, id: &str, exec_id: &str) -> v1::ExitStatus {
        let request = v1::WaitRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        let answer = within(&format!("wait {id} {exec_id}"), LIMIT, self.api().wait(request)).await;
        answer
            .unwrap_or_else(|e| panic!("wait {id} {exec_id}: {e:?}"))
            .into_inner()
            .exit
            .expect("an exit")
    }

    pub async fn try_get(&self, id: &str) -> Result<v1::Container, Status> {
        let request = v1::GetRequest {
            id: id.into(),
            processes: true,
            ..Default::default()
        };
        Ok(within("get", LIMIT, self.api().get(request))
            .await?
            .into_inner()
            .container
            .expect("a container"))
    }

    pub async fn get(&self, id: &str) -> v1::Container {
        self.try_get(id).await.unwrap_or_else(|e| panic!("get {id}: {e:?}"))
    }

    pub async fn list(&self) -> Vec<v1::Container> {
        let request = v1::ListRequest {
            namespace: "*".into(),
            ..Default::default()
        };
        within("list", LIMIT, self.api().list(request))
            .await
            .expect("list")
            .into_inner()
            .containers
    }

    pub async fn try_signal(&self, id: &str, exec_id: &str, signal: &str) -> Result<(), Status> {
        let (id, exec_id, signal) = (id.into(), exec_id.into(), signal.into());
        let request = v1::SignalRequest {
            id,
            exec_id,
            signal,
            ..Default::default()
        };
        within("signal", LIMIT, self.api().signal(request)).await.map(drop)
    }

    pub async fn signal(&self, id: &str, signal: &str) {
        self.try_signal(id, "", signal)
            .await
            .unwrap_or_else(|e| panic!("signal {id}: {e:?}"));
    }

    pub async fn try_delete(&self, id: &str, force: bool) -> Result<v1::DeleteResponse, Status> {
        let request = v1::DeleteRequest {
            id: id.into(),
            force,
            ..Default::default()
        };
        Ok(within("delete", LIMIT, self.api().delete(request)).await?.into_inner())
    }

    pub async fn delete(&self, id: &str) -> v1::DeleteResponse {
        self.try_delete(id, true)
            .await
            .unwrap_or_else(|e| panic!("delete {id}: {e:?}"))
    }

    pub async fn try_exec(&self, request: v1::ExecRequest) -> Result<v1::ExecResponse, Status> {
        Ok(within("exec", LIMIT, self.api().exec(request)).await?.into_inner())
    }

    /// Starts `sh -c LINE` in the container.
    pub async fn exec(&self, id: &str, exec_id: &str, line: &str) -> v1::ExecResponse {
        let request = exec_request(id, exec_id, &["/bin/sh", "-c", line]);
        self.try_exec(request)
            .await
            .unwrap_or_else(|e| panic!("exec {id} {exec_id}: {e:?}"))
    }

    pub async fn stop(&self, id: &str, timeout_ms: u32) -> v1::ExitStatus {
        let request = v1::StopRequest {
            id: id.into(),
            timeout_ms: Some(timeout_ms),
            ..Default::default()
        };
        within("stop", LIMIT, self.api().stop(request))
            .await
            .expect("stop")
            .into_inner()
            .exit
            .expect("an exit")
    }

    /// All entries that Logs gives until its stream ends.
    pub async fn log_entries(&self, request: v1::LogsRequest) -> Vec<v1::LogEntry> {
        let read = async {
            let mut stream = self.api().logs(request).await.expect("logs").into_inner();
            let mut entries = Vec::new();
            while let Some(answer) = stream.message().await.expect("logs go on") {
                entries.extend(answer.entries);
            }
            entries
        };
        within("logs", LIMIT * 4, read).await
    }

    /// All output that the log has, both streams as they came.
    pub async fn logs(&self, id: &str) -> Vec<u8> {
        let request = v1::LogsRequest {
            id: id.into(),
            ..Default::default()
        };
        self.log_entries(request)
            .await
            .iter()
            .flat_map(|e| e.data.to_vec())
            .collect()
    }

    /// Everything that happened so far, in every namespace.
    pub async fn history(&self) -> Vec<v1::Event> {
        let since = "0".into();
        self.history_since(since)
            .await
            .unwrap_or_else(|e| panic!("events: {e:?}"))
    }

    pub async fn history_since(&self, since: String) -> Result<Vec<v1::Event>, Status> {
        let request = v1::EventsRequest {
            namespace: "*".into(),
            since,
            history_only: true,
            ..Default::default()
        };
        let read = async {
            let mut stream = self.api().events(request).await?.into_inner();
            let mut events = Vec::new();
            while let Some(answer) = stream.message().await? {
                if let Some(v1::events_response::Item::Event(event)) = answer.item {
                    events.push(event);
                }
            }
            Ok(events)
        };
        within("events", LIMIT, read).await
    }

    /// Asserts that every exit was told once, by one number, and that numbers only rise.
    pub async fn check_exits(&self) -> Vec<v1::Event> {
        let events = self.history().await;
        assert!(
            events.windows(2).all(|w| w[0].number < w[1].number),
            "numbers rise: {events:?}"
        );
        let mut seen = std::collections::HashMap::new();
        for event in &events {
            if matches!(event.kind(), v1::EventKind::Exited | v1::EventKind::ExecExited) {
                let key = (
                    event.namespace.clone(),
                    event.id.clone(),
                    event.incarnation.clone(),
                    event.exec_id.clone(),
                );
                let before = seen.insert(key, event.number);
                assert!(
                    before.is_none(),
                    "two numbers, {before:?} and {} for one exit: {event:?}",
                    event.number
                );
            }
        }
        events
    }
}

pub fn exec_request(id: &str, exec_id: &str, args: &[&str]) -> v1::ExecRequest {
    v1::ExecRequest {
        id: id.into(),
        exec_id: exec_id.into(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..Default::default()
    }
}

/// A request with the gRPC deadline that clients set.
pub fn with_timeout<T>(message: T, timeout: std::time::Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

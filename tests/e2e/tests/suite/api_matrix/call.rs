//! One valid call of each method, as the matrix makes them.
use berth_e2e::calls::{exec_request, with_timeout};
use berth_e2e::v1::{self, attach_request::Action};
use berth_e2e::{Bundle, Client};
use std::time::Duration;
use tonic::Status;

/// One valid call of the method on that id, with the answer as text.
pub(super) struct Call<'a> {
    pub(super) api: Client,
    pub(super) id: &'a str,
    pub(super) exec_id: &'a str,
    pub(super) request_id: &'a str,
    pub(super) bundle: Option<&'a Bundle>,
    pub(super) timeout: Duration,
}

macro_rules! unary {
    ($call:ident, $api:ident, $method:ident, $request:expr) => {
        $api.$method(with_timeout($request, $call.timeout))
            .await
            .map(|a| format!("{:?}", a.into_inner()))
    };
}

macro_rules! first {
    ($call:ident, $api:ident, $method:ident, $request:expr) => {
        async {
            let mut stream = $api.$method(with_timeout($request, $call.timeout)).await?.into_inner();
            stream.message().await.map(|m| format!("{m:?}"))
        }
        .await
    };
}

impl Call<'_> {
    pub(super) async fn make(&self, method: &str) -> Result<String, Status> {
        let mut api = self.api.clone();
        let (namespace, id) = (String::new(), self.id.to_owned());
        let (exec_id, request_id) = (self.exec_id.to_owned(), self.request_id.to_owned());
        match method {
            "Run" => {
                let container = self.bundle.map(Bundle::spec);
                unary!(self, api, run, v1::RunRequest { container, request_id })
            }
            "Create" => {
                let container = self.bundle.map(Bundle::spec);
                unary!(self, api, create, v1::CreateRequest { container, request_id })
            }
            "Start" => unary!(
                self,
                api,
                start,
                v1::StartRequest {
                    namespace,
                    id,
                    request_id
                }
            ),
            "Exec" => {
                let request = exec_request(&id, "", &["/bin/sh", "-c", "echo x >> /out/execs"]);
                unary!(self, api, exec, v1::ExecRequest { request_id, ..request })
            }
            "Signal" => {
                let signal = "USR1".into();
                unary!(
                    self,
                    api,
                    signal,
                    v1::SignalRequest {
                        namespace,
                        id,
                        exec_id,
                        signal,
                        all: false,
                        request_id
                    }
                )
            }
            "Stop" => {
                let (timeout_ms, signal) = (Some(20_000), String::new());
                unary!(
                    self,
                    api,
                    stop,
                    v1::StopRequest {
                        namespace,
                        id,
                        timeout_ms,
                        signal,
                        request_id
                    }
                )
            }
            "Wait" => unary!(self, api, wait, v1::WaitRequest { namespace, id, exec_id }),
            "Delete" => {
                unary!(
                    self,
                    api,
                    delete,
                    v1::DeleteRequest {
                        namespace,
                        id,
                        exec_id,
                        force: true,
                        request_id
                    }
                )
            }
            "Pause" => unary!(
                self,
                api,
                pause,
                v1::PauseRequest {
                    namespace,
                    id,
                    request_id
                }
            ),
            "Resume" => unary!(
                self,
                api,
                resume,
                v1::ResumeRequest {
                    namespace,
                    id,
                    request_id
                }
            ),
            "Update" => {
                let resources = Some(v1::Resources {
                    pids_limit: Some(55),
                    ..Default::default()
                });
                let resources_json = Default::default();
                unary!(
                    self,
                    api,
                    update,
                    v1::UpdateRequest {
                        namespace,
                        id,
                        resources,
                        resources_json,
                        request_id,
                        ..Default::default()
                    }
                )
            }
            "Get" => unary!(
                self,
                api,
                get,
                v1::GetRequest {
                    namespace,
                    id,
                    processes: true
                }
            ),
            "List" => unary!(
                self,
                api,
                list,
                v1::ListRequest {
                    processes: true,
                    ..Default::default()
                }
            ),
            "Stats" => first!(
                self,
                api,
                stats,
                v1::StatsRequest {
                    namespace,
                    ids: vec![id],
                    interval_ms: 0
                }
            ),
            "ResizeTerminal" => {
                let request = v1::ResizeTerminalRequest {
                    namespace,
                    id,
                    exec_id,
                    width: 90,
                    height: 40,
                };
                unary!(self, api, resize_terminal, request)
            }
            "CloseStdin" => {
                unary!(
                    self,
                    api,
                    close_stdin,
                    v1::CloseStdinRequest {
                        namespace,
                        id,
                        exec_id,
                        request_id
                    }
                )
            }
            "Attach" => {
                let open = v1::AttachOpen {
                    namespace,
                    id,
                    exec_id,
                    offset: None,
                };
                let open = v1::AttachRequest {
                    action: Some(Action::Open(open)),
                };
                first!(self, api, attach, tokio_stream::iter([open]))
            }
            "Logs" => first!(
                self,
                api,
                logs,
                v1::LogsRequest {
                    namespace,
                    id,
                    ..Default::default()
                }
            ),
            "Events" => {
                first!(
                    self,
                    api,
                    events,
                    v1::EventsRequest {
                        since: "0".into(),
                        id,
                        ..Default::default()
                    }
                )
            }
            "Version" => unary!(self, api, version, v1::VersionRequest {}),
            _ => panic!("no call for {method}: add it here"),
        }
    }
}

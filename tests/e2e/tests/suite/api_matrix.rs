//! Every method of the service has a case for each thing that can happen to a call, or this fails.
//!
//! The table names for each method the test that shows its effect in the kernel and the one that shows a wrong state; the rest,
//! that all methods have in common, is done here for each row: an unknown id, a deadline and a cancel while the shim is mute, and
//! the same request id twice.
//!
//! Long because the table has a row for each method of the service and is read as one.
use berth_e2e::calls::{exec_request, log, with_timeout};
use berth_e2e::v1::{self, ErrorCode, StdioLog, attach_request::Action};
use berth_e2e::{Bundle, Client, Daemon, LIMIT, Runtime, detail, eventually, on_all, proc, within};
use prost::Message;
use rustix::process::Signal;
use std::time::Duration;
use tonic::{Code, Status};

on_all!(unknown_id, unknown_exec_id, deadline, cancel, same_request_id_twice);

/// What a row says about one thing that can happen.
enum Case {
    /// The loop of this file does it.
    Here,
    /// This test does it; that it exists is checked by the compiler.
    Test(&'static str),
    /// It can't happen, and why.
    Never(&'static str),
}
use Case::{Here, Never, Test};

macro_rules! test {
    ($($path:ident)::+) => {{
        let _ = $($path)::+;
        Test(stringify!($($path)::+))
    }};
}

struct Row {
    method: &'static str,
    effect: Case,
    unknown_id: Case,
    wrong_state: Case,
    deadline: Case,
    cancel: Case,
    twice: Case,
}

const NO_ID: &str = "names no container";
const READS: &str = "changes nothing, any state will do";
const NO_REQUEST_ID: &str = "changes nothing, has no request id";
const NOT_BUILT: &str = "answers UNIMPLEMENTED";

fn table() -> Vec<Row> {
    use crate::*;
    let row = |method, effect, unknown_id, wrong_state, twice| Row {
        method,
        effect,
        unknown_id,
        wrong_state,
        deadline: Here,
        cancel: Here,
        twice,
    };
    let wrong = || test!(bad_runtime::wrong_states);
    let not_built = |method| Row {
        method,
        effect: test!(lifecycle::not_built_yet),
        unknown_id: Never(NOT_BUILT),
        wrong_state: Never(NOT_BUILT),
        deadline: Never(NOT_BUILT),
        cancel: Never(NOT_BUILT),
        twice: Never(NOT_BUILT),
    };
    vec![
        Row {
            deadline: test!(queue::grpc_deadline_drops_what_is_queued),
            cancel: test!(queue::cancel_drops_what_is_queued),
            ..row(
                "Run",
                test!(lifecycle::exit_codes),
                Never("makes the id"),
                test!(bad_bundle::id_in_use),
                Here,
            )
        },
        Row {
            deadline: test!(queue::grpc_deadline_drops_what_is_queued),
            cancel: test!(queue::cancel_drops_what_is_queued),
            ..row(
                "Create",
                test!(lifecycle::create_then_start),
                Never("makes the id"),
                test!(bad_bundle::id_in_use),
                Here,
            )
        },
        row("Start", test!(lifecycle::create_then_start), Here, wrong(), Here),
        row("Exec", test!(exec::own_id_and_code), Here, wrong(), Here),
        row("Signal", test!(lifecycle::signals), Here, wrong(), Here),
        row(
            "Stop",
            test!(lifecycle::stop_by_signal),
            Here,
            test!(lifecycle::stop_by_signal),
            Here,
        ),
        row(
            "Wait",
            test!(lifecycle::wait_before_start),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row("Delete", test!(lifecycle::delete_needs_force), Here, wrong(), Here),
        row("Pause", test!(lifecycle::pause_and_resume), Here, wrong(), Here),
        row("Resume", test!(lifecycle::pause_and_resume), Here, wrong(), Here),
        row(
            "Update",
            test!(lifecycle::update_is_seen_in_the_cgroup),
            Here,
            wrong(),
            Here,
        ),
        row(
            "Get",
            test!(lifecycle::get_and_list),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "List",
            test!(lifecycle::get_and_list),
            Never(NO_ID),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Stats",
            test!(lifecycle::stats_from_the_cgroup),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "ResizeTerminal",
            test!(stdio::terminal_by_fifo),
            Here,
            test!(stdio::terminal_must_agree),
            Never("has no request id; a size twice is the same size"),
        ),
        row(
            "CloseStdin",
            test!(stdio::close_stdin_of_a_fifo),
            Here,
            test!(stdio::close_stdin_of_a_fifo),
            Here,
        ),
        row(
            "Attach",
            test!(attach::input_and_output),
            Here,
            test!(attach::needs_open_first_and_kept_stdio),
            Never("a stream"),
        ),
        row(
            "Logs",
            test!(logs::hundred_thousand_lines),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Events",
            test!(events::one_life_in_order),
            Never("an id is a filter"),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Version",
            test!(lifecycle::version_names_the_runtimes),
            Never(NO_ID),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        not_built("Checkpoint"),
        not_built("Restore"),
        not_built("Migrate"),
    ]
}

/// The descriptor's methods are the table's, and every row says why where it has no case.
#[test]
fn every_method_has_every_case() {
    let files = prost_types::FileDescriptorSet::decode(berth_wire::DESCRIPTOR).expect("descriptor");
    let service = files
        .file
        .iter()
        .flat_map(|f| &f.service)
        .find(|s| s.name() == "Supervisor")
        .expect("the service");
    let methods: Vec<_> = service.method.iter().map(|m| m.name().to_owned()).collect();
    let table = table();
    let rows: Vec<_> = table.iter().map(|r| r.method.to_owned()).collect();
    assert_eq!(
        methods, rows,
        "a method of the descriptor has no row, or a row no method"
    );
    for row in &table {
        for case in [
            &row.effect,
            &row.unknown_id,
            &row.wrong_state,
            &row.deadline,
            &row.cancel,
            &row.twice,
        ] {
            if let Test(text) | Never(text) = case {
                assert!(!text.is_empty(), "{}", row.method);
            }
        }
    }
}

fn rows(which: impl Fn(&Row) -> &Case) -> Vec<&'static str> {
    table()
        .into_iter()
        .filter(|r| matches!(which(r), Here))
        .map(|r| r.method)
        .collect()
}

/// One valid call of the method on that id, with the answer as text.
struct Call<'a> {
    api: Client,
    id: &'a str,
    exec_id: &'a str,
    request_id: &'a str,
    bundle: Option<&'a Bundle>,
    timeout: Duration,
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
    async fn make(&self, method: &str) -> Result<String, Status> {
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
                        request_id
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

fn call<'a>(d: &Daemon, id: &'a str) -> Call<'a> {
    Call {
        api: d.connect(),
        id,
        exec_id: "",
        request_id: "",
        bundle: None,
        timeout: LIMIT,
    }
}

pub async fn unknown_id(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for method in rows(|r| &r.unknown_id) {
        let result = within(method, LIMIT, call(&d, "nobody").make(method)).await;
        match method {
            "Delete" => drop(result.expect("what is gone already is deleted")),
            _ => {
                let status = result.expect_err(method);
                assert_eq!(
                    (status.code(), detail(&status).code()),
                    (Code::NotFound, ErrorCode::NotFound),
                    "{method}: {status:?}"
                );
                assert!(status.message().contains("nobody"), "{method}: {status:?}");
            }
        }
    }
}

pub async fn unknown_exec_id(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    for method in ["Signal", "Wait", "ResizeTerminal", "CloseStdin", "Attach", "Delete"] {
        let call = Call {
            exec_id: "noexec",
            ..call(&d, "c")
        };
        let result = within(method, LIMIT, call.make(method)).await;
        match method {
            "Delete" => drop(result.expect("what is gone already is deleted")),
            _ => {
                let status = result.expect_err(method);
                assert_eq!(status.code(), Code::NotFound, "{method}: {status:?}");
                assert!(status.message().contains("noexec"), "{method}: {status:?}");
            }
        }
    }
}

/// A container on which every method is legal, and the state that `method` wants.
async fn ready(d: &Daemon, id: &str, method: &str) -> Bundle {
    let b = d.sh(
        id,
        "trap 'echo u >> /out/usr1' USR1; trap 'exit 0' TERM; echo up > /out/up; while :; do sleep 0.2 & wait $!; done",
    );
    let b = b.stdio(log(StdioLog {
        stdin: true,
        ..Default::default()
    }));
    let b = if method == "ResizeTerminal" { b.terminal() } else { b };
    match method {
        "Run" | "Create" => {}
        "Start" => drop(d.try_create(b.spec()).await.expect("create")),
        _ => {
            d.run(&b).await;
            b.line("up").await;
        }
    }
    if method == "Resume" {
        d.api()
            .pause(v1::PauseRequest {
                id: id.into(),
                ..Default::default()
            })
            .await
            .expect("pause");
    }
    b
}

/// The daemon and the container are well.
async fn well(d: &Daemon, id: &str, method: &str) {
    within("version", LIMIT, d.api().version(v1::VersionRequest {}))
        .await
        .expect("the daemon lives");
    eventually(&format!("{id} answers after {method}"), || async {
        d.try_get(id).await.ok().or((method == "Delete").then(Default::default))
    })
    .await;
    d.delete(id).await;
    assert!(!d.folder(id).exists(), "{method}");
}

/// With a mute shim every call ends soon after its deadline.
pub async fn deadline(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for method in rows(|r| &r.deadline) {
        let id = format!("dl-{}", method.to_lowercase());
        ready(&d, &id, method).await;
        let shim = d.get(&id).await.shim_pid;
        proc::kill(shim, Signal::STOP);
        let call = Call {
            timeout: Duration::from_millis(300),
            ..call(&d, &id)
        };
        let result = within(method, Duration::from_secs(5), call.make(method)).await;
        if let Err(status) = result {
            assert!(
                matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
                "{method}: {status:?}"
            );
        }
        proc::kill(shim, Signal::CONT);
        well(&d, &id, method).await;
    }
}

/// A call that its client drops while the shim is mute leaves the container usable.
pub async fn cancel(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for method in rows(|r| &r.cancel) {
        let id = format!("ca-{}", method.to_lowercase());
        ready(&d, &id, method).await;
        let shim = d.get(&id).await.shim_pid;
        proc::kill(shim, Signal::STOP);
        // The drop is what is tested: there is no fact to wait for but that the call is on its way.
        let dropped = tokio::time::timeout(Duration::from_millis(100), call(&d, &id).make(method)).await;
        if let Ok(Err(status)) = dropped {
            panic!("{method}: {status:?}");
        }
        proc::kill(shim, Signal::CONT);
        well(&d, &id, method).await;
    }
}

/// The second call gets the first one's answer, and nothing happens again.
pub async fn same_request_id_twice(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for method in rows(|r| &r.twice) {
        let id = format!("tw-{}", method.to_lowercase());
        let b = ready(&d, &id, method).await;
        let call = Call {
            request_id: &format!("req-{method}"),
            bundle: Some(&b),
            ..call(&d, &id)
        };
        let first = within(method, LIMIT, call.make(method))
            .await
            .unwrap_or_else(|e| panic!("{method}: {e:?}"));
        let events = d.history().await;
        let again = within(method, LIMIT, call.make(method))
            .await
            .unwrap_or_else(|e| panic!("{method} again: {e:?}"));
        assert_eq!(again, first, "{method}");
        let count = |of: &[v1::Event], kind| of.iter().filter(|e| e.id == id && e.kind() == kind).count();
        let now = d.history().await;
        use v1::EventKind::*;
        for kind in [Created, Started, ExecStarted, Paused, Resumed, Updated, Deleted] {
            assert_eq!(count(&now, kind), count(&events, kind), "{method} happened twice");
        }
        if method == "Signal" {
            // A third one by another id is a marker: when it has come, a second one would have come too.
            b.line("usr1").await;
            d.signal(&id, "USR1").await;
            berth_e2e::until("the marker", || {
                (std::fs::read_to_string(b.out("usr1")).ok()?.lines().count() >= 2).then_some(())
            })
            .await;
            assert_eq!(std::fs::read_to_string(b.out("usr1")).expect("usr1"), "u\nu\n");
        }
        // The same id for something else is a mistake of the client's.
        d.delete(&id).await;
    }
}

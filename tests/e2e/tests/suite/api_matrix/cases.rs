//! What can happen to every call alike, done for each row of the matrix that says so.
use super::call::Call;
use super::rows;
use berth_e2e::calls::log;
use berth_e2e::v1::{self, ErrorCode, StdioLog};
use berth_e2e::{Bundle, Daemon, LIMIT, Runtime, detail, eventually, proc, within};
use rustix::process::Signal;
use std::time::Duration;
use tonic::Code;

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

/// What the daemon answers by itself, or in time without a shim.
const WITHOUT_SHIM: [&str; 6] = ["Delete", "List", "Stats", "Logs", "Events", "Version"];

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
        match result {
            Err(status) => assert!(
                matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
                "{method}: {status:?}"
            ),
            Ok(answer) => assert!(WITHOUT_SHIM.contains(&method), "{method} needs the shim: {answer}"),
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

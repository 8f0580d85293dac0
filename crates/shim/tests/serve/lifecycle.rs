//! Create, start, exec, exits, signals, delete.

use berth_core::ErrorCode;
use berth_wire::rpc::Method;
use berth_wire::shim::{
    CreateResponse, DeleteRequest, DeleteResponse, ExecOverrides, ExecRequest, ExecResponse, PauseRequest,
    PauseResponse, ResumeRequest, ResumeResponse, ShutdownRequest, ShutdownResponse, SignalRequest, SignalResponse,
    StartRequest, StartResponse, State, UpdateRequest, UpdateResponse,
};

use crate::harness::{each, null};

fn code(failed: Result<impl std::fmt::Debug, (String, berth_wire::shim::Failure)>) -> Option<ErrorCode> {
    let (message, failure) = failed.unwrap_err();
    assert!(!message.is_empty());
    ErrorCode::from_number(failure.code)
}

fn exec(id: &str, args: &[&str]) -> ExecRequest {
    let args = args.iter().map(|arg| arg.to_string()).collect();
    ExecRequest {
        exec_id: id.into(),
        overrides: Some(ExecOverrides {
            args,
            ..ExecOverrides::default()
        }),
        stdio: Some(null()),
        ..ExecRequest::default()
    }
}

#[test]
fn created_and_started_in_one_call() {
    each(|it| {
        it.shell("exit 7");
        let answer = it.run(null());
        assert!(answer.started && answer.pid > 1 && answer.start_time > 0);
        assert!(answer.cgroup.ends_with(&it.id), "{}", answer.cgroup);
        assert!(
            answer
                .stages
                .iter()
                .map(|stage| stage.name.as_str())
                .eq(["bundle", "create", "start"])
        );
        let exit = it.exit();
        assert_eq!((exit.code, exit.signal, exit.oom), (7, 0, false));
        assert_eq!(it.state().state(), State::Stopped);
        let record = std::fs::read_to_string(it.dir.join("c/exit.json")).unwrap();
        assert!(record.contains("\"code\": 7"), "{record}");
    });
}

#[test]
fn created_then_started() {
    each(|it| {
        it.shell("sleep 1000");
        let request = it.request(null(), false);
        let created: CreateResponse = it.conn.call(Method::Create, &request).unwrap();
        assert_eq!(it.state().state(), State::Created);
        assert_eq!(
            code(it.conn.call::<CreateResponse>(Method::Create, &request)),
            Some(ErrorCode::WrongState)
        );
        assert_eq!(
            code(it.conn.call::<ExecResponse>(Method::Exec, &exec("x", &["/bin/true"]))),
            Some(ErrorCode::WrongState)
        );
        let _: StartResponse = it.conn.call(Method::Start, &StartRequest {}).unwrap();
        assert_eq!(it.state().state(), State::Running);
        assert_eq!(
            code(it.conn.call::<StartResponse>(Method::Start, &StartRequest {})),
            Some(ErrorCode::WrongState)
        );
        assert_eq!(
            code(
                it.conn
                    .call::<DeleteResponse>(Method::Delete, &DeleteRequest::default())
            ),
            Some(ErrorCode::WrongState)
        );
        assert_eq!(
            code(it.conn.call::<ShutdownResponse>(Method::Shutdown, &ShutdownRequest {})),
            Some(ErrorCode::WrongState)
        );
        let kill = SignalRequest {
            signal: 9,
            ..SignalRequest::default()
        };
        let _: SignalResponse = it.conn.call(Method::Signal, &kill).unwrap();
        let exit = it.exit();
        assert_eq!((exit.code, exit.signal), (137, 9));
        assert_eq!(it.state().processes[0].pid, created.pid);
    });
}

#[test]
fn execs_end_with_their_own_codes_and_before_the_init() {
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        let mut events = it.events();
        for number in 0..5 {
            let id = format!("e{number}");
            let line = format!("exit {number}");
            let made: ExecResponse = it
                .conn
                .call(Method::Exec, &exec(&id, &["/bin/sh", "-c", &line]))
                .unwrap();
            assert!(made.pid > 1);
            assert_eq!(events.exit_of(&id).code, number);
            let record = std::fs::read_to_string(it.dir.join(format!("c/exec-{id}.json"))).unwrap();
            assert!(record.contains(&format!("\"code\": {number}")), "{record}");
        }
        let taken = it.conn.call::<ExecResponse>(Method::Exec, &exec("e0", &["/bin/true"]));
        assert_eq!(code(taken), Some(ErrorCode::AlreadyExists));
        let delete = DeleteRequest {
            exec_id: "e0".into(),
            force: false,
        };
        for _ in 0..2 {
            let _: DeleteResponse = it.conn.call(Method::Delete, &delete).unwrap();
        }
        let missing = it
            .conn
            .call::<ExecResponse>(Method::Exec, &exec("none", &["/bin/nothing"]));
        assert_eq!(code(missing), Some(ErrorCode::CommandNotFound));
        let _: ExecResponse = it
            .conn
            .call(Method::Exec, &exec("long", &["/bin/sleep", "1000"]))
            .unwrap();
        let kill = SignalRequest {
            signal: 9,
            ..SignalRequest::default()
        };
        let _: SignalResponse = it.conn.call(Method::Signal, &kill).unwrap();
        let order = [events.exited().exec_id, events.exited().exec_id];
        assert_eq!(order, ["long", ""]);
    });
}

#[test]
fn paused_resumed_updated_signalled() {
    each(|it| {
        it.config(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"], |_| {});
        it.run(null());
        let _: PauseResponse = it.conn.call(Method::Pause, &PauseRequest {}).unwrap();
        assert_eq!(it.state().state(), State::Paused);
        assert_eq!(
            code(it.conn.call::<PauseResponse>(Method::Pause, &PauseRequest {})),
            Some(ErrorCode::WrongState)
        );
        let _: ResumeResponse = it.conn.call(Method::Resume, &ResumeRequest {}).unwrap();
        assert_eq!(it.state().state(), State::Running);
        let resources = br#"{"memory":{"limit":67108864}}"#;
        let update = UpdateRequest {
            resources_json: resources.to_vec().into(),
        };
        let _: UpdateResponse = it.conn.call(Method::Update, &update).unwrap();
        let bad = SignalRequest {
            signal: 65,
            ..SignalRequest::default()
        };
        assert_eq!(
            code(it.conn.call::<SignalResponse>(Method::Signal, &bad)),
            Some(ErrorCode::InvalidArgument)
        );
        let unknown = SignalRequest {
            exec_id: "x".into(),
            signal: 9,
            ..SignalRequest::default()
        };
        assert_eq!(
            code(it.conn.call::<SignalResponse>(Method::Signal, &unknown)),
            Some(ErrorCode::NotFound)
        );
        let all = SignalRequest {
            signal: 9,
            all: true,
            request_id: "once".into(),
            ..SignalRequest::default()
        };
        for _ in 0..2 {
            let _: SignalResponse = it.conn.call(Method::Signal, &all).unwrap();
        }
        assert_eq!(it.exit().code, 137);
    });
}

#[test]
fn a_delete_by_force_ends_what_is_frozen() {
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        let _: PauseResponse = it.conn.call(Method::Pause, &PauseRequest {}).unwrap();
        // `each` deletes.
    });
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    each(|it| {
        it.config(&["/bin/nothing"], |_| {});
        let request = it.request(null(), true);
        assert_eq!(
            code(it.conn.call::<CreateResponse>(Method::Create, &request)),
            Some(ErrorCode::CommandNotFound)
        );
        assert_eq!(it.state().state(), State::Empty);
        std::fs::write(it.dir.join("bundle/config.json"), "{").unwrap();
        assert_eq!(
            code(it.conn.call::<CreateResponse>(Method::Create, &request)),
            Some(ErrorCode::Bundle)
        );
        // And the next one works.
        it.shell("exit 3");
        it.run(null());
        assert_eq!(it.exit().code, 3);
    });
}

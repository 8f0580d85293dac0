//! Malformed requests are refused with field, value and what is allowed; whatever comes, nothing panics.

use berth_core::ErrorCode;
use proptest::prelude::*;

use super::*;

fn subject() -> Subject {
    Subject::new("run", "", "a")
}

fn run(change: impl FnOnce(&mut v1::ContainerSpec)) -> Result<RunSpec, Error> {
    let mut spec = v1::ContainerSpec {
        id: "a".into(),
        bundle: "/b".into(),
        ..Default::default()
    };
    change(&mut spec);
    super::spec(&subject(), spec)
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("must be refused");
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert!(
        !error.to_string().contains('\n') && error.to_string().len() < 600,
        "{error}"
    );
    error.to_string()
}

#[test]
fn id_and_bundle_are_the_whole_request() {
    let spec = run(|_| {}).expect("valid");
    assert_eq!(spec.key.to_string(), "default/a");
    assert!(matches!(spec.stdio.to, StdioTo::Log(_)));
    assert_eq!(
        (spec.stop_timeout, spec.start_timeout, spec.stop_signal),
        (None, None, None)
    );
}

#[test]
fn bad_ids_and_bundles() {
    for id in ["", "..", "a/b", "a\0b", "a\nb"] {
        refusal(run(|s| s.id = id.into()));
    }
    refusal(run(|s| s.id = "x".repeat(1 << 20)));
    refusal(run(|s| s.namespace = "*".into()));
    assert_eq!(
        refusal(run(|s| s.bundle = String::new())),
        "run default/a: container.bundle is empty; allowed: the absolute path of a folder with config.json"
    );
    assert!(refusal(run(|s| s.bundle = "b".into())).contains("an absolute path"));
    refusal(run(|s| s.bundle = "/a\0".into()));
}

#[test]
fn numbers_have_ranges() {
    assert!(refusal(run(|s| s.stop_timeout_ms = Some(3_600_001))).contains("container.stop_timeout_ms is 3600001"));
    assert!(run(|s| s.stop_timeout_ms = Some(0)).is_ok());
    refusal(run(|s| s.start_timeout_ms = 3_600_001));
    refusal(run(|s| s.stop_signal = "65".into()));
    refusal(run(|s| s.restart = 9));
    refusal(run(|s| drop(s.labels.insert(String::new(), String::new()))));
    refusal(run(|s| drop(s.labels.insert("k".into(), "v".repeat(65_537)))));
    let log = |log| v1::Stdio {
        to: Some(v1::stdio::To::Log(log)),
        ..Default::default()
    };
    refusal(run(|s| {
        s.stdio = Some(log(v1::StdioLog {
            max_size: 4095,
            ..Default::default()
        }))
    }));
    refusal(run(|s| {
        s.stdio = Some(log(v1::StdioLog {
            max_files: 1001,
            ..Default::default()
        }))
    }));
    refusal(run(|s| {
        s.stdio = Some(log(v1::StdioLog {
            format: 7,
            ..Default::default()
        }))
    }));
    refusal(run(|s| {
        s.stdio = Some(v1::Stdio {
            width: 65_536,
            ..Default::default()
        })
    }));
    let fifo = v1::StdioFifo {
        stdout: "relative".into(),
        ..Default::default()
    };
    refusal(run(|s| {
        s.stdio = Some(v1::Stdio {
            to: Some(v1::stdio::To::Fifo(fifo)),
            ..Default::default()
        })
    }));
}

#[test]
fn what_restarts_is_not_removed() {
    let both = run(|s| {
        s.remove = true;
        s.restart = v1::RestartPolicy::Always.into();
    });
    assert_eq!(both.expect_err("refused").code(), ErrorCode::InvalidArgument);
}

#[test]
fn restart_policies() {
    let policy = |policy: v1::RestartPolicy, max| {
        run(move |s| (s.restart, s.restart_max) = (policy.into(), max)).map(|spec| spec.restart)
    };
    assert_eq!(policy(v1::RestartPolicy::Unspecified, 0).ok(), Some(RestartPolicy::No));
    let on_failure = policy(v1::RestartPolicy::OnFailure, 3);
    assert_eq!(on_failure.ok(), Some(RestartPolicy::OnFailure { max: 3 }));
    assert_eq!(policy(v1::RestartPolicy::Always, 0).ok(), Some(RestartPolicy::Always));
    assert!(refusal(policy(v1::RestartPolicy::Always, 3).map(drop)).contains("container.restart_max is 3"));
    assert!(refusal(run(|s| s.restart = 9).map(drop)).contains("container.restart is 9"));
}

#[test]
fn exec_is_one_of_two_ways() {
    let exec = |request| super::exec(&subject(), request);
    let plain = v1::ExecRequest {
        args: vec!["sh".into()],
        ..Default::default()
    };
    assert!(matches!(exec(plain.clone()).expect("valid").stdio.to, StdioTo::Null));
    assert!(refusal(exec(v1::ExecRequest::default())).contains("args is empty"));
    let both = v1::ExecRequest {
        process_json: "{}".into(),
        ..plain.clone()
    };
    assert!(refusal(exec(both)).contains("args is set beside process_json"));
    refusal(exec(v1::ExecRequest {
        env: vec!["=x".into()],
        ..plain.clone()
    }));
    refusal(exec(v1::ExecRequest {
        cwd: "tmp".into(),
        ..plain.clone()
    }));
    refusal(exec(v1::ExecRequest {
        exec_id: "a/b".into(),
        ..plain.clone()
    }));
    let rlimit = |kind: &str, soft| v1::Rlimit {
        r#type: kind.into(),
        soft,
        hard: 5,
    };
    refusal(exec(v1::ExecRequest {
        rlimits: vec![rlimit("RLIMIT_FOO", 1)],
        ..plain.clone()
    }));
    refusal(exec(v1::ExecRequest {
        rlimits: vec![rlimit("RLIMIT_NOFILE", 6)],
        ..plain
    }));
}

#[test]
fn update_is_one_of_two_ways() {
    let update = |request| super::update(&subject(), request);
    refusal(update(v1::UpdateRequest::default()));
    let resources = v1::Resources {
        memory_limit: Some(-2),
        ..Default::default()
    };
    refusal(update(v1::UpdateRequest {
        resources: Some(resources),
        ..Default::default()
    }));
    let resources = v1::Resources {
        cpuset_cpus: Some("0-3;7".into()),
        ..Default::default()
    };
    refusal(update(v1::UpdateRequest {
        resources: Some(resources),
        ..Default::default()
    }));
    let resources = Some(v1::Resources {
        memory_limit: Some(-1),
        ..Default::default()
    });
    assert!(
        update(v1::UpdateRequest {
            resources: resources.clone(),
            ..Default::default()
        })
        .is_ok()
    );
    refusal(update(v1::UpdateRequest {
        resources,
        resources_json: "{}".into(),
        ..Default::default()
    }));
}

#[test]
fn streams_and_cursors() {
    let events = |since: &str, kinds: Vec<i32>| {
        super::events(
            &subject(),
            v1::EventsRequest {
                since: since.into(),
                kinds,
                ..Default::default()
            },
        )
    };
    assert_eq!(events("", vec![]).expect("valid").since, Since::Now);
    assert_eq!(events("0", vec![3]).expect("valid").since, Since::Oldest);
    assert!(
        matches!(events("00ff:12", vec![]).expect("valid").since, Since::After(c) if (c.epoch, c.number) == (255, 12))
    );
    refusal(events("x:1", vec![]));
    refusal(events("", vec![0]));
    refusal(events("", vec![-1]));
    refusal(super::logs(
        &subject(),
        v1::LogsRequest {
            id: "a".into(),
            since: -1,
            ..Default::default()
        },
    ));
    refusal(super::logs(
        &subject(),
        v1::LogsRequest {
            id: "a".into(),
            streams: vec![0],
            ..Default::default()
        },
    ));
    refusal(super::stats(
        &subject(),
        &v1::StatsRequest {
            interval_ms: 99,
            ..Default::default()
        },
    ));
    refusal(attach_input(&subject(), v1::AttachRequest { action: None }));
}

proptest! {
    #[test]
    fn no_spec_panics(id in ".{0,90}", bundle in ".{0,20}", signal in ".{0,12}", stop: Option<u32>, start: u32, width: u32) {
        let _ = run(|s| {
            s.id = id;
            s.bundle = bundle;
            s.stop_signal = signal;
            s.stop_timeout_ms = stop;
            s.start_timeout_ms = start;
            s.stdio = Some(v1::Stdio { width, ..Default::default() });
        });
    }

    #[test]
    fn no_cursor_panics(since in ".{0,40}", kinds in prop::collection::vec(any::<i32>(), 0..4)) {
        let request = v1::EventsRequest { since, kinds, ..Default::default() };
        let _ = super::events(&subject(), request);
    }
}

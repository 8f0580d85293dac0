//! Bad bundles and bad ids: a clear error, and nothing of the attempt is left.
use berth_e2e::v1::{self, ErrorCode};
use berth_e2e::{Daemon, Runtime, assert_fails, on_all, proc};
use serde_json::json;
use std::path::Path;

on_all!(
    missing_bundle,
    relative_bundle,
    missing_config,
    bundle_is_a_file,
    symlink_loop,
    unreadable_config,
    hundred_megabytes_of_json,
    not_json,
    future_version,
    no_process,
    removed_while_it_runs,
    removed_after_the_exit,
    ids,
    id_in_use,
    exec_ids,
    labels_and_request_ids,
    no_container_in_the_request,
    stop_settings,
);

/// Asserts the refusal and that no trace of it is left.
async fn refused(d: &Daemon, spec: v1::ContainerSpec, code: ErrorCode, says: &[&str]) {
    let id = spec.id.clone();
    assert_fails(d.try_run(spec.clone()).await, code, says);
    assert_fails(d.try_create(spec).await, code, says);
    assert!(d.list().await.is_empty(), "{id} is listed");
    let left: Vec<_> = std::fs::read_dir(d.state().join("c"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn at(d: &Daemon, bundle: &Path) -> v1::ContainerSpec {
    let bundle = bundle.to_str().expect("utf-8").to_owned();
    v1::ContainerSpec {
        bundle,
        ..d.sh("bad", "exit 0").spec()
    }
}

pub async fn missing_bundle(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let path = d.dir.join("no-such-bundle");
    refused(&d, at(&d, &path), ErrorCode::Bundle, &["no-such-bundle"]).await;
    refused(
        &d,
        v1::ContainerSpec {
            id: "bad".into(),
            ..Default::default()
        },
        ErrorCode::InvalidArgument,
        &["bundle"],
    )
    .await;
}

pub async fn relative_bundle(rt: Runtime) {
    let d = Daemon::start(rt).await;
    refused(
        &d,
        at(&d, Path::new("some/where")),
        ErrorCode::InvalidArgument,
        &["absolute"],
    )
    .await;
}

pub async fn missing_config(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0");
    std::fs::remove_file(b.dir.join("config.json")).expect("remove");
    refused(&d, b.spec(), ErrorCode::Bundle, &["config.json"]).await;
}

pub async fn bundle_is_a_file(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let path = d.dir.join("a-file");
    std::fs::write(&path, "").expect("file");
    refused(&d, at(&d, &path), ErrorCode::Bundle, &["a-file"]).await;
}

pub async fn symlink_loop(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let path = d.dir.join("loop");
    std::os::unix::fs::symlink(&path, &path).expect("symlink");
    refused(&d, at(&d, &path), ErrorCode::Bundle, &["loop"]).await;
}

/// root may read every file, but not a folder nor a FIFO that nobody writes to.
pub async fn unreadable_config(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0");
    let config = b.dir.join("config.json");
    std::fs::remove_file(&config).expect("remove");
    std::fs::create_dir(&config).expect("folder");
    refused(&d, b.spec(), ErrorCode::Bundle, &["config.json"]).await;
    std::fs::remove_dir(&config).expect("remove");
    berth_e2e::fifo::make(&config);
    refused(&d, b.spec(), ErrorCode::Bundle, &["config.json"]).await;
}

pub async fn hundred_megabytes_of_json(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0");
    let b = b.edit(|c| c["annotations"] = json!({ "big": "x".repeat(100 << 20) }));
    refused(&d, b.spec(), ErrorCode::Bundle, &["config.json"]).await;
    let daemon_kib: u64 = proc::status(d.pid(), "VmHWM")
        .expect("VmHWM")
        .trim_end_matches(" kB")
        .parse()
        .expect("number");
    assert!(daemon_kib < 100 << 10, "it was not even read: {daemon_kib} KiB");
}

pub async fn not_json(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0");
    for text in ["", "{", "[]", "\0\0\0", "{\"ociVersion\": 1}", &"[".repeat(100_000)] {
        std::fs::write(b.dir.join("config.json"), text).expect("write");
        refused(&d, b.spec(), ErrorCode::Bundle, &["config.json"]).await;
    }
}

pub async fn future_version(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0").edit(|c| c["ociVersion"] = json!("99.0.0"));
    refused(&d, b.spec(), ErrorCode::Bundle, &["99.0.0"]).await;
    let b = b.edit(|c| c["ociVersion"] = json!("banana"));
    refused(&d, b.spec(), ErrorCode::Bundle, &["banana"]).await;
}

pub async fn no_process(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("bad", "exit 0").edit(|c| c["process"]["args"] = json!([]));
    refused(&d, b.spec(), ErrorCode::Bundle, &["args"]).await;
    let b = b.edit(|c| drop(c.as_object_mut().expect("object").remove("process")));
    refused(&d, b.spec(), ErrorCode::Bundle, &["process"]).await;
}

/// Docker removes bundles early: everything goes on without it.
pub async fn removed_while_it_runs(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh(
        "gone",
        "trap 'exit 4' TERM; cd /; echo up > /tmp/up; while :; do sleep 1000 & wait $!; done",
    );
    let pid = d.run(&b).await;
    // Its folder /out is mounted from there: move what can't be removed while it is mounted.
    std::fs::remove_file(b.dir.join("config.json")).expect("remove");
    std::fs::rename(&b.dir, d.dir.join("moved")).expect("move");
    d.exec("gone", "e", "while [ ! -e /tmp/up ]; do sleep 0.02; done; exit 2")
        .await;
    assert_eq!(d.wait_exec("gone", "e").await.code, 2);
    d.kill_and_restart().await;
    assert_eq!(d.get("gone").await.pid, pid);
    d.exec("gone", "f", "exit 3").await;
    assert_eq!(d.wait_exec("gone", "f").await.code, 3);
    assert_eq!(d.stop("gone", 20_000).await.code, 4);
    d.try_delete("gone", false).await.expect("delete");
    assert!(!d.folder("gone").exists());
}

pub async fn removed_after_the_exit(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("gone", "exit 5");
    d.run_to_end(&b).await;
    std::fs::remove_dir_all(&b.dir).expect("remove");
    assert_eq!(d.wait("gone").await.code, 5);
    assert_eq!(
        d.try_delete("gone", false)
            .await
            .expect("delete")
            .exit
            .expect("exit")
            .code,
        5
    );
}

/// Every way in which an id can be wrong, in every field that holds one.
pub async fn ids(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("fine", "exit 0");
    let long = "x".repeat(77);
    let megabyte = "x".repeat(1 << 20);
    let bad = [
        "", "a/b", "..", ".", "../x", "a\0b", "a\nb", "a b", "-a", "a-", "a--b", "é", &long, &megabyte,
    ];
    for id in bad {
        refused(
            &d,
            v1::ContainerSpec {
                id: id.into(),
                ..b.spec()
            },
            ErrorCode::InvalidArgument,
            &["id"],
        )
        .await;
        let get = d
            .api()
            .get(v1::GetRequest {
                id: id.into(),
                ..Default::default()
            })
            .await;
        assert_fails(get, ErrorCode::InvalidArgument, &["id"]);
        if !id.is_empty() {
            let spec = v1::ContainerSpec {
                namespace: id.into(),
                ..b.spec()
            };
            refused(&d, spec, ErrorCode::InvalidArgument, &["namespace"]).await;
        }
    }
    let longest = "x".repeat(76);
    for id in [longest.as_str(), "a", "A.b_c-9"] {
        let spec = v1::ContainerSpec {
            id: id.into(),
            namespace: id.into(),
            ..b.spec()
        };
        d.try_run(spec).await.unwrap_or_else(|e| panic!("{id}: {e:?}"));
        let wait = v1::WaitRequest {
            id: id.into(),
            namespace: id.into(),
            ..Default::default()
        };
        d.api().wait(wait).await.expect("wait");
        let delete = v1::DeleteRequest {
            id: id.into(),
            namespace: id.into(),
            ..Default::default()
        };
        d.api().delete(delete).await.expect("delete");
    }
}

pub async fn id_in_use(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("used");
    let pid = d.run(&b).await;
    assert_fails(d.try_run(b.spec()).await, ErrorCode::AlreadyExists, &["used"]);
    assert_fails(
        d.try_create(d.sh("used2", "exit 0").spec())
            .await
            .and(d.try_create(b.spec()).await),
        ErrorCode::AlreadyExists,
        &["used"],
    );
    assert_eq!(d.get("used").await.pid, pid);
    d.signal("used", "KILL").await;
    d.wait("used").await;
    // Ended is still in use, until it is deleted.
    assert_fails(d.try_run(b.spec()).await, ErrorCode::AlreadyExists, &["used"]);
}

pub async fn exec_ids(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    let long = "x".repeat(77);
    for id in ["a/b", "..", "a\0b", "a\nb", &long] {
        let request = berth_e2e::calls::exec_request("c", id, &["/bin/true"]);
        assert_fails(d.try_exec(request).await, ErrorCode::InvalidArgument, &["exec"]);
    }
    let request = berth_e2e::calls::exec_request("c", "noargs", &[]);
    assert_fails(d.try_exec(request).await, ErrorCode::InvalidArgument, &["args"]);
    assert!(d.get("c").await.execs.is_empty());
}

pub async fn labels_and_request_ids(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("l", "exit 0");
    let with = |k: String, v: String| v1::ContainerSpec {
        labels: [(k, v)].into(),
        ..b.spec()
    };
    refused(
        &d,
        with(String::new(), "v".into()),
        ErrorCode::InvalidArgument,
        &["label"],
    )
    .await;
    refused(
        &d,
        with("k".repeat(257), "v".into()),
        ErrorCode::InvalidArgument,
        &["label"],
    )
    .await;
    refused(
        &d,
        with("k".into(), "v".repeat(64 << 10)),
        ErrorCode::InvalidArgument,
        &["label"],
    )
    .await;
    let request = v1::RunRequest {
        container: Some(b.spec()),
        request_id: "r".repeat(129),
    };
    assert_fails(d.api().run(request).await, ErrorCode::InvalidArgument, &["request"]);
}

pub async fn no_container_in_the_request(rt: Runtime) {
    let d = Daemon::start(rt).await;
    assert_fails(
        d.api().run(v1::RunRequest::default()).await,
        ErrorCode::InvalidArgument,
        &[],
    );
    assert_fails(
        d.api().create(v1::CreateRequest::default()).await,
        ErrorCode::InvalidArgument,
        &[],
    );
}

pub async fn stop_settings(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let spec = || d.sh("s", "exit 0").spec();
    let bad = v1::ContainerSpec {
        stop_signal: "SIGNONE".into(),
        ..spec()
    };
    refused(&d, bad, ErrorCode::InvalidArgument, &["SIGNONE"]).await;
    let bad = v1::ContainerSpec {
        stop_timeout_ms: Some(3_600_001),
        ..spec()
    };
    refused(&d, bad, ErrorCode::InvalidArgument, &["stop_timeout_ms"]).await;
    let bad = v1::ContainerSpec {
        start_timeout_ms: 3_600_001,
        ..spec()
    };
    refused(&d, bad, ErrorCode::InvalidArgument, &["start_timeout_ms"]).await;
}

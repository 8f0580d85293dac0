//! `init`: our own first process in a container.
use berth_e2e::{Daemon, Runtime, fifo, on_all, v1};

on_all!(
    orphans_are_reaped_and_signals_passed_on,
    codes_are_those_of_the_command,
    execs_are_as_without,
);

async fn run(d: &Daemon, bundle: &berth_e2e::Bundle) {
    let spec = v1::ContainerSpec {
        init: true,
        ..bundle.spec()
    };
    d.try_run(spec).await.expect("run");
}

async fn orphans_are_reaped_and_signals_passed_on(rt: Runtime) {
    let d = Daemon::start(rt).await;
    // The inner shell ends before its child does: that one is the init's then.
    let script = "echo $$ > /out/pid; trap 'echo bye; exit 5' TERM; sh -c 'read end < /out/end & echo $! > /out/orphan'; \
        read orphan < /out/orphan; echo end > /out/end; while [ -e /proc/$orphan ]; do :; done; echo reaped > /out/reaped; \
        while :; do sleep 1000 & wait $!; done";
    let b = d.sh("c", script);
    fifo::make(&b.out("end"));
    run(&d, &b).await;
    assert_ne!(b.line("pid").await, "1", "the init is the first process");
    b.line("reaped").await;
    assert_eq!(d.stop("c", 10_000).await.code, 5);
    assert_eq!(d.logs("c").await, b"bye\n");
    d.delete("c").await;
}

async fn codes_are_those_of_the_command(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for (id, args, code) in [
        ("seven", &["sh", "-c", "exit 7"][..], 7),
        ("killed", &["sh", "-c", "kill -9 $$"], 137),
        ("missing", &["no-such-command"], 127),
        ("folder", &["/out"], 126),
    ] {
        run(&d, &d.bundle(id, args)).await;
        assert_eq!(d.wait(id).await.code, code, "{id}");
    }
    let said = String::from_utf8(d.logs("missing").await).expect("utf-8");
    assert!(said.starts_with("berth-init: no-such-command: No such file"), "{said}");
}

async fn execs_are_as_without(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("c");
    run(&d, &b).await;
    d.exec(
        "c",
        "e",
        "echo $FROM > /out/from; tr '\\0' ' ' < /proc/1/cmdline > /out/first; echo > /out/done",
    )
    .await;
    b.line("done").await;
    assert_eq!(b.line("from").await, "bundle");
    let first = std::fs::read_to_string(b.out("first")).expect("the init's arguments");
    assert!(first.starts_with("/dev/berth-init -- "), "{first}");
}

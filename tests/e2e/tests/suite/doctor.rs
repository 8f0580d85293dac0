//! `berthd doctor` on real containers: nothing to say while all is well, and what a crash left is named and mended.
use berth_e2e::daemon::binary;
use berth_e2e::{Daemon, Runtime, on_all, proc, until};
use rustix::process::Signal;
use std::process::Command;

on_all!(well_while_containers_run, a_lost_shim_is_named_until_the_daemon_is_back);

/// Exit code and what was said.
fn doctor(d: &Daemon, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("berthd"))
        .arg("--state")
        .arg(d.state())
        .arg("--root")
        .arg(d.root())
        .arg("--address")
        .arg(d.socket())
        .arg("doctor")
        .args(args)
        .output()
        .expect("berthd doctor");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("utf-8"))
}

/// Beside the daemon and without it, with running, ended and executed processes.
pub async fn well_while_containers_run(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let (running, ended) = (d.sh("running", "sleep 1000"), d.sh("ended", "exit 3"));
    d.run(&running).await;
    d.run(&ended).await;
    d.wait("ended").await;
    let (code, text) = doctor(&d, &[]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "nothing is wrong (a daemon is at work)\n")
    );
    // Which asks the daemon where its folders are.
    let asked = Command::new(binary("berth"))
        .arg("--address")
        .arg(d.socket())
        .arg("doctor")
        .output()
        .expect("berth doctor");
    assert_eq!(String::from_utf8_lossy(&asked.stdout), text);
    d.kill();
    let (code, text) = doctor(&d, &["--fix"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "nothing is wrong (no daemon runs here)\n")
    );
    d.restart().await;
    assert_eq!(d.wait("ended").await.code, 3);
}

pub async fn a_lost_shim_is_named_until_the_daemon_is_back(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("lost", "sleep 1000");
    d.run(&b).await;
    let shim = d.get("lost").await.shim_pid;
    d.kill();
    proc::kill(shim, Signal::KILL);
    until("the shim is gone", || (!proc::alive(shim)).then_some(())).await;
    let (code, text) = doctor(&d, &["--json"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("\"container\":\"default/lost\""), "{text}");
    d.restart().await;
    d.wait("lost").await;
    let (code, text) = doctor(&d, &[]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "nothing is wrong (a daemon is at work)\n")
    );
}

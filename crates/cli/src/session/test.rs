//! Sessions against a daemon that is cut off in the middle.

use std::sync::{Arc, Mutex};

use super::*;
use berth_client::fake::{Daemon, Script};
use berth_wire::v1::LogPolicy;

async fn attach(script: Script) -> (Result<End>, Vec<u8>, Vec<String>) {
    let daemon = Daemon::start(script).await;
    let target = Target {
        client: daemon.client().await,
        id: "web".into(),
        exec_id: String::new(),
        offset: Some(0),
        stdin: false,
        detach_keys: DetachKeys::parse("").expect("no keys"),
        proxy_signals: true,
    };
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = written.clone();
    let output = Output::start(move |_, data| {
        sink.lock().expect("sink").extend_from_slice(data);
        Ok(())
    });
    let end = run_into(target, Signals::catch().expect("signals"), output).await;
    let written = written.lock().expect("sink").clone();
    (end, written, daemon.seen())
}

fn text() -> Vec<u8> {
    (0..100).map(|number| b'a' + number % 26).collect()
}

#[tokio::test]
async fn a_whole_session_ends_with_the_exit() {
    let (end, written, seen) = attach(Script {
        output: text(),
        ..Script::default()
    })
    .await;
    assert!(matches!(end, Ok(End::Exited(exit)) if exit.code == 7));
    assert_eq!(written, text());
    assert_eq!(seen, ["offset=0"]);
}

#[tokio::test]
async fn a_broken_session_goes_on_at_the_next_byte() {
    let (end, written, seen) = attach(Script {
        output: text(),
        cut_after: Some(40),
        ..Script::default()
    })
    .await;
    assert!(matches!(end, Ok(End::Exited(_))), "{end:?}");
    assert_eq!(String::from_utf8(written), String::from_utf8(text()));
    assert_eq!(seen, ["offset=0", "offset=40", "offset=80"]);
}

#[tokio::test]
async fn what_comes_twice_is_written_once() {
    let (end, written, seen) = attach(Script {
        output: text(),
        cut_after: Some(40),
        overlap: 10,
        ..Script::default()
    })
    .await;
    assert!(matches!(end, Ok(End::Exited(_))), "{end:?}");
    assert_eq!(String::from_utf8(written), String::from_utf8(text()));
    assert_eq!(seen, ["offset=0", "offset=40", "offset=80"]);
}

#[tokio::test]
async fn a_loss_moves_the_place_on() {
    let (end, written, seen) = attach(Script {
        output: text(),
        window: 30,
        cut_after: Some(40),
        ..Script::default()
    })
    .await;
    assert!(matches!(end, Ok(End::Exited(_))), "{end:?}");
    assert_eq!(written, text()[30..]);
    assert_eq!(seen, ["offset=0", "offset=40", "offset=80"]);
}

#[tokio::test]
async fn a_loss_is_read_from_the_log() {
    let script = Script {
        output: text(),
        window: 30,
        log: Some(LogPolicy::Block),
        ..Script::default()
    };
    let (end, written, seen) = attach(script).await;
    assert!(matches!(end, Ok(End::Exited(_))), "{end:?}");
    assert_eq!(String::from_utf8(written), String::from_utf8(text()));
    assert_eq!(
        seen.iter().filter(|seen| seen.starts_with("offset")).count(),
        1,
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_log_that_drops_makes_no_loss_good() {
    let (end, written, _) = attach(Script {
        output: text(),
        window: 30,
        log: Some(LogPolicy::Drop),
        ..Script::default()
    })
    .await;
    assert!(matches!(end, Ok(End::Exited(_))), "{end:?}");
    assert_eq!(written, text()[30..]);
}

#[tokio::test]
async fn a_closed_stdout_ends_the_session() {
    let daemon = Daemon::start(Script {
        output: text(),
        ..Script::default()
    })
    .await;
    let target = Target {
        client: daemon.client().await,
        id: "web".into(),
        exec_id: String::new(),
        offset: None,
        stdin: false,
        detach_keys: DetachKeys::parse("").expect("no keys"),
        proxy_signals: true,
    };
    let output = Output::start(|_, _| Err(std::io::ErrorKind::BrokenPipe.into()));
    let end = run_into(target, Signals::catch().expect("signals"), output).await;
    assert!(matches!(end, Ok(End::OutputClosed(CliError::StdoutClosed))), "{end:?}");
}

//! The life of a container: run, signals, stop, wait, delete, pause, update, look.
use berth_e2e::{Daemon, Runtime, on_both};

on_both!(exit_codes);

/// The exit code comes through whole, from 0 to 255.
async fn exit_codes(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for code in [0, 1, 2, 3, 42, 125, 126, 127, 128, 137, 143, 200, 254, 255] {
        let id = format!("code-{code}");
        let exit = d.run_to_end(&d.sh(&id, &format!("exit {code}"))).await;
        assert_eq!((exit.code, exit.signal), (code, 0));
    }
}

//! The OOM killer's work is known as such, before the exit is told.
use berth_e2e::v1::{EventKind, ExitReason};
use berth_e2e::{Daemon, Runtime, on_all};

on_all!(init_is_killed, child_is_killed, plain_sigkill_is_not_oom);

const LIMIT_BYTES: u64 = 24 << 20;

pub async fn init_is_killed(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let exit = d
        .run_to_end(&d.sh("oom", "exec tail /dev/zero").memory(LIMIT_BYTES))
        .await;
    assert_eq!((exit.code, exit.signal, exit.reason()), (137, 9, ExitReason::Oom));
    assert!(d.get("oom").await.oom_kills >= 1);
    let kinds: Vec<_> = d.check_exits().await.iter().map(|e| e.kind()).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Started,
            EventKind::Oom,
            EventKind::Exited
        ]
    );
}

/// A child's death is an event; the init goes on and ends as it likes.
pub async fn child_is_killed(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let exit = d
        .run_to_end(&d.sh("child", "tail /dev/zero; sleep 0.1; exit 3").memory(LIMIT_BYTES))
        .await;
    assert_eq!((exit.code, exit.reason()), (3, ExitReason::Exited));
    assert!(d.get("child").await.oom_kills >= 1);
    assert!(d.history().await.iter().any(|e| e.kind() == EventKind::Oom));
}

pub async fn plain_sigkill_is_not_oom(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("kill").memory(LIMIT_BYTES)).await;
    d.signal("kill", "KILL").await;
    assert_eq!(d.wait("kill").await.reason(), ExitReason::Signaled);
    assert!(d.history().await.iter().all(|e| e.kind() != EventKind::Oom));
}

//! Fail points: every stage of every operation has a name where a test can fail, delay or kill the daemon.
//!
//! In a build with the feature `failpoints` the crate `fail` obeys `FAILPOINTS` ("name=sleep(100);…") and `BERTH_KILL_AT=name`
//! sends SIGKILL to this process when it reaches the stage. In any other build a stage is nothing at all.

use berth_core::state::{Input, State};

/// Names by operation. A stage of create is one of Run too; those of "exit" are passed by every exit.
pub const FAIL_POINTS: &[(&str, &[&str])] = &[
    (
        "create",
        &[
            "create.reserved",
            "create.permitted",
            "create.recorded",
            "create.prepared",
            "create.forked",
            "create.sent",
            "create.answered",
            "create.told",
            "create.saved",
        ],
    ),
    (
        "start",
        &[
            "start.queued",
            "start.permitted",
            "start.sent",
            "start.answered",
            "start.told",
            "start.saved",
        ],
    ),
    ("exec", &["exec.reserved", "exec.sent", "exec.answered", "exec.told"]),
    ("stop", &["stop.begun", "stop.signalled", "stop.ended", "stop.answered"]),
    (
        "exit",
        &["exit.received", "exit.journaled", "exit.marked", "exit.acked"],
    ),
    (
        "delete",
        &[
            "delete.begun",
            "delete.emptied",
            "delete.shutdown",
            "delete.renamed",
            "delete.removed",
            "delete.told",
        ],
    ),
];

/// Names a stage. Evaluates to `()`.
macro_rules! stage {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        {
            fail::fail_point!($name);
            $crate::stage::reached($name);
        }
    };
}
pub(crate) use stage;

/// Ends the process here, as a crash at this very instruction would, if the environment says so.
#[cfg(feature = "failpoints")]
pub(crate) fn reached(name: &str) {
    static KILL_AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(
        FAIL_POINTS.iter().any(|(_, names)| names.contains(&name)),
        "{name} is not in FAIL_POINTS"
    );
    if KILL_AT.get_or_init(|| std::env::var("BERTH_KILL_AT").ok()).as_deref() == Some(name) {
        berth_sys::process::kill_self();
    }
}

#[cfg(feature = "failpoints")]
thread_local! {
    static CELLS: std::cell::RefCell<std::collections::HashSet<(State, Input)>> = std::cell::RefCell::default();
}

/// Cells of `berth_core::state` that this thread has asked; none in a build without fail points. For the simulation.
pub fn cells() -> Vec<(State, Input)> {
    #[cfg(feature = "failpoints")]
    return CELLS.with_borrow(|cells| cells.iter().copied().collect());
    #[cfg(not(feature = "failpoints"))]
    Vec::new()
}

pub(crate) fn asked(state: State, input: Input) {
    #[cfg(feature = "failpoints")]
    CELLS.with_borrow_mut(|cells| cells.insert((state, input)));
    #[cfg(not(feature = "failpoints"))]
    let _ = (state, input);
}

//! Named fail points: with feature `failpoints` and BERTH_SHIM_KILL_AT=NAME the shim kills itself with SIGKILL when it gets
//! there. Without the feature nothing of it is compiled.

/// Every name, by operation. A test that kills at each of them reads this table.
pub const FAIL_POINTS: &[(&str, &[&str])] = &[
    (
        "create",
        &[
            "create.begin",
            "create.reserved",
            "create.forked",
            "create.made",
            "create.recorded",
            "create.done",
        ],
    ),
    (
        "start",
        &["start.begin", "start.forked", "start.done", "start.recorded"],
    ),
    (
        "exec",
        &[
            "exec.begin",
            "exec.reserved",
            "exec.forked",
            "exec.made",
            "exec.recorded",
        ],
    ),
    ("exit", &["exit.reaped", "exit.drained", "exit.recorded", "exit.queued"]),
    (
        "delete",
        &[
            "delete.begin",
            "delete.forked",
            "delete.runtime_done",
            "delete.files_gone",
        ],
    ),
    ("shutdown", &["shutdown.begin", "shutdown.socket_gone"]),
];

/// Dies here if the environment says so. `name` must be in [`FAIL_POINTS`].
#[cfg(feature = "failpoints")]
pub fn reach(name: &'static str) {
    debug_assert!(
        FAIL_POINTS.iter().any(|(_, names)| names.contains(&name)),
        "{name} is not in the table"
    );
    if std::env::var_os("BERTH_SHIM_KILL_AT").is_some_and(|at| at == name) {
        berth_sys::process::kill_self();
    }
}

macro_rules! stage {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::stage::reach($name);
    };
}
pub(crate) use stage;

//! Defects that the simulation found, one test each: the schedule that showed it, shortened.

use berth_simulation::run;
use berth_simulation::schedule::Op::{self, *};
use berth_simulation::schedule::{Schedule, Step};

/// The seed still decides delays and failures.
fn balances(seed: u64, steps: &[(u64, Op)]) {
    assert!(
        fail::has_failpoints(),
        "crashes are planned at fail points: cargo test --features berth-supervisor/failpoints, as ./dev test does"
    );
    let steps = steps
        .iter()
        .map(|(gap, op)| Step {
            gap: *gap,
            op: *op,
            meets: 0,
        })
        .collect();
    let report = run(&Schedule { seed, steps });
    assert!(
        report.problems.is_empty(),
        "{:#?}\n{:#?}",
        report.problems,
        report.trace
    );
}

/// Events that wait for a full journal are not told again when the connection to the shim is lost.
#[test]
fn creation_waiting_for_the_journal_is_told_once() {
    let create = Create { id: 0, request: 0 };
    balances(1150, &[(0, create), (0, JournalFull(true)), (150, HangUp { id: 0 })]);
}

/// Nobody hears of the deletion of what was nothing but a record.
#[test]
fn unheard_of_is_deleted_in_silence() {
    let mute = Mute { id: 0, on: true };
    balances(
        860,
        &[(0, Run { id: 0, request: 1 }), (0, mute), (0, Crash { down: 19 })],
    );
    let create = Create { id: 0, request: 0 };
    balances(9984, &[(0, create), (0, Crash { down: 330 }), (0, HangUp { id: 0 })]);
}

/// Its shim is killed while the next daemon looks at it: the beginning is told before the end.
#[test]
fn lost_one_is_told_from_its_beginning() {
    let killed = ShimKilled { id: 0 };
    balances(
        3727,
        &[(0, Run { id: 0, request: 2 }), (0, Crash { down: 241 }), (0, killed)],
    );
    balances(
        9387,
        &[(0, Create { id: 0, request: 2 }), (0, Crash { down: 340 }), (0, killed)],
    );
}

/// The daemon dies after a removal has ended the init, and before that was told.
#[test]
fn end_by_a_removal_is_told_by_the_next_daemon() {
    let steps = [
        (0, Run { id: 0, request: 2 }),
        (55, Pause { id: 0 }),
        (13, CrashAtStage { stage: 4, down: 240 }),
        (0, Delete { id: 0, force: true }),
        (0, HangUp { id: 0 }),
    ];
    balances(5347, &steps);
}

/// Deleted while the journal was full, and the daemon died before there was room: the next one tells it.
#[test]
fn deletion_waiting_for_the_journal_outlives_the_daemon() {
    let steps = [
        (0, Run { id: 0, request: 1 }),
        (0, JournalFull(true)),
        (122, Delete { id: 0, force: true }),
        (1798, Crash { down: 376 }),
        (0, JournalFull(false)),
    ];
    balances(11833, &steps);
    let steps = [
        (0, Create { id: 0, request: 2 }),
        (0, JournalFull(true)),
        (106, Delete { id: 0, force: true }),
        (0, Crash { down: 32 }),
    ];
    balances(16327, &steps);
}

/// Its shim is mute when it is adopted and ends, or speaks, later: the beginning is told before the end then, too.
#[test]
fn mute_one_is_told_from_its_beginning() {
    let steps = [
        (0, Create { id: 0, request: 0 }),
        (0, Crash { down: 124 }),
        (0, HangUp { id: 0 }),
        (
            183,
            ExecEnds {
                id: 0,
                exec: 0,
                code: 195,
            },
        ),
        (
            97,
            ExecEnds {
                id: 0,
                exec: 0,
                code: 152,
            },
        ),
        (194, Pause { id: 2 }),
        (75, ShimKilled { id: 0 }),
    ];
    balances(2158, &steps);
    let mute = Mute { id: 0, on: true };
    balances(
        18090,
        &[(0, Run { id: 0, request: 1 }), (0, mute), (0, Crash { down: 366 })],
    );
}

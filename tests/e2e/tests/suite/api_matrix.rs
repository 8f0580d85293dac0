//! Every method of the service has a case for each thing that can happen to a call, or this fails.
//!
//! The table names for each method the test that shows its effect in the kernel and the one that shows a wrong state; the rest,
//! that all methods have in common, is done here for each row: an unknown id, a deadline and a cancel while the shim is mute, and
//! the same request id twice.
mod call;
mod cases;

use berth_e2e::on_all;
use cases::{cancel, deadline, same_request_id_twice, unknown_exec_id, unknown_id};
use prost::Message;

on_all!(unknown_id, unknown_exec_id, deadline, cancel, same_request_id_twice);

/// What a row says about one thing that can happen.
enum Case {
    /// The loop in `cases` does it.
    Here,
    /// This test does it; that it exists is checked by the compiler.
    Test(&'static str),
    /// It can't happen, and why.
    Never(&'static str),
}
use Case::{Here, Never, Test};

macro_rules! test {
    ($($path:ident)::+) => {{
        let _ = $($path)::+;
        Test(stringify!($($path)::+))
    }};
}

struct Row {
    method: &'static str,
    effect: Case,
    unknown_id: Case,
    wrong_state: Case,
    deadline: Case,
    cancel: Case,
    twice: Case,
}

const NO_ID: &str = "names no container";
const READS: &str = "changes nothing, any state will do";
const NO_REQUEST_ID: &str = "changes nothing, has no request id";
const NOT_BUILT: &str = "answers UNIMPLEMENTED";

fn table() -> Vec<Row> {
    use crate::*;
    let row = |method, effect, unknown_id, wrong_state, twice| Row {
        method,
        effect,
        unknown_id,
        wrong_state,
        deadline: Here,
        cancel: Here,
        twice,
    };
    let wrong = || test!(bad_runtime::wrong_states);
    let not_built = |method| Row {
        method,
        effect: test!(lifecycle::not_built_yet),
        unknown_id: Never(NOT_BUILT),
        wrong_state: Never(NOT_BUILT),
        deadline: Never(NOT_BUILT),
        cancel: Never(NOT_BUILT),
        twice: Never(NOT_BUILT),
    };
    vec![
        Row {
            deadline: test!(queue::grpc_deadline_drops_what_is_queued),
            cancel: test!(queue::cancel_drops_what_is_queued),
            ..row(
                "Run",
                test!(lifecycle::exit_codes),
                Never("makes the id"),
                test!(bad_bundle::id_in_use),
                Here,
            )
        },
        Row {
            deadline: test!(queue::grpc_deadline_drops_what_is_queued),
            cancel: test!(queue::cancel_drops_what_is_queued),
            ..row(
                "Create",
                test!(lifecycle::create_then_start),
                Never("makes the id"),
                test!(bad_bundle::id_in_use),
                Here,
            )
        },
        row("Start", test!(lifecycle::create_then_start), Here, wrong(), Here),
        row("Exec", test!(exec::own_id_and_code), Here, wrong(), Here),
        row("Signal", test!(lifecycle::signals), Here, wrong(), Here),
        row(
            "Stop",
            test!(lifecycle::stop_by_signal),
            Here,
            test!(lifecycle::stop_by_signal),
            Here,
        ),
        row(
            "Wait",
            test!(lifecycle::wait_before_start),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row("Delete", test!(lifecycle::delete_needs_force), Here, wrong(), Here),
        row("Pause", test!(lifecycle::pause_and_resume), Here, wrong(), Here),
        row("Resume", test!(lifecycle::pause_and_resume), Here, wrong(), Here),
        row(
            "Update",
            test!(lifecycle::update_is_seen_in_the_cgroup),
            Here,
            wrong(),
            Here,
        ),
        row(
            "Get",
            test!(lifecycle::get_and_list),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "List",
            test!(lifecycle::get_and_list),
            Never(NO_ID),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Stats",
            test!(lifecycle::stats_from_the_cgroup),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "ResizeTerminal",
            test!(stdio::terminal_by_fifo),
            Here,
            test!(stdio::terminal_must_agree),
            Never("has no request id; a size twice is the same size"),
        ),
        row(
            "CloseStdin",
            test!(stdio::close_stdin_of_a_fifo),
            Here,
            test!(stdio::close_stdin_of_a_fifo),
            Here,
        ),
        row(
            "Attach",
            test!(attach::input_and_output),
            Here,
            test!(attach::needs_open_first_and_kept_stdio),
            Never("a stream"),
        ),
        row(
            "Logs",
            test!(logs::hundred_thousand_lines),
            Here,
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Events",
            test!(events::one_life_in_order),
            Never("an id is a filter"),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        row(
            "Version",
            test!(lifecycle::version_names_the_runtimes),
            Never(NO_ID),
            Never(READS),
            Never(NO_REQUEST_ID),
        ),
        not_built("Checkpoint"),
        not_built("Restore"),
        not_built("Migrate"),
    ]
}

/// The descriptor's methods are the table's, and every row says why where it has no case.
#[test]
fn every_method_has_every_case() {
    let files = prost_types::FileDescriptorSet::decode(berth_wire::DESCRIPTOR).expect("descriptor");
    let service = files
        .file
        .iter()
        .flat_map(|f| &f.service)
        .find(|s| s.name() == "Supervisor")
        .expect("the service");
    let methods: Vec<_> = service.method.iter().map(|m| m.name().to_owned()).collect();
    let table = table();
    let rows: Vec<_> = table.iter().map(|r| r.method.to_owned()).collect();
    assert_eq!(
        methods, rows,
        "a method of the descriptor has no row, or a row no method"
    );
    for row in &table {
        for case in [
            &row.effect,
            &row.unknown_id,
            &row.wrong_state,
            &row.deadline,
            &row.cancel,
            &row.twice,
        ] {
            if let Test(text) | Never(text) = case {
                assert!(!text.is_empty(), "{}", row.method);
            }
        }
    }
}

fn rows(which: impl Fn(&Row) -> &Case) -> Vec<&'static str> {
    table()
        .into_iter()
        .filter(|r| matches!(which(r), Here))
        .map(|r| r.method)
        .collect()
}

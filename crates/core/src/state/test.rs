//! Every cell of the table as a snapshot, and what must hold of any sequence of inputs.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn rendered() -> String {
    let mut out = String::from("One line a cell: state × input → next state: actions. `-` ignored, `!` refused.\n");
    for state in State::ALL {
        writeln!(out, "\n{state:?}").unwrap();
        for input in Input::ALL {
            let cell = match step(state, input) {
                Verdict::To(next, actions) => {
                    let actions: Vec<_> = actions.iter().map(|a| format!("{a:?}")).collect();
                    format!("→ {:<9} {}", format!("{next:?}"), actions.join(", "))
                        .trim_end()
                        .to_owned()
                }
                Verdict::Ignored => "-".into(),
                Verdict::Refused(why) => format!("! {why}"),
            };
            writeln!(out, "  {:<12} {cell}", format!("{input:?}")).unwrap();
        }
    }
    out
}

/// After a change on purpose: `BERTH_BLESS=1 cargo test -p berth-core table`.
#[test]
fn the_table_is_as_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/table.txt");
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(path, rendered()).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap();
    assert!(
        rendered() == reviewed,
        "the state table changed; see the comment of this test:\n{}",
        rendered()
    );
}

#[test]
fn facts_are_never_refused_and_wishes_never_ignored() {
    for state in State::ALL {
        for input in Input::ALL {
            match step(state, input) {
                Verdict::Refused(_) => assert!(!input.is_fact(), "{state:?} {input:?}"),
                Verdict::Ignored => assert!(input.is_fact(), "{state:?} {input:?}"),
                Verdict::To(..) => {}
            }
        }
    }
}

#[test]
fn force_always_deletes_and_deleting_is_the_end() {
    for state in State::ALL {
        assert!(
            matches!(step(state, Input::DeleteForce), Verdict::To(State::Deleting, _)),
            "{state:?}"
        );
    }
    for input in Input::ALL {
        if let Verdict::To(next, _) = step(State::Deleting, input) {
            assert_eq!(next, State::Deleting, "{input:?}");
        }
    }
}

#[test]
fn no_exit_is_dropped_while_there_is_a_process() {
    for state in State::ALL.into_iter().filter(|s| s.has_init()) {
        let Verdict::To(_, actions) = step(state, Input::Exited) else {
            panic!("{state:?}")
        };
        assert!(
            actions.iter().any(|a| matches!(a, Action::TellExit | Action::HoldExit)),
            "{state:?}"
        );
    }
}

proptest! {
    /// Whatever happens in whatever order: an exit is told at most once, what was held is released, and the end is final.
    #[test]
    fn any_sequence(inputs in prop::collection::vec(0..Input::ALL.len(), 0..60)) {
        let mut state = State::Queued;
        let (mut told, mut held, mut forgotten) = (0, false, false);
        // One life has one exit; the supervisor drops a second report.
        let mut exited = false;
        for i in inputs {
            let input = Input::ALL[i];
            // A restart that failed is an end, too.
            let ends = matches!(input, Input::Exited | Input::RestartFailed);
            if forgotten || (ends && exited) { continue; }
            exited |= ends && step(state, input) != Verdict::Ignored;
            let mut queue = vec![input];
            while let Some(input) = queue.pop() {
                let Verdict::To(next, actions) = step(state, input) else { continue };
                if state == State::Restarting && next == State::Creating {
                    // A new life.
                    (told, exited) = (0, false);
                }
                state = next;
                for action in actions {
                    match action {
                        Action::TellExit => told += 1,
                        Action::HoldExit => held = true,
                        Action::ReleaseExit if std::mem::take(&mut held) => queue.push(Input::Exited),
                        Action::Forget => forgotten = true,
                        _ => {}
                    }
                }
            }
            prop_assert!(told <= 1);
            prop_assert!(!held || matches!(state, State::Creating | State::Starting | State::Deleting));
            prop_assert!(state != State::Stopped || told == 1);
        }
    }
}

//! Some hundreds of schedules, and what makes the simulation worth believing: it replays, and it comes everywhere.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_simulation::schedule::Schedule;
use berth_simulation::{cells, run};

/// `./dev simulate` runs more of them, from any seed.
const SCHEDULES: u64 = 1200;

#[test]
fn the_books_balance() {
    assert!(
        fail::has_failpoints(),
        "cells are counted in builds with fail points: cargo test --features berth-supervisor/failpoints, as ./dev test does"
    );
    let (next, visited) = (AtomicU64::new(0), Mutex::new(HashSet::new()));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut seen = HashSet::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SCHEDULES || !failed.lock().unwrap().is_empty() {
                        break;
                    }
                    let report = run(&Schedule::new(seed));
                    seen = report.cells;
                    if !report.problems.is_empty() {
                        failed.lock().unwrap().push((seed, report.problems));
                    }
                }
                visited.lock().unwrap().extend(seen);
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "./dev simulate --seeds 1 --seed S shrinks and explains: {failed:#?}"
    );
    let visited = visited.into_inner().unwrap();
    let wrong: Vec<_> = visited
        .iter()
        .filter(|(s, i)| cells::unreachable(*s, *i).is_some())
        .collect();
    assert!(wrong.is_empty(), "visited, and marked as unreachable: {wrong:?}");
}

/// What happens at one moment has no order.
fn sorted(mut trace: Vec<String>) -> Vec<String> {
    trace.sort();
    trace
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 100_000..100_200 {
        let schedule = Schedule::new(seed);
        let (first, second) = (run(&schedule), run(&schedule));
        assert_eq!(sorted(first.trace), sorted(second.trace), "seed {seed}");
        assert_eq!(first.problems, second.problems, "seed {seed}");
    }
}

//! `./dev simulate`: many schedules, or one seed again with its trace.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_core::state::{Input, State};
use berth_simulation::cells;
use berth_simulation::run;
use berth_simulation::schedule::Schedule;
use clap::Parser;

/// A schedule takes milliseconds; one that takes longer goes round in circles.
const SLOW: Duration = Duration::from_secs(3);

#[derive(Parser)]
#[command(about = "The supervisor in a simulated world: a seed decides every delay, crash and lost message")]
struct Args {
    /// So many, from --seed on
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed [default: from the clock, printed]; with --seeds 1 its trace is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Threads [default: one a processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Goes on until so many seeds have failed
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Prints the cells of core's table that were not visited
    #[arg(long)]
    cells: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = args
        .seed
        .unwrap_or_else(|| clock().map_or(1, |now| u64::from(now.subsec_nanos()) << 20));
    println!("simulate: {} schedules from seed {first} on", args.seeds);
    if !fail::has_failpoints() {
        println!("simulate: built without fail points: crashes happen at awaits alone, and cells are not counted");
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (crashes, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures: Mutex<Vec<u64>> = Mutex::default();
    let visited: Mutex<HashSet<(State, Input)>> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut seen = HashSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= args.seeds {
                        break;
                    }
                    let seed = first.wrapping_add(at);
                    let began = Instant::now();
                    let report = run(&Schedule::new(seed));
                    if began.elapsed() > SLOW {
                        println!("simulate: seed {seed} took {:.1} s", began.elapsed().as_secs_f64());
                    }
                    crashes.fetch_add(report.crashes, Ordering::Relaxed);
                    events.fetch_add(report.events, Ordering::Relaxed);
                    seen = report.cells;
                    if !report.problems.is_empty() {
                        if let Ok(mut failures) = failures.lock() {
                            failures.push(seed);
                            stop.fetch_or(failures.len() >= args.failures, Ordering::Relaxed);
                        }
                    } else if args.seeds == 1 {
                        report.trace.iter().for_each(|line| println!("{line}"));
                    }
                }
                if let Ok(mut visited) = visited.lock() {
                    visited.extend(seen);
                }
            });
        }
    });
    let visited = visited.into_inner().unwrap_or_default();
    if args.cells {
        for (state, input) in cells::missing(&visited) {
            println!("not visited: {state:?} {input:?}");
        }
    }
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        failures.into_iter().for_each(explain);
        return ExitCode::FAILURE;
    }
    println!(
        "simulate: {} schedules, {} crashes, {} events, {} cells of the table in {:.1} s: nothing lost, nothing wrong, nothing left",
        args.seeds,
        crashes.into_inner(),
        events.into_inner(),
        visited.len(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

fn explain(seed: u64) {
    let schedule = Schedule::new(seed);
    let short = schedule.shrink(|s| !run(s).problems.is_empty());
    let report = run(&short);
    println!(
        "simulate: FAILED: seed {seed}, shrunk from {} steps to",
        schedule.steps.len()
    );
    short
        .steps
        .iter()
        .for_each(|step| println!("  +{} ms {:?}, meets: {}", step.gap, step.op, step.meets));
    report
        .problems
        .iter()
        .for_each(|problem| println!("problem: {problem}"));
    report.trace.iter().for_each(|line| println!("  {line}"));
    println!("simulate: again: ./dev simulate --seeds 1 --seed {seed}");
}

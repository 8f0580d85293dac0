//! `./dev faults`: containers start, work and end on a real daemon while it, its template and its shims are killed and stopped at
//! moments that a seed decides; then the books must balance: every end told once with its true code, every line in its log, every
//! event under its number, every id usable again, nothing left on the machine.
//!
//! A run is a row of episodes, each with a daemon of its own and a seed made from the run's. The seed decides load and faults; how
//! they meet is up to the machine. A failure prints the seed, the episode and the trace of faults.
#![forbid(unsafe_code)]

mod events;
mod faults;
mod ledger;
mod load;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_e2e::daemon::binary;
use berth_e2e::{Options, Runtime};
use clap::Parser;
use tokio::sync::watch;

use crate::faults::Injector;
use crate::ledger::{Counts, Ledger};
use crate::load::Actor;

#[derive(Parser)]
#[command(
    about = "Faults on a real daemon under load, then the books. Needs programs built with fail points in $BERTH_BIN_DIR"
)]
struct Args {
    /// How long, in minutes
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Replays a run's load and faults [default: random, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Only this episode of the run
    #[arg(long)]
    episode: Option<u64>,
    /// Containers at a time
    #[arg(long, default_value_t = 8)]
    actors: u64,
    /// Length of an episode, in seconds
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

const RUNTIMES: [Runtime; 3] = [Runtime::Embedded, Runtime::Crun, Runtime::Runc];

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "faults: seed {seed}, {} minutes, {} containers at a time",
        args.minutes, args.actors
    );
    let stages = stages();
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let mut total = Counts::default();
    let mut episode = args.episode.unwrap_or(0);
    loop {
        // A panic of the harness (something is left, a call hangs) is a verdict too.
        let ended = std::thread::scope(|scope| {
            let play = || play(&args, &stages, seed, episode);
            scope
                .spawn(play)
                .join()
                .unwrap_or_else(|_| Err("see the panic above".into()))
        });
        match ended {
            Ok(counts) => total += counts,
            Err(problem) => {
                println!("faults: FAILED in episode {episode}:\n{problem}");
                println!(
                    "faults: again: berth-faults --seed {seed} --episode {episode} --seconds {} --actors {}",
                    args.seconds, args.actors
                );
                return ExitCode::FAILURE;
            }
        }
        episode += 1;
        if args.episode.is_some() || Instant::now() >= end {
            break;
        }
    }
    println!("faults: {total}: nothing lost, nothing wrong, nothing left (seed {seed})");
    ExitCode::SUCCESS
}

/// What the daemon's log says last about the containers that went wrong.
fn about(log: &str, problems: &[String]) -> String {
    const SHOWN: usize = 40;
    let ids: Vec<String> = problems
        .iter()
        .filter_map(|problem| problem.split(' ').next())
        .map(|id| format!("/{id}"))
        .collect();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| ids.iter().any(|id| line.contains(id.as_str())))
        .collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The names of the daemon's fail points.
fn stages() -> Vec<String> {
    let output = std::process::Command::new(binary("berthd")).arg("fail-points").output();
    let output = output.expect("berthd runs");
    let names = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    assert!(!names.is_empty(), "berthd is not built with the feature failpoints");
    names
}

fn play(args: &Args, stages: &[String], seed: u64, episode: u64) -> Result<Counts, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime
        .map_err(|error| error.to_string())?
        .block_on(episode_on(args, stages, seed, episode))
}

async fn episode_on(args: &Args, stages: &[String], seed: u64, episode: u64) -> Result<Counts, String> {
    let mut random = fastrand::Rng::with_seed(seed ^ episode.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let runtime = RUNTIMES[usize::try_from(episode % 3).unwrap_or(0)];
    let mut daemon = Options::new(runtime).start().await;
    let ledger = Arc::new(Ledger::default());
    let (stop, stopped) = watch::channel(false);
    let reader = tokio::spawn(events::follow(daemon.connect(), ledger.clone(), stopped.clone()));
    let actors: Vec<_> = (0..args.actors)
        .map(|number| Actor::new(&daemon, number, random.fork(), ledger.clone(), stopped.clone()))
        .map(|actor| tokio::spawn(actor.work()))
        .collect();

    let mut injector = Injector::new(random, stages, ledger.clone());
    injector.run(&mut daemon, Duration::from_secs(args.seconds)).await;
    // Receivers are alive: the actors hold them.
    let _ = stop.send(true);
    for actor in actors {
        actor
            .await
            .map_err(|error| format!("an actor: {error}\n{}", injector.trace()))?;
    }
    let history = daemon.check_exits().await;
    ledger.balance(&history);
    let seen = reader.await.map_err(|error| format!("the event reader: {error}"))?;
    events::compare(&ledger, &seen, &history);
    let left: Vec<String> = daemon.list().await.into_iter().map(|c| c.id).collect();
    if !left.is_empty() {
        ledger.wrong(format!("containers that were deleted are listed: {left:?}"));
    }
    let problems = ledger.problems();
    if !problems.is_empty() {
        return Err(format!(
            "{}\n{}on {}\n{}",
            problems.join("\n"),
            injector.trace(),
            runtime.name(),
            about(&daemon.log(), &problems)
        ));
    }
    let counts = ledger.counts();
    println!("  episode {episode} on {}: {counts}", runtime.name());
    // Its end deletes nothing more, and panics if anything is left on the machine.
    tokio::task::block_in_place(|| drop(daemon));
    Ok(counts)
}

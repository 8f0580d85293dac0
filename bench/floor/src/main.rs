//! `berth-floor`: as many containers as it is asked for by bare system calls, so many at a time.
//!
//! It speaks as `berth-bench bare` does: each phase is one line of JSON, and it goes on when it gets a line back. The bundles
//! are read before the clock starts. Every worker is a process of its own and single-threaded, as clone3(2) wants it.
#![forbid(unsafe_code)]

mod container;
mod plan;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_sys::{pipe, process};
use container::Container;
use plan::Plan;

/// Nothing here branches on an error: it is a sentence for whoever measures.
type Result<T, E = String> = std::result::Result<T, E>;

const USAGE: &str = "usage: berth-floor --bundles DIR --in-flight N --phase COUNT [--phase COUNT]…";

struct Options {
    bundles: PathBuf,
    in_flight: usize,
    phases: Vec<usize>,
}

fn options() -> Option<Options> {
    let mut options = Options {
        bundles: PathBuf::new(),
        in_flight: 1,
        phases: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.as_str() {
            "--bundles" => options.bundles = value.into(),
            "--in-flight" => options.in_flight = value.parse().ok().filter(|count| *count > 0)?,
            "--phase" => options.phases.push(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let count: usize = options.phases.iter().sum();
    let plans = (0..count).map(|index| Plan::read(&options.bundles.join(index.to_string())));
    let plans: Vec<Plan> = plans.collect::<Result<_>>()?;
    let mut workers = Vec::new();
    for number in 0..options.in_flight {
        workers.push(Worker::fork(number, options, &plans)?);
    }
    let mut first = 0;
    for (phase, count) in options.phases.iter().enumerate() {
        report(&mut workers, &format!("{first} {count}"), phase)?;
        first += count;
    }
    report(&mut workers, "delete", options.phases.len())
}

/// Lets all workers do one phase, says what it took and waits for a line.
fn report(workers: &mut [Worker], order: &str, phase: usize) -> Result<()> {
    let begin = Instant::now();
    for worker in workers.iter_mut() {
        writeln!(worker.orders, "{order}").map_err(|error| error.to_string())?;
    }
    let mut each_ms = Vec::new();
    for worker in workers.iter_mut() {
        let mut line = String::new();
        worker.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        // One that had nothing to do has no numbers.
        match line.trim_end().strip_prefix("done") {
            Some(numbers) => each_ms.extend(numbers.split(' ').filter_map(|ms| ms.parse::<f64>().ok())),
            None => return Err(format!("phase {phase}: {}", line.trim_end())),
        }
    }
    let wall_s = begin.elapsed().as_secs_f64();
    each_ms.sort_by(f64::total_cmp);
    println!("{}", serde_json::json!({"wall_s": wall_s, "each_ms": each_ms}));
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(read) if read > 0 => Ok(()),
        _ => Err("the parent has gone".into()),
    }
}

/// One child that takes every `in_flight`th container.
struct Worker {
    orders: File,
    answers: BufReader<File>,
}

impl Worker {
    fn fork(number: usize, options: &Options, plans: &[Plan]) -> Result<Worker> {
        let pipe = || pipe::pipe().map_err(|error| error.to_string());
        let (orders, our_orders) = pipe()?;
        let (our_answers, answers) = pipe()?;
        match process::fork().map_err(|error| error.to_string())? {
            process::Fork::Child => {
                drop((our_orders, our_answers));
                work(
                    number,
                    options.in_flight,
                    plans,
                    BufReader::new(File::from(orders)),
                    File::from(answers),
                );
                process::exit_now(0)
            }
            process::Fork::Parent { .. } => Ok(Worker {
                orders: File::from(our_orders),
                answers: BufReader::new(File::from(our_answers)),
            }),
        }
    }
}

fn work(number: usize, stride: usize, plans: &[Plan], orders: BufReader<File>, mut answers: File) {
    let mut running: Vec<(usize, Container)> = Vec::new();
    for order in orders.lines().map_while(Result::ok) {
        let mut times = Vec::new();
        let done = match order.split_once(' ') {
            Some((first, count)) => {
                let first: usize = first.parse().unwrap_or_default();
                let count: usize = count.parse().unwrap_or_default();
                (first..first + count)
                    .filter(|index| index % stride == number)
                    .try_for_each(|index| {
                        let begin = Instant::now();
                        running.push((index, container::start(&plans[index])?));
                        times.push(millis(begin.elapsed()));
                        Ok(())
                    })
            }
            None => running.drain(..).try_for_each(|(index, container)| {
                let begin = Instant::now();
                container::delete(&plans[index], &container)?;
                times.push(millis(begin.elapsed()));
                Ok(())
            }),
        };
        let answer = match done {
            Ok(()) => format!("done {}", times.join(" ")),
            Err(error) => std::io::Error::to_string(&error),
        };
        if writeln!(answers, "{answer}").is_err() {
            break;
        }
    }
    // Whoever gave the orders has gone or is done.
    for (index, container) in running {
        let _ = container::delete(&plans[index], &container);
    }
}

fn millis(time: Duration) -> String {
    format!("{}", time.as_secs_f64() * 1000.0)
}

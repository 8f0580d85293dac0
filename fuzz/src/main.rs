//! `berth-fuzz TARGET [SECONDS [SEED]]`: mutated texts for that long. A crash leaves its text in `crash-TARGET`, a slow one is told.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_fuzz::mutate::{Random, mutated};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("", String::as_str);
    let Some((_, target)) = berth_fuzz::TARGETS.iter().find(|(known, _)| *known == name) else {
        eprintln!("usage: berth-fuzz config|process|filter|request [SECONDS [SEED]]");
        return ExitCode::from(2);
    };
    let number = |index: usize| args.get(index).and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(number(1).unwrap_or(300));
    let clock = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos() as u64)
    };
    let seed = number(2).unwrap_or_else(clock);
    println!("{name}: {} s, seed {seed}", time.as_secs());
    let corpus: Vec<Vec<u8>> = berth_fuzz::corpus(name).into_iter().map(|(_, text)| text).collect();
    let mut random = Random::new(seed);
    let (begin, mut count, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    let file = format!("crash-{name}");
    while begin.elapsed() < time {
        let text = mutated(&mut random, &corpus);
        let started = Instant::now();
        if std::panic::catch_unwind(|| target(&text)).is_err() {
            let _ = std::fs::write(&file, &text);
            eprintln!("{name}: crashed after {count} texts: {file}");
            return ExitCode::FAILURE;
        }
        let took = started.elapsed();
        if took > slowest {
            slowest = took;
            if took > Duration::from_secs(1) {
                let _ = std::fs::write(format!("slow-{name}"), &text);
            }
        }
        count += 1;
    }
    println!("{name}: {count} texts, the slowest took {slowest:?}, no crash");
    ExitCode::SUCCESS
}

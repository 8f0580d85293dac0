//! Every case with runc and berth-oci, and with crun where they differ: no difference that the table does not have.

use std::collections::BTreeSet;
use std::path::Path;

use berth_conformance::bench::{Bench, Runtime, is_root, runtimes};
use berth_conformance::case::{self, Case};
use berth_conformance::compare::{Known, differences, known};
use berth_conformance::{page, schema};

fn bench(name: &str) -> Bench {
    assert!(is_root(), "containers need root");
    Bench::new(name, Path::new(env!("CARGO_BIN_EXE_berth-probe")))
}

/// The differences of one case that the table does not have, as text.
fn unknown(bench: &mut Bench, all: &[Runtime; 3], table: &[Known], case: &Case) -> Vec<String> {
    let [berth, runc, crun] = all;
    let (theirs, ours) = (bench.look(runc, case), bench.look(berth, case));
    let found = differences(&case.name, &theirs, &ours);
    let new: Vec<_> = found
        .iter()
        .filter(|found| !table.iter().any(|known| known.covers(found)))
        .collect();
    if new.is_empty() {
        return Vec::new();
    }
    let third = bench.look(crun, case);
    let told = |name: &str| third.0.get(name).map_or("nothing", String::as_str).to_owned();
    let line = |found: &&berth_conformance::compare::Difference| {
        let crun = match found.fact.ends_with("ran") {
            true if third.has("ran") || third.has("exec ran") => told("said"),
            true => "ran".to_owned(),
            false => told(&found.fact),
        };
        format!(
            "{} | {}\n    runc  {}\n    berth {}\n    crun  {crun}",
            found.case, found.fact, found.runc, found.berth
        )
    };
    new.iter().map(line).collect()
}

fn compare(name: &str, cases: &[Case]) {
    let (all, table, mut bench) = (runtimes(), known(), bench(name));
    let only = std::env::var("BERTH_CONFORMANCE_CASE").ok();
    let wanted = |case: &&Case| only.as_ref().is_none_or(|only| case.name.contains(only));
    let new: Vec<String> = cases
        .iter()
        .filter(wanted)
        .flat_map(|case| unknown(&mut bench, &all, &table, case))
        .collect();
    assert!(
        new.is_empty(),
        "{} differences are not in the table:\n{}",
        new.len(),
        new.join("\n")
    );
}

macro_rules! groups {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            compare(stringify!($name), &case::group(stringify!($name)));
        }
    )*};
}
groups!(process, exec, root, linux, resources, seccomp, whole);

#[test]
fn every_property_has_a_config() {
    let known = schema::properties();
    let mut found = BTreeSet::new();
    for case in case::all() {
        schema::collect(&case.whole(), &known, &mut found);
        if let Some(process) = &case.exec {
            schema::collect(&serde_json::json!({"process": process}), &known, &mut found);
        }
    }
    let without: BTreeSet<&str> = schema::WITHOUT.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !found.contains(**name) && !without.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no config has {missing:?}");
    let idle: Vec<_> = without.iter().filter(|name| found.contains(**name)).collect();
    assert!(idle.is_empty(), "a config has {idle:?}, which the list says none can");
}

/// Several cases in one config, chosen by a seed.
fn combine(seed: u64, count: usize) {
    println!("BERTH_CONFORMANCE_SEED={seed}");
    let plain: Vec<Case> = case::all().into_iter().filter(Case::is_plain).collect();
    let mut state = seed;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut pick = |below: usize| usize::try_from(next() % below as u64).unwrap_or(0);
    let cases: Vec<Case> = (0..count)
        .map(|_| {
            let chosen: Vec<&Case> = (0..2 + pick(3)).map(|_| &plain[pick(plain.len())]).collect();
            Case::together(&chosen)
        })
        .collect();
    compare("combinations", &cases);
}

fn seed() -> Option<u64> {
    std::env::var("BERTH_CONFORMANCE_SEED").ok()?.parse().ok()
}

/// The same ones each time: what fails here was changed by whoever sees it fail.
#[test]
fn combinations() {
    combine(seed().unwrap_or(20_260_424), 30);
}

#[test]
#[ignore = "other combinations each time, and many"]
fn combinations_at_random() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    combine(seed().unwrap_or(now), 200);
}

#[test]
fn page_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let now = std::fs::read_to_string(&path).expect("docs/conformance.md");
    let new = page::renew(&now).expect("the marks in docs/conformance.md");
    if std::env::var_os("BERTH_WRITE_PAGE").is_some() {
        std::fs::write(&path, new).expect("written");
    } else {
        assert!(
            now == new,
            "docs/conformance.md is older than the table: see the mark in it"
        );
    }
}

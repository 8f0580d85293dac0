//! Every text of the corpora, and a few thousand mutations of them.

use berth_fuzz::mutate::{Random, mutated};
use berth_fuzz::{TARGETS, corpus};

#[test]
fn corpora() {
    for (name, target) in TARGETS {
        let all = corpus(name);
        assert!(all.len() > 5, "{name}");
        for (file, text) in all {
            println!("{name}/{file}");
            target(&text);
        }
    }
}

#[test]
fn mutations() {
    for (name, target) in TARGETS {
        let corpus: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, text)| text).collect();
        let mut random = Random::new(1);
        for number in 0..2000 {
            let text = mutated(&mut random, &corpus);
            let done = std::panic::catch_unwind(|| target(&text));
            assert!(
                done.is_ok(),
                "{name}, mutation {number}: {}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}

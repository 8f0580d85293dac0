//! Changes to a text: to its bytes, or to the JSON that it is, so that most of what comes out gets past the parser.

use serde_json::{Value, json};

/// SplitMix64: small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap_or(0)
    }
}

/// A text made of one or two of the corpus.
pub fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let one = &corpus[random.below(corpus.len())];
    if random.below(4) > 0
        && let Ok(mut value) = serde_json::from_slice::<Value>(one)
    {
        let other = corpus[random.below(corpus.len())].as_slice();
        let other: Value = serde_json::from_slice(other).unwrap_or_default();
        for _ in 0..=random.below(6) {
            change(random, &mut value, &other, 0);
        }
        return value.to_string().into_bytes();
    }
    let mut bytes = one.clone();
    for _ in 0..=random.below(8) {
        scramble(random, &mut bytes);
    }
    bytes
}

fn scramble(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(b'{');
        return;
    }
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] = random.number() as u8,
        1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => _ = bytes.remove(at),
    }
}

/// Walks down by chance and changes what it comes to.
fn change(random: &mut Random, value: &mut Value, other: &Value, depth: usize) {
    let here = random.below(4) == 0 || depth > 12;
    match value {
        Value::Object(members) if !here && !members.is_empty() => {
            let at = random.below(members.len());
            let other = members
                .keys()
                .nth(at)
                .map_or(&Value::Null, |name| &other[name.as_str()]);
            let other = other.clone();
            if let Some(inner) = members.values_mut().nth(at) {
                change(random, inner, &other, depth + 1);
            }
        }
        Value::Array(items) if !here && !items.is_empty() => {
            let at = random.below(items.len());
            change(random, &mut items[at], &other[0], depth + 1);
        }
        Value::Array(items) if !items.is_empty() && random.below(2) == 0 => {
            let copy = items[random.below(items.len())].clone();
            // Many of a kind, now and then.
            let times = if random.below(50) == 0 { 1000 } else { 1 };
            items.extend(std::iter::repeat_n(copy, times));
        }
        Value::Object(members) if !members.is_empty() && random.below(2) == 0 => {
            let name = members
                .keys()
                .nth(random.below(members.len()))
                .cloned()
                .unwrap_or_default();
            members.remove(&name);
        }
        value => *value = something(random, value, other),
    }
}

fn something(random: &mut Random, old: &Value, other: &Value) -> Value {
    const NUMBERS: [i64; 9] = [
        0,
        1,
        -1,
        255,
        65536,
        i32::MAX as i64,
        i32::MIN as i64,
        i64::MAX,
        i64::MIN,
    ];
    const TEXTS: [&str; 14] = [
        "",
        "/",
        "..",
        "../..",
        "/proc/self/fd/3",
        "\u{0}",
        "a\u{0}b",
        "=",
        ",",
        "0-",
        "0-1023,5",
        "\u{1F980}",
        "net/../kernel",
        "mode=",
    ];
    match random.below(8) {
        0 => json!(NUMBERS[random.below(NUMBERS.len())]),
        1 => json!(u64::MAX),
        2 => json!(TEXTS[random.below(TEXTS.len())]),
        3 => Value::Null,
        4 => json!("a".repeat(1 << random.below(14))),
        5 => json!([old, old]),
        6 => json!(random.below(2) == 0),
        _ => other.clone(),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_texts() {
        let corpus = vec![br#"{"a":[1,{"b":"c"}]}"#.to_vec(), b"{}".to_vec()];
        let texts = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| mutated(&mut random, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
    }
}

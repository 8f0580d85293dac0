//! Round trips, limits, torn tails and garbage, for all formats.

use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 3] = [Format::Cri, Format::Json, Format::Plain];

fn encoded(format: Format, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(
        encode(format, &mut out, usize::MAX, Stream::Stdout, 1, input),
        input.len()
    );
    out
}

fn decoded(format: Format, file: &[u8], step: usize) -> Vec<Entry> {
    let mut decoder = Decoder::new(format);
    let mut entries = Vec::new();
    for chunk in file.chunks(step.max(1)) {
        decoder.push(chunk);
        entries.extend(std::iter::from_fn(|| decoder.next()));
    }
    entries.extend(decoder.finish());
    let covered: u64 = entries.iter().map(|entry| entry.file_len).sum();
    assert!(covered <= file.len() as u64);
    entries
}

fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.data.clone()).collect()
}

#[test]
fn golden_entries() {
    let time = 1_709_210_096_120_000_000;
    let made = |format, input: &[u8]| {
        let mut out = Vec::new();
        encode(format, &mut out, usize::MAX, Stream::Stderr, time, input);
        String::from_utf8(out).expect("text")
    };
    assert_eq!(
        made(Format::Cri, b"one\n\ntwo"),
        "2024-02-29T12:34:56.120000000Z stderr F one\n2024-02-29T12:34:56.120000000Z stderr F \n2024-02-29T12:34:56.120000000Z stderr P two\n"
    );
    // As Docker 26 writes it.
    assert_eq!(
        made(Format::Json, "a<\"\\\t\u{7f}\u{e9}\u{2028}\n".as_bytes()),
        "{\"log\":\"a\\u003c\\\"\\\\\\u0009\u{7f}\u{e9}\\u2028\\n\",\"stream\":\"stderr\",\"time\":\"2024-02-29T12:34:56.12Z\"}\n"
    );
    assert_eq!(
        made(Format::Json, b"\xff\xc3("),
        "{\"log\":\"\\ufffd\\ufffd(\",\"stream\":\"stderr\",\"time\":\"2024-02-29T12:34:56.12Z\"}\n"
    );
    assert_eq!(made(Format::Plain, b"a\0b"), "a\0b");
}

#[test]
fn long_lines_are_split_at_the_piece_and_come_back() {
    for len in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1 << 17] {
        for end in ["", "\n"] {
            let input = ["é".repeat(len / 2), "x".repeat(len % 2), end.to_owned()]
                .concat()
                .into_bytes();
            for format in FORMATS {
                let file = encoded(format, &input);
                let entries = decoded(format, &file, 4096);
                assert_eq!(bytes_of(&entries), input, "{format:?} {len}");
                assert!(format == Format::Plain || entries.iter().all(|entry| entry.data.len() <= PIECE + 1));
            }
        }
    }
}

#[test]
fn a_line_of_exactly_the_piece_is_one_full_entry() {
    let entries = decoded(
        Format::Cri,
        &encoded(Format::Cri, &[b"x".repeat(PIECE), b"\n".to_vec()].concat()),
        1 << 20,
    );
    assert_eq!(entries.len(), 1);
}

#[test]
fn unfinished_characters_are_found() {
    assert_eq!(unfinished(b""), 0);
    assert_eq!(unfinished(b"abc"), 0);
    assert_eq!(unfinished("abé".as_bytes()), 0);
    assert_eq!(unfinished(&"abé".as_bytes()[..3]), 1);
    assert_eq!(unfinished(&"€".as_bytes()[..2]), 2);
    assert_eq!(unfinished(&"🚢".as_bytes()[..3]), 3);
    assert_eq!(unfinished(b"\xff"), 0);
    assert_eq!(unfinished(b"\x80\x80\x80\x80"), 0);
    // A surrogate can never become a character.
    assert_eq!(unfinished(b"\xed\xa0"), 0);
}

#[test]
fn a_decoder_holds_little_whatever_it_is_fed() {
    let mut decoder = Decoder::new(Format::Cri);
    for _ in 0..100 {
        decoder.push(&[b'x'; 65536]);
        assert_eq!(decoder.next(), None);
        assert!(decoder.buffered() <= ENTRY_LIMIT);
    }
    decoder.push(b"\n");
    decoder.push(&encoded(Format::Cri, b"after\n"));
    let entry = decoder.next().expect("the line behind the garbage");
    assert_eq!(entry.data, b"after\n");
    assert_eq!(entry.file_len, 100 * 65536 + 1 + 46);
    assert_eq!(decoder.skipped(), 100 * 65536 + 1);
}

proptest! {
    #[test]
    fn bytes_come_back(input in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..3000), step in 1usize..700) {
        for format in [Format::Cri, Format::Plain] {
            prop_assert_eq!(bytes_of(&decoded(format, &encoded(format, &input), step)), input.clone());
        }
    }

    #[test]
    fn text_comes_back_from_json(input in "(.|\n){0,500}", step in 1usize..700) {
        let file = encoded(Format::Json, input.as_bytes());
        prop_assert_eq!(bytes_of(&decoded(Format::Json, &file, step)), input.into_bytes());
    }

    #[test]
    fn json_is_json_whatever_the_bytes(input in proptest::collection::vec(any::<u8>(), 0..500)) {
        let file = encoded(Format::Json, &input);
        for line in file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            serde_json::from_slice::<serde_json::Value>(line).expect("json");
        }
        let restored: String = bytes_of(&decoded(Format::Json, &file, 4096)).iter().map(|&b| char::from(b)).collect();
        // One U+FFFD a bad byte, as Go's decoder counts them.
        let bad = restored.matches("\u{ef}\u{bf}\u{bd}").count();
        prop_assert!(bad <= input.len());
    }

    #[test]
    fn a_limit_cuts_between_entries(input in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 1..2000), limit in 0usize..3000) {
        for format in FORMATS {
            let mut out = Vec::new();
            let done = encode(format, &mut out, limit, Stream::Stdout, 1, &input);
            prop_assert!(out.len() <= limit);
            if format != Format::Plain {
                prop_assert_eq!(out, encoded(format, &input[..done]));
            }
        }
    }

    #[test]
    fn a_torn_tail_costs_one_entry(lines in 1usize..20, cut in 1usize..40) {
        for format in [Format::Cri, Format::Json] {
            let file = encoded(format, "some line\n".repeat(lines).as_bytes());
            let entries = decoded(format, &file[..file.len() - cut], 100);
            prop_assert_eq!(entries.len(), lines - 1);
        }
    }

    #[test]
    fn garbage_is_skipped(garbage in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for format in FORMATS {
            let mut file = garbage.clone();
            file.push(b'\n');
            file.extend(encoded(format, b"the line\n"));
            let entries = decoded(format, &file, 333);
            prop_assert_eq!(entries.last().map(|entry| entry.data.clone()), Some(b"the line\n".to_vec()));
        }
    }
}

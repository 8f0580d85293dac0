//! The journal against a model, and against every way in which a file can be cut or changed.

use super::*;
use proptest::prelude::*;

/// A folder that goes with the test.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("berth-journal-{}", crate::random::hex::<8>().unwrap()));
        dir::make_all(&path, 0o700).unwrap();
        Self(path)
    }

    fn open(&self, limits: Limits) -> (Journal, Opened) {
        Journal::open(&self.0.join("events"), limits).unwrap()
    }

    fn last_segment(&self) -> PathBuf {
        let mut names: Vec<_> = std::fs::read_dir(self.0.join("events"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        names.sort();
        names.pop().unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const WIDE: Limits = Limits {
    events: 1000,
    bytes: 1 << 20,
};

fn payload(number: u64) -> Vec<u8> {
    format!("event {number}").into_bytes()
}

fn fill(journal: &mut Journal, count: u64) {
    for _ in 0..count {
        let next = journal.next();
        assert_eq!(journal.append(&payload(next)).unwrap(), next);
    }
}

fn assert_holds(journal: &Journal, from: u64, to: u64) {
    let got = journal.read(from, usize::MAX).unwrap();
    assert_eq!(
        got,
        (from..to).map(|number| (number, payload(number))).collect::<Vec<_>>()
    );
}

#[test]
fn numbers_go_on_after_a_reopen() {
    let temp = Temp::new();
    let (mut journal, opened) = temp.open(WIDE);
    assert!(opened.new);
    assert_eq!((journal.first(), journal.next()), (1, 1));
    fill(&mut journal, 300);
    let epoch = journal.epoch();
    drop(journal);
    let (mut journal, opened) = temp.open(WIDE);
    assert_eq!((journal.epoch(), opened), (epoch, Opened::default()));
    fill(&mut journal, 5);
    assert_holds(&journal, 1, 306);
    assert_holds(&journal, 200, 306);
    assert_eq!(journal.read(100, 3).unwrap().len(), 3);
    assert_eq!(journal.read(306, 3).unwrap(), []);
    assert_eq!(journal.read(u64::MAX, 3).unwrap(), []);
}

#[test]
fn the_oldest_are_dropped_by_count_and_by_bytes() {
    let temp = Temp::new();
    let (mut journal, _) = temp.open(Limits {
        events: 80,
        bytes: 1 << 20,
    });
    fill(&mut journal, 1000);
    let kept = journal.next() - journal.first();
    assert!((80..=90).contains(&kept), "{kept}");
    assert_holds(&journal, journal.first(), 1001);
    assert!(
        matches!(journal.read(journal.first() - 1, 1), Err(Error::TooOld { oldest, .. }) if oldest == journal.first())
    );
    drop(journal);
    let (mut journal, _) = temp.open(Limits {
        events: 1 << 40,
        bytes: 1 << 15,
    });
    for _ in 0..100 {
        journal.append(&[7; 1000]).unwrap();
    }
    assert!(journal.bytes() <= 1 << 15, "{}", journal.bytes());
    assert_eq!(journal.next(), 1101);
}

#[test]
fn damage_in_the_middle_begins_a_new_epoch() {
    let temp = Temp::new();
    let (mut journal, _) = temp.open(WIDE);
    fill(&mut journal, 10);
    let epoch = journal.epoch();
    drop(journal);
    let path = temp.last_segment();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (mut journal, opened) = temp.open(WIDE);
    assert!(opened.lost && journal.epoch() != epoch);
    fill(&mut journal, 2);
    assert_holds(&journal, 1, 3);
}

#[test]
fn a_missing_segment_or_epoch_begins_a_new_one() {
    for name in ["epoch", "00000000000000000126.seg"] {
        let temp = Temp::new();
        let (mut journal, _) = temp.open(WIDE);
        fill(&mut journal, 300);
        drop(journal);
        std::fs::remove_file(temp.0.join("events").join(name)).unwrap();
        let (journal, opened) = temp.open(WIDE);
        assert!(opened.lost, "{name}");
        assert_eq!(journal.next(), 1);
    }
}

#[test]
fn an_event_too_long_is_refused_and_uses_no_number() {
    let temp = Temp::new();
    let (mut journal, _) = temp.open(WIDE);
    assert!(matches!(
        journal.append(&vec![0; MAX_PAYLOAD + 1]),
        Err(Error::TooLong { .. })
    ));
    fill(&mut journal, 1);
    assert_holds(&journal, 1, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tail_cut_anywhere_costs_the_cut_frame_only(count in 1u64..40, cut in 0usize..2000) {
        let temp = Temp::new();
        let (mut journal, _) = temp.open(WIDE);
        fill(&mut journal, count);
        let epoch = journal.epoch();
        drop(journal);
        let path = temp.last_segment();
        let bytes = std::fs::read(&path).unwrap();
        let cut = cut.min(bytes.len());
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        let (mut journal, opened) = temp.open(WIDE);
        prop_assert!(!opened.lost && journal.epoch() == epoch);
        let next = journal.next();
        prop_assert!(next <= count + 1);
        prop_assert_eq!(next == count + 1, cut == 0);
        assert_holds(&journal, 1, next);
        fill(&mut journal, 3);
        assert_holds(&journal, 1, next + 3);
    }

    #[test]
    fn any_file_opens(bytes: Vec<u8>, keep in 0usize..100) {
        let temp = Temp::new();
        let (mut journal, _) = temp.open(WIDE);
        fill(&mut journal, 3);
        drop(journal);
        let path = temp.last_segment();
        let mut content = std::fs::read(&path).unwrap();
        content.truncate(keep);
        content.extend(bytes);
        std::fs::write(&path, content).unwrap();
        let (mut journal, _) = temp.open(WIDE);
        let next = journal.next();
        fill(&mut journal, 1);
        prop_assert_eq!(journal.read(journal.first(), usize::MAX).unwrap().len() as u64, next + 1 - journal.first());
    }

    #[test]
    fn any_bytes_decode_or_fail_cleanly(bytes: Vec<u8>) {
        if let segment::Front::Frame { number, payload, len } = segment::decode(&bytes) {
            let again = segment::encode(number, payload);
            prop_assert_eq!(again.as_slice(), &bytes[..len]);
        }
    }

    #[test]
    fn segment_names_round_trip(first: u64, other: String) {
        prop_assert_eq!(segment::parse_name(&segment::name(first)), Some(first));
        if let Some(first) = segment::parse_name(&other) {
            prop_assert_eq!(segment::name(first), other);
        }
    }
}

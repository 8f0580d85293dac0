//! Logs that are cut, rotated, removed and written by others, as their reader sees them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::files::path;
use super::*;

/// A log's folder, with a writer that rotates as ours does.
struct Log {
    dir: PathBuf,
    max_files: u32,
}

impl Log {
    fn new(max_files: u32) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("berth-logs-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        Log { dir, max_files }
    }

    fn raw(&self, bytes: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path(&self.dir, 0))
            .expect("the log");
        file.write_all(bytes.as_ref()).expect("written");
    }

    /// `tag` F or P; the time is the number, in seconds.
    fn line(&self, number: u32, stream: &str, tag: &str) {
        let time = format!("1970-01-01T00:{:02}:{:02}.000000000Z", number / 60 % 60, number % 60);
        self.raw(format!("{time} {stream} {tag} {number}\n"));
    }

    fn lines(&self, numbers: std::ops::RangeInclusive<u32>) {
        numbers.for_each(|n| self.line(n, "stdout", "F"));
    }

    fn rotate(&self) {
        for index in (0..self.max_files - 1).rev() {
            if path(&self.dir, index).exists() {
                std::fs::rename(path(&self.dir, index), path(&self.dir, index + 1)).expect("renamed");
            }
        }
        if self.max_files == 1 {
            std::fs::remove_file(path(&self.dir, 0)).expect("removed");
        }
        std::fs::write(path(&self.dir, 0), "").expect("made");
    }

    fn open(&self, from: From) -> Reader {
        self.filtered(from, Filter::default())
    }

    fn filtered(&self, from: From, filter: Filter) -> Reader {
        Reader::open(self.dir.clone(), LogFormat::Cri, filter, from).expect("readable")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn drain(reader: &mut Reader) -> Vec<LogEntry> {
    let mut all = Vec::new();
    loop {
        let (entries, progress) = reader.read().expect("readable");
        all.extend(entries);
        if progress != Progress::More {
            return all;
        }
    }
}

fn numbers(entries: &[LogEntry]) -> Vec<u32> {
    let number = |e: &LogEntry| String::from_utf8_lossy(&e.data).trim_end().parse().expect("a number");
    entries.iter().map(number).collect()
}

fn range(range: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn follows_across_rotation() {
    let log = Log::new(5);
    let mut reader = log.open(From::Oldest);
    assert_eq!(drain(&mut reader), [], "no file yet");
    log.lines(1..=10);
    assert_eq!(numbers(&drain(&mut reader)), range(1..=10));
    log.lines(11..=12);
    log.rotate();
    log.lines(13..=14);
    log.rotate();
    log.rotate();
    log.lines(15..=16);
    let rest = drain(&mut reader);
    assert_eq!(numbers(&rest), range(11..=16));
    assert!(rest.iter().all(|e| !e.gap));
}

#[test]
fn what_rotation_removed_is_marked() {
    let log = Log::new(3);
    log.lines(1..=3);
    let mut reader = log.open(From::Oldest);
    assert_eq!(numbers(&drain(&mut reader)), range(1..=3));
    for n in 4..=8 {
        log.rotate();
        log.line(n, "stdout", "F");
    }
    let rest = drain(&mut reader);
    assert_eq!(numbers(&rest), range(6..=8));
    assert_eq!(rest.iter().map(|e| e.gap).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_single_file_is_replaced() {
    let log = Log::new(1);
    log.lines(1..=3);
    let mut reader = log.open(From::Oldest);
    assert_eq!(numbers(&drain(&mut reader)), range(1..=3));
    log.rotate();
    log.lines(4..=5);
    assert_eq!(numbers(&drain(&mut reader)), range(4..=5));
}

#[test]
fn cut_files_are_read_anew() {
    let log = Log::new(3);
    log.lines(1..=30);
    let mut reader = log.open(From::Oldest);
    assert_eq!(drain(&mut reader).len(), 30);
    std::fs::write(path(&log.dir, 0), "").expect("cut");
    log.lines(31..=32);
    let rest = drain(&mut reader);
    assert_eq!(numbers(&rest), range(31..=32));
    assert!(rest[0].gap);
}

#[test]
fn torn_tails_and_garbage_break_nothing() {
    let log = Log::new(3);
    log.lines(1..=2);
    log.raw(b"garbage\n\n\0\xff\n1970-01-01T00:00:00Z stdout X no tag\n");
    log.raw(vec![b'x'; 3 * ENTRY_LIMIT]);
    log.raw("\n");
    log.line(3, "stdout", "F");
    log.raw("1970-01-01T00:00:04.0Z stdo");
    let mut reader = log.open(From::Oldest);
    assert_eq!(numbers(&drain(&mut reader)), range(1..=3));
    log.raw("ut F 4\n1970-01-01T00:00:05Z std");
    assert_eq!(numbers(&drain(&mut reader)), [4]);
    log.rotate();
    log.line(6, "stdout", "F");
    assert_eq!(numbers(&drain(&mut reader)), [6], "the tail was never finished");
    assert_eq!(numbers(&drain(&mut log.open(From::Tail(4)))), [2, 3, 4, 6]);
}

#[test]
fn tails() {
    let log = Log::new(10);
    assert_eq!(drain(&mut log.open(From::Tail(3))), []);
    log.lines(1..=3000);
    log.rotate();
    log.lines(3001..=9000);
    log.rotate();
    log.rotate();
    log.lines(9001..=9003);
    for count in [0u32, 1, 2, 3, 4, 5, 100, 6002, 6003, 6004, 9002, 9003, 9004, 1_000_000] {
        let read = drain(&mut log.open(From::Tail(count.into())));
        assert_eq!(
            numbers(&read),
            range(9004u32.saturating_sub(count).max(1)..=9003),
            "tail {count}"
        );
    }
    let mut reader = log.open(From::Tail(0));
    assert_eq!(drain(&mut reader), []);
    log.line(9004, "stdout", "F");
    assert_eq!(numbers(&drain(&mut reader)), [9004]);
}

#[test]
fn tails_count_lines_and_not_parts() {
    let log = Log::new(3);
    for (n, tag) in [(1, "F"), (2, "P"), (3, "P"), (4, "F"), (5, "P")] {
        log.line(n, "stdout", tag);
    }
    log.line(6, "stderr", "F");
    let tail = |count, streams: &[Stream]| {
        let filter = Filter {
            streams: streams.to_vec(),
            ..Filter::default()
        };
        numbers(&drain(&mut log.filtered(From::Tail(count), filter)))
    };
    assert_eq!(tail(1, &[Stream::Stdout]), [5], "a line without an end is one");
    assert_eq!(tail(2, &[Stream::Stdout]), [2, 3, 4, 5]);
    assert_eq!(tail(1, &[Stream::Stderr]), [6]);
    assert_eq!(tail(9, &[Stream::Stderr]), [6]);
}

#[test]
fn times_and_streams() {
    let log = Log::new(3);
    log.lines(1..=10);
    log.rotate();
    log.line(11, "stderr", "F");
    log.lines(12..=20);
    let second = 1_000_000_000;
    let read = |filter| {
        let mut reader = log.filtered(From::Oldest, filter);
        numbers(&drain(&mut reader))
    };
    assert_eq!(
        read(Filter {
            since: 5 * second,
            until: 15 * second,
            ..Filter::default()
        }),
        range(5..=14)
    );
    assert_eq!(
        read(Filter {
            streams: vec![Stream::Stderr],
            ..Filter::default()
        }),
        [11]
    );
    let mut reader = log.filtered(
        From::Oldest,
        Filter {
            until: 3 * second,
            ..Filter::default()
        },
    );
    let (entries, progress) = reader.read().expect("readable");
    assert_eq!((numbers(&entries), progress), (range(1..=2), Progress::Until));
}

#[test]
fn cursors_survive_rotation_and_not_removal() {
    let log = Log::new(3);
    log.lines(1..=5);
    let entries = drain(&mut log.open(From::Oldest));
    let cursor: LogCursor = entries[2].cursor.parse().expect("a cursor");
    log.rotate();
    log.lines(6..=7);
    let rest = drain(&mut log.open(From::Cursor(cursor)));
    assert_eq!(numbers(&rest), range(4..=7));
    assert!(!rest[0].gap);
    log.rotate();
    log.rotate();
    log.lines(8..=8);
    let rest = drain(&mut log.open(From::Cursor(cursor)));
    assert_eq!(numbers(&rest), range(6..=8));
    assert!(rest[0].gap && !rest[1].gap);
}

#[test]
fn a_reader_that_does_not_follow_ends_at_now() {
    let log = Log::new(3);
    log.lines(1..=5);
    let mut reader = log.open(From::Oldest).up_to_now().expect("readable");
    log.lines(6..=7);
    log.rotate();
    log.lines(8..=9);
    assert_eq!(numbers(&drain(&mut reader)), range(1..=5));
    assert_eq!(drain(&mut reader), []);
}

#[test]
fn plain_is_told_as_it_comes() {
    let log = Log::new(3);
    let mut reader =
        Reader::open(log.dir.clone(), LogFormat::Plain, Filter::default(), From::Oldest).expect("readable");
    let mut read = || drain(&mut reader).into_iter().map(|e| e.data).collect::<Vec<_>>();
    log.raw("one\n$ ");
    assert_eq!(read(), [b"one\n".to_vec(), b"$ ".to_vec()]);
    log.raw("ls\n");
    log.rotate();
    log.raw(vec![b'z'; PLAIN_PART + 5]);
    assert_eq!(read(), [b"ls\n".to_vec(), vec![b'z'; PLAIN_PART], vec![b'z'; 5]]);
}

#[test]
fn batches_are_bounded() {
    let log = Log::new(3);
    log.lines(1..=5000);
    let mut reader = log.open(From::Oldest);
    let (entries, progress) = reader.read().expect("readable");
    assert_eq!((entries.len(), progress), (BATCH_ENTRIES, Progress::More));
    assert_eq!(numbers(&drain(&mut reader)), range(1025..=5000));
}

#[test]
fn a_folder_that_is_gone_has_no_entries() {
    let mut reader = Reader::open(
        Path::new("/nonexistent/log").into(),
        LogFormat::Cri,
        Filter::default(),
        From::Oldest,
    )
    .expect("no error");
    assert_eq!(drain(&mut reader), []);
}

#[derive(Debug, Clone)]
enum Step {
    Write(u32),
    Rotate,
    Read,
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u32..30).prop_map(Step::Write),
        Just(Step::Rotate),
        Just(Step::Read),
        Just(Step::Resume)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written, rotated and resumed in between: in order, no line twice, and what is missing is marked.
    #[test]
    fn never_twice_never_silently_missing(steps in prop::collection::vec(step(), 1..40)) {
        let log = Log::new(3);
        let mut reader = log.open(From::Oldest);
        let (mut written, mut last) = (0, 0);
        let mut cursor = None;
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::Write(count) => {
                    log.lines(written + 1..=written + count);
                    written += count;
                }
                Step::Rotate if path(&log.dir, 0).exists() => log.rotate(),
                Step::Rotate => {}
                Step::Resume => {
                    if let Some(cursor) = cursor {
                        reader = log.open(From::Cursor(cursor));
                    }
                }
                Step::Read => {
                    for entry in drain(&mut reader) {
                        let number = numbers(std::slice::from_ref(&entry))[0];
                        // Who has read nothing yet misses nothing.
                        let missed = last != 0 && number != last + 1;
                        prop_assert!(number > last && (!missed || entry.gap), "{last} then {number}");
                        last = number;
                        cursor = Some(entry.cursor.parse().expect("a cursor"));
                    }
                    if let Some(newest) = drain(&mut log.open(From::Oldest)).last() {
                        prop_assert!(numbers(std::slice::from_ref(newest))[0] <= last, "not all was read");
                    }
                }
            }
        }
    }
}

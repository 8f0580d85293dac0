//! The ring with a real writer process: formats, rotation, full disks, dead writers, slow readers.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_record::log::{Decoder, Entry};
use berth_sys::process::{self, Ended};
use berth_sys::{file, pipe};

use super::*;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "berth-writer-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder of the test's own");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A ring, its writer, and a pipe in place of a container.
struct Bench {
    ring: Ring,
    writer: Option<u32>,
    read: OwnedFd,
    write: File,
}

impl Bench {
    fn new(options: Options) -> Bench {
        let mut ring = Ring::new(options).expect("ring");
        let writer = ring.spawn().expect("fork").map(i32::unsigned_abs);
        let (read, write) = pipe::pipe().expect("pipe");
        file::set_nonblocking(&read, true).expect("nonblocking");
        Bench {
            ring,
            writer,
            read,
            write: File::from(write),
        }
    }

    /// Puts bytes in, waiting for room as the shim's loop does.
    fn put(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(32 << 10) {
            self.write.write_all(piece).expect("the pipe holds it");
            let mut left = piece.len();
            while left > 0 {
                match self.ring.fill(stream, self.read.as_fd()).expect("fill") {
                    Fill::Read(got) => left -= got,
                    Fill::Full => {
                        wait_readable(self.ring.room().expect("a writer"));
                        self.ring.clear_room();
                    }
                    Fill::Empty | Fill::Eof => panic!("{left} bytes are missing"),
                }
            }
        }
    }

    /// Says that no more comes, and waits for the writer's end.
    fn end(mut self) -> Ring {
        self.ring.finish();
        let writer = self.writer.take().expect("a writer");
        assert_eq!(process::wait(writer).expect("wait"), Some(Ended::Exited(0)));
        std::mem::replace(&mut self.ring, Ring::new(window()).expect("ring"))
    }

    fn kill_writer(&mut self) {
        let writer = self.writer.take().expect("a writer");
        let pidfd = process::pidfd_open(writer).expect("pidfd");
        process::pidfd_send_signal(&pidfd, 9).expect("kill");
        process::wait(writer).expect("wait");
        self.writer = self.ring.spawn().expect("fork").map(i32::unsigned_abs);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(writer) = self.writer {
            let _ = process::pidfd_open(writer).and_then(|pidfd| process::pidfd_send_signal(&pidfd, 9));
            let _ = process::wait(writer);
        }
    }
}

fn window() -> Options {
    Options {
        dir: None,
        format: Format::Cri,
        drop: false,
        max_size: 0,
        max_files: 0,
    }
}

fn wait_readable(fd: BorrowedFd<'_>) {
    let mut epoll = berth_sys::epoll::Epoll::new().expect("epoll");
    epoll.add(fd, 0, berth_sys::epoll::Interest::READ).expect("add");
    let mut ready = Vec::new();
    epoll.wait(Some(Duration::from_secs(20)), &mut ready).expect("wait");
    assert_eq!(ready.len(), 1, "no room within 20 s");
}

fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fact() {
        assert!(Instant::now() < deadline, "{what} did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn options(dir: &Path, format: Format) -> Options {
    Options {
        dir: Some(dir.join("logs")),
        format,
        drop: false,
        max_size: 10 << 20,
        max_files: 3,
    }
}

/// All files of a log, oldest first.
fn files(dir: &Path) -> Vec<Vec<u8>> {
    let dir = dir.join("logs");
    let rotated = (1..2000)
        .map(|number| dir.join(format!("log.{number}")))
        .take_while(|path| path.exists());
    let mut paths: Vec<PathBuf> = rotated.collect();
    paths.reverse();
    paths.push(dir.join("log"));
    paths.iter().map(|path| fs::read(path).expect("a log file")).collect()
}

fn entries(dir: &Path, format: Format) -> Vec<Entry> {
    let mut entries = Vec::new();
    for content in files(dir) {
        let mut decoder = Decoder::new(format);
        for piece in content.chunks(64 << 10) {
            decoder.push(piece);
            entries.extend(std::iter::from_fn(|| decoder.next()));
        }
        entries.extend(decoder.finish());
        assert_eq!(decoder.skipped(), 0, "garbage in the log");
    }
    entries
}

fn bytes(entries: &[Entry], stream: Option<Stream>) -> Vec<u8> {
    let wanted = entries
        .iter()
        .filter(|entry| stream.is_none_or(|stream| entry.stream == stream));
    wanted.flat_map(|entry| entry.data.clone()).collect()
}

/// Numbered lines of many lengths.
fn lines(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|n| format!("{n:08} {}\n", "x".repeat(n * 7919 % 200)).into_bytes())
        .collect()
}

#[test]
fn every_format_gives_the_bytes_back() {
    for format in [Format::Cri, Format::Json, Format::Plain] {
        let folder = Folder::new();
        let (out, err) = (lines(3000), "é€🚢\n".repeat(5000).into_bytes());
        let mut bench = Bench::new(options(&folder.0, format));
        // Chunks that end anywhere, within characters too.
        for (out, err) in out.chunks(out.len() / 40 + 1).zip(err.chunks(err.len() / 40 + 1)) {
            bench.put(Stream::Stdout, out);
            bench.put(Stream::Stderr, err);
        }
        let ring = bench.end();
        let entries = entries(&folder.0, format);
        if format == Format::Plain {
            assert_eq!(bytes(&entries, None).len(), out.len() + err.len());
        } else {
            assert!(bytes(&entries, Some(Stream::Stdout)) == out, "{format:?}");
            assert!(bytes(&entries, Some(Stream::Stderr)) == err, "{format:?}");
        }
        assert_eq!((ring.dropped(), ring.trouble()), (0, None));
        let mode = |path: &str| fs::metadata(folder.0.join(path)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("logs"), mode("logs/log")), (0o700, 0o600));
    }
}

#[test]
fn outputs_of_round_sizes_lose_nothing() {
    for power in [0, 12, 16, 17, 18, 20, 22] {
        for size in [(1_usize << power) - 1, 1 << power, (1 << power) + 1] {
            let folder = Folder::new();
            let mut bench = Bench::new(Options {
                max_size: 1 << 30,
                ..options(&folder.0, Format::Cri)
            });
            let data = vec![b'a'; size];
            bench.put(Stream::Stdout, &data);
            bench.end();
            assert!(bytes(&entries(&folder.0, Format::Cri), None) == data, "{size}");
        }
    }
}

#[test]
fn rotation_keeps_size_count_and_order() {
    for format in [Format::Cri, Format::Json, Format::Plain] {
        let folder = Folder::new();
        let data = lines(4000);
        let mut bench = Bench::new(Options {
            max_size: 50_000,
            max_files: 1000,
            ..options(&folder.0, format)
        });
        bench.put(Stream::Stdout, &data);
        bench.end();
        let made = files(&folder.0);
        assert!(made.len() > 5, "{format:?}: {}", made.len());
        assert!(
            made.iter().all(|file| file.len() <= 50_000 && file.ends_with(b"\n")),
            "{format:?}"
        );
        assert!(bytes(&entries(&folder.0, format), None) == data, "{format:?}");
    }
}

#[test]
fn rotation_removes_the_oldest() {
    for keep in [1_u32, 2, 5] {
        let folder = Folder::new();
        let data = lines(4000);
        let mut bench = Bench::new(Options {
            max_size: 50_000,
            max_files: keep,
            ..options(&folder.0, Format::Plain)
        });
        bench.put(Stream::Stdout, &data);
        bench.end();
        let made = files(&folder.0);
        assert_eq!(made.len(), keep as usize);
        assert!(data.ends_with(&made.concat()), "the newest are kept");
        assert_eq!(
            fs::read_dir(folder.0.join("logs")).expect("folder").count(),
            keep as usize
        );
    }
}

#[test]
fn a_line_above_the_limit_of_a_file_is_kept_whole_or_cut_where_it_must() {
    for format in [Format::Cri, Format::Json, Format::Plain] {
        let folder = Folder::new();
        let data = [b"x".repeat(100_000), b"\nshort\n".to_vec()].concat();
        let mut bench = Bench::new(Options {
            max_size: 0,
            max_files: 1000,
            ..options(&folder.0, format)
        });
        bench.put(Stream::Stdout, &data);
        bench.end();
        assert!(bytes(&entries(&folder.0, format), None) == data, "{format:?}");
        let largest = files(&folder.0).iter().map(Vec::len).max();
        assert!(largest <= Some(2 * (16 << 10) + 100), "{format:?}: {largest:?}");
    }
}

#[test]
fn a_killed_writer_loses_and_doubles_nothing() {
    for format in [Format::Cri, Format::Json, Format::Plain] {
        let folder = Folder::new();
        let data = lines(60_000);
        let mut bench = Bench::new(Options {
            max_size: 300_000,
            max_files: 1000,
            ..options(&folder.0, format)
        });
        for piece in data.chunks(data.len() / 60) {
            bench.put(Stream::Stdout, piece);
            bench.kill_writer();
        }
        bench.end();
        assert!(bytes(&entries(&folder.0, format), None) == data, "{format:?}");
    }
}

#[test]
fn a_writer_killed_between_write_and_commit_is_cut_back() {
    let folder = Folder::new();
    let mut bench = Bench::new(options(&folder.0, Format::Cri));
    bench.put(Stream::Stdout, b"one\n");
    until("the first line", || {
        bench.ring.shared.progress().tail == bench.ring.head
    });
    let path = folder.0.join("logs/log");
    File::options()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(b"2026 torn"))
        .expect("append");
    bench.kill_writer();
    bench.put(Stream::Stdout, b"two\n");
    bench.end();
    assert_eq!(bytes(&entries(&folder.0, Format::Cri), None), b"one\ntwo\n");
}

#[test]
fn a_torn_last_line_of_another_life_is_repaired() {
    for (format, torn) in [
        (Format::Cri, "2026-11-24T07:02:00.586776794Z stdout F ab"),
        (Format::Json, "{\"log\":\"a"),
    ] {
        let folder = Folder::new();
        for text in ["first\n", "second\n"] {
            let mut bench = Bench::new(options(&folder.0, format));
            bench.put(Stream::Stdout, text.as_bytes());
            bench.end();
            let path = folder.0.join("logs/log");
            File::options()
                .append(true)
                .open(&path)
                .and_then(|mut f| f.write_all(torn.as_bytes()))
                .expect("append");
        }
        let bench = Bench::new(options(&folder.0, format));
        let mut bench = bench;
        bench.put(Stream::Stdout, b"third\n");
        bench.end();
        assert_eq!(bytes(&entries(&folder.0, format), None), b"first\nsecond\nthird\n");
    }
}

#[test]
fn a_log_emptied_by_hand_has_no_hole() {
    let folder = Folder::new();
    let mut bench = Bench::new(options(&folder.0, Format::Plain));
    bench.put(Stream::Stdout, b"before\n");
    until("the first line", || {
        bench.ring.shared.progress().tail == bench.ring.head
    });
    File::create(folder.0.join("logs/log")).expect("truncate");
    bench.put(Stream::Stdout, b"after\n");
    bench.end();
    assert_eq!(files(&folder.0), [b"after\n"]);
}

#[test]
fn a_stopped_disk_blocks_the_output_not_the_shim() {
    let folder = Folder::new();
    let mut bench = Bench::new(options(&folder.0, Format::Plain));
    let pidfd = process::pidfd_open(bench.writer.expect("writer")).expect("pidfd");
    process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGSTOP).expect("stop");
    let (mut sent, mut taken) = (0, 0);
    loop {
        bench.write.write_all(&[b'x'; 32 << 10]).expect("pipe");
        sent += 32 << 10;
        match bench.ring.fill(Stream::Stdout, bench.read.as_fd()).expect("fill") {
            Fill::Read(got) => taken += got,
            Fill::Full => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((200 << 10..256 << 10).contains(&taken), "{taken}");
    process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGCONT).expect("continue");
    wait_readable(bench.ring.room().expect("room"));
    bench.ring.clear_room();
    assert_eq!(
        bench.ring.fill(Stream::Stdout, bench.read.as_fd()).expect("fill"),
        Fill::Read(sent - taken)
    );
    bench.end();
    assert_eq!(files(&folder.0).concat().len(), sent);
}

#[test]
fn a_slow_disk_drops_with_an_exact_count() {
    let folder = Folder::new();
    let mut bench = Bench::new(Options {
        drop: true,
        ..options(&folder.0, Format::Cri)
    });
    let pidfd = process::pidfd_open(bench.writer.expect("writer")).expect("pidfd");
    process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGSTOP).expect("stop");
    let data = lines(10_000);
    bench.put(Stream::Stdout, &data);
    assert!(bench.ring.dropped() > 0);
    process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGCONT).expect("continue");
    until("an empty ring", || bench.ring.shared.progress().tail == bench.ring.head);
    bench.put(Stream::Stdout, b"\nafter\n");
    let ring = bench.end();
    let kept = bytes(&entries(&folder.0, Format::Cri), None);
    assert_eq!(kept.len() as u64 + ring.dropped(), data.len() as u64 + 7);
    assert_eq!(ring.end(), data.len() as u64 + 7);
    assert!(kept.ends_with(b"\nafter\n"));
}

/// Mounts a tmpfs of this size over `dir`, in a mount namespace of the calling process's own.
fn tiny_disk(dir: &Path, pages: usize) {
    use berth_sys::namespaces::{Namespaces, unshare};
    use berth_sys::newmount::{Attr, Propagation, attach, new_filesystem, set_root_propagation};
    unshare(Namespaces::MOUNT).expect("a mount namespace");
    set_root_propagation(Propagation::Private, true).expect("private");
    let size = format!("size={}", pages * 4096);
    let disk = new_filesystem("tmpfs", None, &[&size], Attr::NOEXEC).expect("tmpfs");
    attach(disk.as_fd(), File::open(dir).expect("open").as_fd()).expect("attach");
}

/// Runs `test` in a child, whose mounts vanish with it.
fn in_child(test: impl FnOnce()) {
    match process::fork().expect("fork") {
        Fork::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            process::exit_now(u8::from(done.is_err()).into())
        }
        Fork::Parent { pid } => assert_eq!(process::wait(pid).expect("wait"), Some(Ended::Exited(0))),
    }
}

#[test]
fn a_full_disk_with_policy_drop_counts_exactly() {
    let folder = Folder::new();
    in_child(|| {
        tiny_disk(&folder.0, 64);
        let mut bench = Bench::new(Options {
            drop: true,
            ..options(&folder.0, Format::Cri)
        });
        let data = lines(20_000);
        bench.put(Stream::Stdout, &data);
        let ring = bench.end();
        let kept = bytes(&entries(&folder.0, Format::Cri), None);
        assert!(
            kept.len() > 50_000 && ring.dropped() > 1_000_000,
            "{} {}",
            kept.len(),
            ring.dropped()
        );
        assert_eq!(kept.len() as u64 + ring.dropped(), data.len() as u64);
        assert_eq!(ring.trouble(), Some(28));
    });
}

#[test]
fn a_full_disk_with_policy_block_waits_for_space() {
    let folder = Folder::new();
    in_child(|| {
        tiny_disk(&folder.0, 128);
        let hog = folder.0.join("hog");
        fs::write(&hog, vec![0; 100 * 4096]).expect("hog");
        let mut bench = Bench::new(options(&folder.0, Format::Cri));
        let data = lines(2500);
        // As much as the ring takes; the writer is stuck.
        let (first, rest) = data.split_at(150_000);
        bench.put(Stream::Stdout, first);
        until("trouble", || bench.ring.trouble() == Some(28));
        let used = |bench: &Bench| process::stat(bench.writer.expect("writer")).expect("stat").cpu_ticks;
        let before = used(&bench);
        std::thread::sleep(Duration::from_millis(300));
        assert!(used(&bench) - before <= 2, "it spins");
        fs::remove_file(&hog).expect("space");
        bench.put(Stream::Stdout, rest);
        let ring = bench.end();
        assert!(bytes(&entries(&folder.0, Format::Cri), None) == data);
        assert_eq!((ring.dropped(), ring.trouble()), (0, None));
    });
}

#[test]
fn a_folder_that_can_not_be_is_a_full_disk_too() {
    let folder = Folder::new();
    fs::write(folder.0.join("logs"), "in the way").expect("file");
    let mut bench = Bench::new(Options {
        drop: true,
        ..options(&folder.0, Format::Cri)
    });
    bench.put(Stream::Stdout, b"lost\n");
    let ring = bench.end();
    assert_eq!(ring.dropped(), 5);
    assert_eq!(ring.trouble(), Some(20));
}

#[test]
fn a_writer_whose_shim_died_writes_the_rest_and_ends() {
    let folder = Folder::new();
    process::set_child_subreaper().expect("subreaper");
    let (read, write) = pipe::pipe().expect("pipe");
    let shim = match process::fork().expect("fork") {
        Fork::Child => {
            let mut bench = Bench::new(options(&folder.0, Format::Plain));
            let writer = bench.writer.take().expect("writer");
            File::from(write).write_all(&writer.to_ne_bytes()).expect("tell");
            bench.put(Stream::Stdout, b"the last words\n");
            process::kill_self()
        }
        Fork::Parent { pid } => pid,
    };
    let mut writer = [0; 4];
    std::io::Read::read_exact(&mut File::from(read), &mut writer).expect("writer's pid");
    process::wait(shim).expect("wait");
    assert_eq!(
        process::wait(u32::from_ne_bytes(writer)).expect("wait"),
        Some(Ended::Exited(0))
    );
    assert_eq!(files(&folder.0), [b"the last words\n"]);
}

#[test]
fn attach_reads_what_is_there_and_is_told_what_is_not() {
    let mut bench = Bench::new(window());
    assert!(bench.writer.is_none() && bench.ring.room().is_none());
    let mut out = Vec::new();
    assert_eq!(bench.ring.read(0, 100, &mut out), None);
    bench.put(Stream::Stdout, b"hello ");
    bench.put(Stream::Stderr, b"world");
    let chunk = |lost, offset, stream, len| {
        Some(Chunk {
            lost,
            offset,
            stream,
            len,
        })
    };
    assert_eq!(bench.ring.read(2, 3, &mut out), chunk(0, 2, Stream::Stdout, 3));
    assert_eq!(bench.ring.read(5, 100, &mut out), chunk(0, 5, Stream::Stdout, 1));
    assert_eq!(bench.ring.read(6, 100, &mut out), chunk(0, 6, Stream::Stderr, 5));
    assert_eq!(bench.ring.read(11, 100, &mut out), None);
    assert_eq!(out, b"llo world");
    // Far more than the window: the oldest go, and what remains is right.
    let data = lines(5000);
    for piece in data.chunks(1000) {
        bench.put(Stream::Stdout, piece);
    }
    let start = bench.ring.start();
    assert!(start > 11 && bench.ring.end() == 11 + data.len() as u64);
    assert!(bench.ring.end() - start > 40 << 10, "the window is too small");
    out.clear();
    let first = bench.ring.read(3, 10, &mut out).expect("something");
    assert_eq!((first.lost, first.offset), (start - 3, start));
    let mut at = first.offset + first.len as u64;
    while let Some(chunk) = bench.ring.read(at, 777, &mut out) {
        assert_eq!((chunk.lost, chunk.offset), (0, at));
        at += chunk.len as u64;
    }
    assert!(out == data[(start - 11) as usize..]);
}

mod bench;

//! Output that Berth keeps: three formats, rotation, reading while it is written, to the byte.
use berth_e2e::calls::log;
use berth_e2e::v1::{self, ErrorCode, LogFormat, LogsRequest, StdioLog, Stream};
use berth_e2e::{Daemon, LIMIT, Runtime, assert_fails, on_all, until, within};
use std::path::PathBuf;

on_all!(
    cri_lines,
    json_lines,
    plain_bytes,
    hundred_thousand_lines,
    sizes_around_powers_of_two,
    rotation_keeps_the_newest,
    tail_and_since,
    follow_across_rotation,
    follow_across_daemon_restart,
    discard_keeps_no_file,
    default_is_a_cri_log,
    streams_apart,
    gone_with_the_container,
);

fn file(format: LogFormat) -> StdioLog {
    StdioLog {
        format: format.into(),
        ..Default::default()
    }
}

async fn raw(d: &Daemon, id: &str) -> String {
    let dir = PathBuf::from(d.get(id).await.log_path);
    std::fs::read_to_string(dir.join("log")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

const TWO: &str = "echo out; echo err >&2; printf half";

/// Kubernetes's format: time, stream, P or F, the line.
pub async fn cri_lines(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("cri", TWO).stdio(log(file(LogFormat::Cri)))).await;
    let text = raw(&d, "cri").await;
    let mut lines: Vec<_> = text.lines().map(|l| l.split_once(' ').expect("a time")).collect();
    assert!(
        lines.iter().all(|(time, _)| time.contains('T') && time.len() >= 30),
        "RFC 3339 with nanoseconds: {text}"
    );
    lines.sort_by_key(|(_, rest)| *rest);
    let rest: Vec<_> = lines.into_iter().map(|(_, rest)| rest).collect();
    assert_eq!(rest, ["stderr F err", "stdout F out", "stdout P half"]);
}

/// Docker's format, one object a line.
pub async fn json_lines(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(
        &d.sh("json", "printf 'a\"b\\\\\\tc\\001\\n'; echo err >&2")
            .stdio(log(file(LogFormat::Json))),
    )
    .await;
    let text = raw(&d, "json").await;
    let mut lines: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    lines.sort_by_key(|l| l["stream"].to_string());
    assert_eq!(
        (&lines[0]["log"], &lines[0]["stream"]),
        (&"err\n".into(), &"stderr".into())
    );
    assert_eq!(
        (&lines[1]["log"], &lines[1]["stream"]),
        (&"a\"b\\\tc\u{1}\n".into(), &"stdout".into())
    );
    assert!(lines[0]["time"].as_str().is_some_and(|t| t.ends_with('Z')));
}

/// The bytes as they came.
pub async fn plain_bytes(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(
        &d.sh("plain", "echo one; printf '\\000\\377half'")
            .stdio(log(file(LogFormat::Plain))),
    )
    .await;
    let dir = PathBuf::from(d.get("plain").await.log_path);
    assert_eq!(std::fs::read(dir.join("log")).expect("log"), b"one\n\0\xffhalf");
    assert_eq!(d.logs("plain").await, b"one\n\0\xffhalf");
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    range.flat_map(|i| format!("{i}\n").into_bytes()).collect()
}

/// 100,000 lines are read back to the byte, in each format.
pub async fn hundred_thousand_lines(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for format in [LogFormat::Cri, LogFormat::Json, LogFormat::Plain] {
        let id = format!("lines-{}", i32::from(format));
        d.run_to_end(&d.sh(&id, "seq 1 100000").stdio(log(file(format)))).await;
        let read = d.logs(&id).await;
        assert!(read == numbers(1..=100_000), "{format:?}: {} bytes", read.len());
        d.delete(&id).await;
    }
}

/// Lines of 2^n - 1, 2^n and 2^n + 1 bytes, without end and with one, come back whole.
pub async fn sizes_around_powers_of_two(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for format in [LogFormat::Cri, LogFormat::Json, LogFormat::Plain] {
        let id = format!("sizes-{}", i32::from(format));
        let mut data = Vec::new();
        for n in [1_u32, 7, 10, 12, 13, 14, 15, 16, 17, 20] {
            for size in [(1_usize << n) - 1, 1 << n, (1 << n) + 1] {
                data.extend((0..size).map(|i| b'a' + (i % 26) as u8));
                data.push(b'\n');
            }
        }
        data.extend([b'z'; 70_000]);
        let b = d.sh(&id, "cat /out/data").stdio(log(file(format)));
        std::fs::write(b.out("data"), &data).expect("data");
        d.run_to_end(&b).await;
        let read = d.logs(&id).await;
        assert!(read == data, "{format:?}: {} of {} bytes", read.len(), data.len());
        d.delete(&id).await;
    }
}

/// Files stay below their size, so many are kept, and together they hold the newest lines without a hole.
pub async fn rotation_keeps_the_newest(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let stdio = StdioLog {
        max_size: 65_536,
        max_files: 4,
        ..file(LogFormat::Cri)
    };
    d.run_to_end(&d.sh("turn", "seq 1 50000").stdio(log(stdio))).await;
    let dir = PathBuf::from(d.get("turn").await.log_path);
    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .expect("log folder")
        .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2", "log.3"]);
    for name in names {
        let size = dir.join(&name).metadata().expect("metadata").len();
        assert!(size <= 65_536, "{name}: {size}");
    }
    let read = String::from_utf8(d.logs("turn").await).expect("utf-8");
    let lines: Vec<u32> = read.lines().map(|l| l.parse().expect("a number")).collect();
    assert!(lines.windows(2).all(|w| w[0] + 1 == w[1]), "no hole");
    assert_eq!(lines.last(), Some(&50_000));
    assert!(lines.len() > 3 * 1000, "{}", lines.len());
}

pub async fn tail_and_since(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let stdio = StdioLog {
        max_size: 65_536,
        max_files: 10,
        ..file(LogFormat::Cri)
    };
    let b = d
        .sh(
            "tail",
            "seq 1 5000; while [ ! -e /out/go ]; do sleep 0.02; done; seq 5001 5010",
        )
        .stdio(log(stdio));
    d.run(&b).await;
    let read = |request: LogsRequest| {
        let d = &d;
        async move {
            let entries = d
                .log_entries(LogsRequest {
                    id: "tail".into(),
                    ..request
                })
                .await;
            String::from_utf8(entries.iter().flat_map(|e| e.data.to_vec()).collect()).expect("utf-8")
        }
    };
    berth_e2e::eventually("5,000 lines", || async {
        let tail = read(LogsRequest {
            tail: Some(1),
            ..Default::default()
        })
        .await;
        (tail == "5000\n").then_some(())
    })
    .await;
    assert_eq!(
        read(LogsRequest {
            tail: Some(0),
            ..Default::default()
        })
        .await,
        ""
    );
    assert_eq!(
        read(LogsRequest {
            tail: Some(3),
            ..Default::default()
        })
        .await,
        "4998\n4999\n5000\n"
    );
    // Across rotated files.
    let many = read(LogsRequest {
        tail: Some(4000),
        ..Default::default()
    })
    .await;
    assert_eq!(many.as_bytes(), numbers(1001..=5000));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_nanos() as i64;
    std::fs::write(b.out("go"), "").expect("go");
    d.wait("tail").await;
    assert_eq!(
        read(LogsRequest {
            since: now,
            ..Default::default()
        })
        .await
        .as_bytes(),
        numbers(5001..=5010)
    );
    assert_eq!(
        read(LogsRequest {
            until: now,
            ..Default::default()
        })
        .await
        .as_bytes(),
        numbers(1..=5000)
    );
    assert_eq!(
        read(LogsRequest {
            since: now,
            tail: Some(2),
            ..Default::default()
        })
        .await,
        "5009\n5010\n"
    );
    // A cursor goes on behind its entry.
    let entries = d
        .log_entries(LogsRequest {
            id: "tail".into(),
            ..Default::default()
        })
        .await;
    // A line that came in two reads is two entries: count the bytes.
    let mut read_so_far = 0;
    let first = numbers(1..=5000).len();
    let before = entries.iter().find(|e| {
        read_so_far += e.data.len();
        read_so_far == first
    });
    let cursor = before.expect("the entry that ends line 5000").cursor.clone();
    assert_eq!(
        read(LogsRequest {
            cursor,
            ..Default::default()
        })
        .await
        .as_bytes(),
        numbers(5001..=5010)
    );
    let bad = LogsRequest {
        id: "tail".into(),
        cursor: "not a cursor".into(),
        ..Default::default()
    };
    let refused = async { d.api().logs(bad).await?.into_inner().message().await };
    assert_fails(refused.await, ErrorCode::InvalidArgument, &["cursor"]);
}

/// Follow sees every line though files are rotated under it, and ends after the exit.
pub async fn follow_across_rotation(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let stdio = StdioLog {
        max_size: 65_536,
        max_files: 50,
        ..file(LogFormat::Cri)
    };
    let line = "i=0; while [ $i -lt 100 ]; do seq $((i*200+1)) $((i*200+200)); i=$((i+1)); sleep 0.005; done";
    d.run(&d.sh("follow", line).stdio(log(stdio))).await;
    let entries = d
        .log_entries(LogsRequest {
            id: "follow".into(),
            follow: true,
            ..Default::default()
        })
        .await;
    assert!(entries.iter().all(|e| !e.gap), "a gap though every file was kept");
    let read: Vec<u8> = entries.iter().flat_map(|e| e.data.to_vec()).collect();
    assert!(read == numbers(1..=20_000), "{} bytes", read.len());
}

/// The daemon dies while somebody follows: the writer goes on, and the follower goes on by its cursor.
pub async fn follow_across_daemon_restart(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let line = "seq 1 1000; while [ ! -e /out/go ]; do sleep 0.02; done; seq 1001 2000; echo end > /out/end; while [ ! -e /out/die ]; do sleep 0.02; done";
    let b = d.sh("on", line).stdio(log(StdioLog::default()));
    d.run(&b).await;
    let request = LogsRequest {
        id: "on".into(),
        follow: true,
        ..Default::default()
    };
    let mut stream = d.api().logs(request.clone()).await.expect("logs").into_inner();
    let mut read = Vec::new();
    let mut cursor = String::new();
    while read.len() < numbers(1..=1000).len() {
        let answer = within("a line", LIMIT, stream.message())
            .await
            .expect("logs")
            .expect("goes on");
        for entry in answer.entries {
            read.extend_from_slice(&entry.data);
            cursor = entry.cursor;
        }
    }
    d.kill();
    std::fs::write(b.out("go"), "").expect("go");
    b.line("end").await;
    d.restart().await;
    std::fs::write(b.out("die"), "").expect("die");
    let rest = d.log_entries(LogsRequest { cursor, ..request }).await;
    assert!(rest.iter().all(|e| !e.gap));
    read.extend(rest.iter().flat_map(|e| e.data.to_vec()));
    assert!(read == numbers(1..=2000), "{} bytes", read.len());
}

/// Discard keeps a window for Attach and no file.
pub async fn discard_keeps_no_file(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("dis", "echo x").stdio(log(StdioLog {
        discard: true,
        ..Default::default()
    })))
    .await;
    assert_eq!(d.logs("dis").await, b"");
    assert!(d.get("dis").await.log_path.is_empty());
}

/// Who says nothing about stdio gets a log.
pub async fn default_is_a_cri_log(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("def", "echo x")).await;
    assert!(raw(&d, "def").await.ends_with(" stdout F x\n"));
    assert_eq!(d.logs("def").await, b"x\n");
}

pub async fn streams_apart(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("apart", "echo out; echo err >&2")).await;
    for (stream, text) in [(Stream::Stdout, "out\n"), (Stream::Stderr, "err\n")] {
        let request = LogsRequest {
            id: "apart".into(),
            streams: vec![stream.into()],
            ..Default::default()
        };
        let entries = d.log_entries(request).await;
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].stream(), &entries[0].data[..]), (stream, text.as_bytes()));
        assert!(entries[0].time > 0);
    }
}

/// The log lives as long as the container's record, and goes with it.
pub async fn gone_with_the_container(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run_to_end(&d.sh("gone", "echo x")).await;
    let dir = PathBuf::from(d.get("gone").await.log_path);
    assert!(dir.join("log").exists());
    d.delete("gone").await;
    until("the log folder is gone", || (!dir.exists()).then_some(())).await;
    let request = v1::LogsRequest {
        id: "gone".into(),
        ..Default::default()
    };
    let refused = async { d.api().logs(request).await?.into_inner().message().await };
    assert_fails(refused.await, ErrorCode::NotFound, &["gone"]);
}

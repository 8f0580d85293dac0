//! The command line `berth`, as a person or a script uses it.
use berth_e2e::daemon::binary;
use berth_e2e::{Daemon, Runtime, fifo, on_all, proc, until};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

on_all!(
    run_gives_the_containers_code,
    detached_life,
    exec_logs_and_stop,
    pipes,
    update_pause_stats,
    errors_say_what_to_do,
    several_logs_prune_and_diagnose,
    a_watch_shows_what_happens,
    a_detached_one_is_removed_when_it_ends,
    events_by_time_and_in_order,
    small_things,
    without_a_daemon
);

fn berth(d: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(binary("berth"));
    command.arg("--address").arg(d.socket()).args(args).stdin(Stdio::null());
    command
}

fn output(d: &Daemon, args: &[&str]) -> Output {
    berth(d, args).output().expect("berth")
}

/// Its output; the command must succeed.
fn good(d: &Daemon, args: &[&str]) -> String {
    let output = output(d, args);
    assert!(output.status.success(), "berth {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("utf-8")
}

fn json(d: &Daemon, args: &[&str]) -> Value {
    let text = good(d, &[&["--json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn path(b: &berth_e2e::Bundle) -> &str {
    b.dir.to_str().expect("utf-8")
}

/// `berth run` stays with it, shows both streams apart, and ends as it ended.
async fn run_gives_the_containers_code(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("code", "echo out; echo err >&2; exit 42");
    let o = output(&d, &["run", "--id", "code", path(&b)]);
    assert_eq!(o.status.code(), Some(42), "{o:?}");
    assert_eq!(
        (o.stdout.as_slice(), o.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let b = d.sh("gone", "kill -9 $$");
    let o = output(&d, &["run", "--rm", "--id", "gone", path(&b)]);
    let _ = o;
    assert!(d.list().await.iter().all(|c| c.id != "gone"), "--rm removes it");
    let missing = d.bundle("missing", &["/bin/no-such-command"]);
    let o = output(&d, &["run", "--id", "missing", path(&missing)]);
    assert_eq!(o.status.code(), Some(127), "{o:?}");
    assert!(String::from_utf8_lossy(&o.stderr).contains("no-such-command"), "{o:?}");
}

async fn detached_life(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("web");
    assert_eq!(
        good(&d, &["run", "-d", "--id", "web", "--label", "a=b", path(&b)]).trim(),
        "web"
    );
    let pid = d.get("web").await.pid;
    let table = good(&d, &["ps"]);
    assert!(table.contains("web") && table.contains("running"), "{table}");
    let one = &json(&d, &["inspect", "web"])[0];
    assert_eq!(
        (one["id"].as_str(), one["pid"].as_u64()),
        (Some("web"), Some(pid.into())),
        "{one}"
    );
    assert_eq!(one["labels"]["a"], "b");
    assert_eq!(json(&d, &["ps"]).as_array().map(Vec::len), Some(1));
    good(&d, &["kill", "web"]);
    assert_eq!(good(&d, &["wait", "web"]).trim(), "137");
    assert!(!good(&d, &["ps"]).contains("web"), "ended ones only with --all");
    assert!(good(&d, &["ps", "--all"]).contains("web"));
    good(&d, &["rm", "web"]);
    assert!(d.list().await.is_empty());
    let events = good(&d, &["--json", "events", "--history", "--since", "0"]);
    let kinds: Vec<String> = events
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).expect("one object a line")["kind"]
                .as_str()
                .expect("kind")
                .to_owned()
        })
        .collect();
    assert_eq!(kinds, ["created", "started", "exited", "deleted"]);
}

async fn exec_logs_and_stop(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh(
        "c",
        "trap 'echo bye; exit 3' TERM; seq 1 10; echo up > /out/up; while :; do sleep 1000 & wait $!; done",
    );
    good(&d, &["run", "-d", "--id", "c", path(&b)]);
    b.line("up").await;
    let o = output(
        &d,
        &[
            "exec",
            "-e",
            "A=1",
            "c",
            "/bin/sh",
            "-c",
            "echo $A; echo no >&2; exit 7",
        ],
    );
    assert_eq!(o.status.code(), Some(7), "{o:?}");
    assert_eq!((o.stdout.as_slice(), o.stderr.as_slice()), (&b"1\n"[..], &b"no\n"[..]));
    assert_eq!(good(&d, &["logs", "--tail", "2", "c"]), "9\n10\n");
    let follow = berth(&d, &["logs", "-f", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("berth logs -f");
    good(&d, &["stop", "c"]);
    let followed = follow.wait_with_output().expect("logs -f ends with the container");
    let all: String = (1..=10).map(|i| format!("{i}\n")).collect::<String>() + "bye\n";
    assert_eq!(String::from_utf8(followed.stdout).expect("utf-8"), all);
    assert_eq!(good(&d, &["wait", "c"]).trim(), "3");
}

/// Scripts pipe through it: bytes in, bytes out.
async fn pipes(rt: Runtime) {
    use std::io::Write;
    let d = Daemon::start(rt).await;
    let b = d.sh("cat", "cat");
    let mut child = berth(&d, &["run", "-i", "--rm", "--id", "cat", path(&b)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("berth run -i");
    let bytes: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
    let (mut stdin, data) = (child.stdin.take().expect("stdin"), bytes.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let output = child.wait_with_output().expect("berth");
    writer.join().expect("join").expect("write");
    assert!(output.status.success(), "{:?}", output.status);
    assert!(
        output.stdout == bytes,
        "{} of {} bytes",
        output.stdout.len(),
        bytes.len()
    );
}

async fn update_pause_stats(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("c").memory(64 << 20);
    good(&d, &["run", "-d", "--id", "c", path(&b)]);
    let pid = d.get("c").await.pid;
    good(&d, &["update", "--memory", "96m", "--memory-swap", "96m", "c"]);
    let limit = || proc::cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit(), Some((96 << 20).to_string()));
    // The limit of memory and swap does not stand in the way.
    good(&d, &["update", "--memory", "-1", "c"]);
    assert_eq!(json(&d, &["inspect", "c"])[0]["limits"], serde_json::json!({}));
    // v2 would kill for it.
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        let low = output(&d, &["update", "--memory", "4k", "c"]);
        assert!(
            String::from_utf8_lossy(&low.stderr).contains("more than the limit of 4096"),
            "{low:?}"
        );
    }
    good(&d, &["pause", "c"]);
    assert!(good(&d, &["ps"]).contains("paused"));
    good(&d, &["unpause", "c"]);
    let stats = good(&d, &["--json", "stats", "--no-stream", "c"]);
    assert!(stats.contains("memory"), "{stats}");
    let spec = d.dir.join("spec");
    std::fs::create_dir(&spec).expect("mkdir");
    good(&d, &["spec", "--bundle", spec.to_str().expect("utf-8"), "/bin/true"]);
    let written = std::fs::read_to_string(spec.join("config.json")).expect("config.json");
    assert_eq!(
        serde_json::from_str::<Value>(&written).expect("json")["process"]["args"][0],
        "/bin/true"
    );
    good(&d, &["rm", "-f", "c"]);
    until("it is gone", || (!proc::alive(pid)).then_some(())).await;
}

async fn errors_say_what_to_do(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    for (args, code) in [
        (&["inspect", "nobody"][..], 1),
        (&["stop", "nobody"], 1),
        (&["logs", "nobody"], 1),
        (&["rm", "c"], 1),
        (&["exec", "nobody", "true"], 125),
        (&["run", "/no/such/bundle"], 125),
        (&["nonsense"], 2),
    ] {
        let o = output(&d, args);
        assert_eq!(o.status.code(), Some(code), "{args:?}: {o:?}");
        assert!(
            !o.stderr.is_empty() && (o.stdout.is_empty() || o.stdout == b"[]\n"),
            "{args:?}: {o:?}"
        );
    }
    let o = output(&d, &["rm", "c"]);
    assert!(String::from_utf8_lossy(&o.stderr).contains("-f"), "it says how: {o:?}");
}

async fn without_a_daemon(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    d.terminate().await;
    let o = output(&d, &["ps"]);
    assert_eq!(o.status.code(), Some(1), "{o:?}");
    assert!(String::from_utf8_lossy(&o.stderr).contains("berthd"), "{o:?}");
}

async fn several_logs_prune_and_diagnose(rt: Runtime) {
    let d = Daemon::start(rt).await;
    for id in ["one", "three"] {
        d.run_to_end(&d.sh(id, &format!("echo from {id}"))).await;
    }
    let logs = good(&d, &["logs", "one", "three"]);
    let mut lines: Vec<_> = logs.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["one   | from one", "three | from three"],
        "aligned, and without colours in a pipe"
    );
    d.run(&d.sleeper("up")).await;
    let page = good(&d, &["diagnose", "up"]);
    for part in ["default/up  running", "Processes", "sleep", "Shim", "started"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let diagnosis = json(&d, &["diagnose", "one"]);
    assert_eq!(diagnosis["lines"][0], "from one", "{diagnosis}");
    assert_eq!(diagnosis["container"]["exit"]["code"], 0, "{diagnosis}");
    let refused = output(&d, &["prune"]);
    assert_eq!(refused.status.code(), Some(2), "nobody can answer: {refused:?}");
    assert_eq!(good(&d, &["prune", "-f", "--ended", "1h"]), "");
    let pruned = good(&d, &["prune", "-f"]);
    let mut pruned: Vec<_> = pruned.lines().collect();
    pruned.sort_unstable();
    assert_eq!(pruned, ["one", "three"]);
    assert_eq!(d.list().await.len(), 1, "what runs stays");
}

async fn a_watch_shows_what_happens(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let file = d.dir.join("watched");
    let mut watch = berth(&d, &["--json", "ps", "--watch"])
        .stdout(std::fs::File::create(&file).expect("a file"))
        .spawn()
        .expect("berth");
    let shows = async |ids: &[&str]| {
        until("the watch shows it", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let last: Value = serde_json::from_str(text.lines().last()?).ok()?;
            let seen: Vec<_> = last.as_array()?.iter().filter_map(|c| c["id"].as_str()).collect();
            (seen == ids).then_some(())
        })
        .await;
    };
    shows(&[]).await;
    d.run(&d.sleeper("seen")).await;
    shows(&["seen"]).await;
    d.delete("seen").await;
    shows(&[]).await;
    watch.kill().expect("kill");
    watch.wait().expect("wait");
}

/// `run -d --rm`: also when the daemon dies meanwhile; who waits hears the code.
async fn a_detached_one_is_removed_when_it_ends(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let b = d.sh("c", "read x < /out/go; echo bye; exit 4");
    fifo::make(&b.out("go"));
    good(&d, &["run", "-d", "--rm", "--id", "c", path(&b)]);
    assert_eq!(json(&d, &["inspect", "c"])[0]["remove"], true);
    let waiting = berth(&d, &["wait", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("berth wait");
    std::fs::write(b.out("go"), "go\n").expect("go");
    let waited = waiting.wait_with_output().expect("berth wait");
    assert_eq!(waited.stdout, b"4\n");
    until("it is removed", || good(&d, &["ps", "-aq"]).is_empty().then_some(())).await;
    assert!(
        std::fs::read_dir(d.root().join("logs")).expect("logs").next().is_none(),
        "with its log"
    );

    let b = d.sh("late", "read x < /out/go; exit 4");
    fifo::make(&b.out("go"));
    good(&d, &["run", "-d", "--rm", "--id", "late", path(&b)]);
    d.kill();
    std::fs::write(b.out("go"), "go\n").expect("go");
    d.restart().await;
    until("it is removed", || good(&d, &["ps", "-aq"]).is_empty().then_some(())).await;
    d.check_exits().await;
    let both = output(&d, &["run", "-d", "--rm", "--restart", "always", path(&b)]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

async fn events_by_time_and_in_order(rt: Runtime) {
    let d = Daemon::start(rt).await;
    d.run(&d.sleeper("c")).await;
    for _ in 0..10 {
        good(&d, &["exec", "c", "true"]);
    }
    let lines = |args: &[&str]| -> Vec<Value> {
        let text = good(&d, &[&["--json", "events", "--history"], args].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect()
    };
    let all = lines(&[]);
    assert_eq!(lines(&["--since", "1h"]), all);
    let last = all.last().expect("an event")["cursor"].as_str().expect("a cursor");
    assert_eq!(lines(&["--since", last]), [] as [Value; 0]);
    let of = |kind: &str| {
        all.iter()
            .filter(|event| event["kind"] == kind)
            .map(|event| {
                (
                    event["exec_id"].clone(),
                    event["number"].as_u64(),
                    event["at"].as_str().map(str::to_owned),
                )
            })
            .collect::<Vec<_>>()
    };
    let (started, exited) = (of("exec_started"), of("exec_exited"));
    assert_eq!(started.len(), 10, "{all:?}");
    for (exec, number, at) in exited {
        let (_, began, began_at) = started.iter().find(|(id, ..)| *id == exec).expect("its beginning");
        assert!(*began < number && *began_at <= at, "{exec}: {began_at:?} {at:?}");
    }
    let five = output(&d, &["events", "--since", "5"]);
    assert_eq!(five.status.code(), Some(2), "{five:?}");
    assert!(String::from_utf8_lossy(&five.stderr).contains("5s"), "{five:?}");
}

/// What somebody stumbled over.
async fn small_things(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sleeper("web").memory(64 << 20);
    good(&d, &["run", "-d", "--id", "web", "--log-format", "none", path(&b)]);
    let container = &json(&d, &["inspect", "web"])[0];
    assert_eq!(container["limits"]["memory"], 64 << 20, "{container}");
    let shim = container["shim_pid"].as_u64().expect("a pid");
    let title = std::fs::read(format!("/proc/{shim}/cmdline")).expect("cmdline");
    assert!(
        title.starts_with(b"berth-shim default/web\0"),
        "{}",
        String::from_utf8_lossy(&title)
    );
    let said = |args: &[&str]| String::from_utf8_lossy(&output(&d, args).stderr).into_owned();
    assert!(said(&["logs", "web"]).contains("keeps no log"));
    let refusal = said(&["rm", "web"]);
    assert!(
        refusal.contains("berth stop web") && !refusal.contains("delete"),
        "{refusal}"
    );
    let mut usage = Command::new(binary("berth"));
    usage.env("BERTH_ADDRESS", d.socket()).arg("stop");
    let usage = usage.output().expect("berth");
    assert!(
        !String::from_utf8_lossy(&usage.stderr).contains("--address"),
        "{usage:?}"
    );
    let mut listed = Command::new(binary("berth"));
    listed.env("BERTH_ADDRESS", d.socket()).args(["ps", "-q"]);
    assert_eq!(listed.output().expect("berth").stdout, b"web\n");
    assert!(good(&d, &["help", "run"]).contains("--restart"));

    // Who comes without an input does not end the process's.
    let b = d.sh("cat", "cat; echo ended > /out/ended");
    good(&d, &["run", "-d", "-i", "--id", "cat", path(&b)]);
    let mut attached = berth(&d, &["attach", "cat"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("berth attach");
    let mut typing = berth(&d, &["attach", "cat"]);
    let mut typing = typing
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("berth attach");
    std::io::Write::write_all(&mut typing.stdin.take().expect("stdin"), b"line\n").expect("write");
    assert_eq!(b.line("ended").await, "ended");
    typing.wait().expect("it ends with the process");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut attached.stdout.take().expect("stdout"), &mut text).expect("read");
    assert!(attached.wait().expect("attach").success());
    let _ = text;
}

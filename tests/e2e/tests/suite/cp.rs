//! `berth cp`: both ways, by the rules of cp, and against containers that would like to see it go elsewhere.
use berth_e2e::daemon::binary;
use berth_e2e::{Bundle, Daemon, Runtime, fifo, v1};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cp(d: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(binary("berth"));
    command.arg("--address").arg(d.socket()).arg("cp").args(args);
    command.stdin(Stdio::null()).current_dir(&d.dir);
    command
}

fn output(d: &Daemon, args: &[&str]) -> Output {
    cp(d, args).output().expect("berth cp")
}

fn good(d: &Daemon, args: &[&str]) {
    let output = output(d, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
}

fn refused(d: &Daemon, args: &[&str]) -> String {
    let output = output(d, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn read(d: &Daemon, path: &str) -> String {
    fs::read_to_string(d.dir.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back() {
    let d = Daemon::start(Runtime::Embedded).await;
    d.run(&d.sleeper("c")).await;
    let tree = d.dir.join("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("folders");
    fs::write(tree.join("deep/er/file"), "text\n").expect("a file");
    fs::write(tree.join("tool"), "#!/bin/sh\n").expect("a file");
    fs::set_permissions(tree.join("tool"), fs::Permissions::from_mode(0o750)).expect("mode");
    symlink("deep/er/file", tree.join("link")).expect("a link");
    let long = "n".repeat(200);
    fs::write(tree.join(&long), vec![7; 300_000]).expect("a file");
    good(&d, &["tree", "c:/tmp"]);
    good(&d, &["c:/tmp/tree", "back"]);
    good(&d, &["c:tmp/tree/.", "back"]);
    assert_eq!(read(&d, "back/deep/er/file"), "text\n");
    let back = d.dir.join("back");
    assert_eq!(fs::metadata(back.join("tool")).expect("tool").mode() & 0o7777, 0o750);
    assert_eq!(
        fs::read_link(back.join("link")).expect("link"),
        Path::new("deep/er/file")
    );
    assert_eq!(fs::read(back.join(&long)).expect("long"), vec![7; 300_000]);
    assert_eq!(
        fs::metadata(tree.join("tool")).expect("tool").mtime(),
        fs::metadata(back.join("tool")).expect("tool").mtime()
    );
    // One file, over itself, and by the link to it.
    good(&d, &["tree/deep/er/file", "c:/tmp/file"]);
    good(&d, &["c:/tmp/file", "."]);
    good(&d, &["c:/tmp/file", "file"]);
    good(&d, &["-L", "c:/tmp/tree/link", "followed"]);
    assert_eq!(
        (read(&d, "file"), read(&d, "followed")),
        ("text\n".into(), "text\n".into())
    );
    // Streams.
    let tar = d.dir.join("tar");
    let mut packing = cp(&d, &["c:/tmp/tree/deep", "-"]);
    packing.stdout(fs::File::create(&tar).expect("a file"));
    assert!(packing.status().expect("berth cp").success());
    let listed = Command::new("tar").arg("-tf").arg(&tar).output().expect("tar");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let listed: Vec<_> = listed.lines().map(|line| line.trim_end_matches('/')).collect();
    assert_eq!(listed, ["deep", "deep/er", "deep/er/file"]);
    let mut unpacking = cp(&d, &["-", "c:/out"]);
    unpacking.stdin(fs::File::open(&tar).expect("the stream"));
    assert!(unpacking.status().expect("berth cp").success());
    good(&d, &["c:/out/deep/er/file", "streamed"]);
    assert_eq!(read(&d, "streamed"), "text\n");
    // What is wrong is said.
    assert!(refused(&d, &["c:/no/such", "x"]).contains("/no/such"));
    assert!(refused(&d, &["no-such", "c:/tmp"]).contains("no-such"));
    assert!(refused(&d, &["tree", "c:/tmp/file"]).contains("over a file"));
    assert!(refused(&d, &["file", "c:/bin/new"]).contains("Read-only"));
    assert!(!d.dir.join("x").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_that_has_ended_and_of_one_with_users_of_its_own() {
    let d = Daemon::start(Runtime::Embedded).await;
    d.run_to_end(&d.sh("ended", "exit 0")).await;
    good(&d, &["ended:/etc/passwd", "passwd"]);
    assert!(read(&d, "passwd").contains("alice"));
    let waits = "read go < /out/go; cp /tmp/mine /tmp/yours; stat -c %u:%g /tmp/mine > /out/owner; exec sleep 1000";
    let mapped = d.sh("mapped", waits).own_users();
    fifo::make(&mapped.out("go"));
    fs::set_permissions(mapped.out("go"), fs::Permissions::from_mode(0o666)).expect("mode");
    fs::set_permissions(mapped.dir.join("out"), fs::Permissions::from_mode(0o777)).expect("mode");
    d.run(&mapped).await;
    good(&d, &["passwd", "mapped:/tmp/mine"]);
    fs::write(mapped.out("go"), "go\n").expect("go");
    assert_eq!(mapped.line("owner").await, "0:0");
    good(&d, &["-a", "mapped:/tmp/yours", "yours"]);
    assert_eq!(
        fs::metadata(d.dir.join("yours")).expect("yours").uid(),
        0,
        "numbers are the container's"
    );
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces")
}

/// Links that lead up and out end at the container's own root, and links of the kernel's are not followed at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_link_leads_out() {
    let d = Daemon::start(Runtime::Embedded).await;
    // It sees the host's processes, and so the way to the host's root.
    let b = d
        .sleeper("c")
        .edit(|c| namespaces(c).retain(|one| one["type"] != "pid"));
    d.run(&b).await;
    fs::write(d.dir.join("secret"), "of the host").expect("a file");
    let secret = d.dir.join("secret");
    let host = secret.to_str().expect("utf-8");
    for (name, target) in [
        ("up", format!("../../../../../../../../..{host}")),
        ("absolute", host.to_owned()),
        ("magic", format!("/proc/1/root{host}")),
        ("folder", "/proc/1/root/tmp".to_owned()),
        ("passwd", "/etc/passwd".to_owned()),
    ] {
        symlink(target, b.out(name)).expect("a link");
    }
    for name in ["up", "absolute", "magic"] {
        refused(&d, &["-L", &format!("c:/out/{name}"), "got"]);
        assert!(!d.dir.join("got").exists(), "{name}");
    }
    refused(&d, &[&format!("c:/proc/1/root{host}"), "got"]);
    refused(&d, &["secret", "c:/out/folder/berth-cp-e2e"]);
    refused(&d, &["secret", "c:/proc/1/root/tmp/berth-cp-e2e"]);
    assert!(!Path::new("/tmp/berth-cp-e2e").exists());
    good(&d, &["-L", "c:/out/passwd", "got"]);
    assert!(read(&d, "got").contains("alice"), "the container's own");
    // A link as such is a copy of the link, and nothing is put behind it.
    good(&d, &["c:/out/absolute", "link"]);
    assert_eq!(fs::read_link(d.dir.join("link")).expect("link"), secret);
    good(&d, &["c:/etc/passwd", "link"]);
    assert_eq!(read(&d, "secret"), "of the host");
}

/// A folder that is a link to everything a moment later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_changes_all_the_time_leads_nowhere_else() {
    let d = Daemon::start(Runtime::Embedded).await;
    let (inside, outside) = (d.dir.join("inside"), d.dir.join("outside"));
    for folder in [&inside, &outside] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(outside.join("secret"), "of the host").expect("a file");
    // The same path in the container, with nothing in it.
    let host = outside.to_str().expect("utf-8").to_owned();
    let script = format!(
        "mkdir -p /out/a/b; echo mine > /out/a/b/secret; ln -s {host} /out/l; echo up > /out/up; cd /out/a; \
         while :; do mv b c; mv ../l b; mv b ../l; mv c b; done"
    );
    let b = d.sh("c", &script);
    d.run(&b).await;
    b.line("up").await;
    for round in 0..40 {
        let into = format!("got{round}");
        // It may find nothing at some moment.
        let _ = output(&d, &["-L", "c:/out/a/b/.", &into]);
        let got = fs::read_to_string(d.dir.join(&into).join("secret")).unwrap_or_default();
        assert!(matches!(got.as_str(), "" | "mine\n"), "{got}");
        let _ = output(&d, &["inside", "c:/out/a/b/new"]);
    }
    let found: Vec<_> = fs::read_dir(&outside)
        .expect("outside")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(found, ["secret"]);
    assert_eq!(read(&d, "outside/secret"), "of the host");
}

/// A pipe, a socket and a device are no reason to hang or to make a device here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn special_files() {
    let d = Daemon::start(Runtime::Embedded).await;
    let b: Bundle = d.sh(
        "c",
        "mkfifo /out/pipe; echo text > /out/text; echo up > /out/up; sleep 1000",
    );
    d.try_run(v1::ContainerSpec { ..b.spec() }).await.expect("run");
    b.line("up").await;
    good(&d, &["c:/out", "got"]);
    assert_eq!(read(&d, "got/text"), "text\n");
    good(&d, &["c:/dev", "devices"]);
    assert!(d.dir.join("devices").is_dir() && !d.dir.join("devices/null").exists());
    // A kernel's file system is not data.
    good(&d, &["c:/", "all"]);
    assert!(d.dir.join("all/etc/passwd").exists());
    assert_eq!(fs::read_dir(d.dir.join("all/proc")).expect("proc").count(), 0);
}

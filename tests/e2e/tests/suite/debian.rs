//! A real distribution in a container: a debootstrap tree, made once and kept beside the test binary.
use berth_e2e::{Daemon, Runtime, on_all};
use std::path::PathBuf;
use std::process::Command;

on_all!(bash_apt_and_users);

/// Where this host's own apt gets its packages.
fn mirror() -> String {
    let read = |p: PathBuf| std::fs::read_to_string(p).unwrap_or_default();
    let folder = std::fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| read(e.path()));
    let texts: Vec<_> = folder.chain([read("/etc/apt/sources.list".into())]).collect();
    let mut words = texts
        .iter()
        .flat_map(|t| t.lines())
        .filter(|l| !l.starts_with('#'))
        .flat_map(str::split_whitespace);
    let debian = |w: &&str| w.starts_with("http") && w.trim_end_matches('/').ends_with("/debian");
    words.find(debian).unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn tree() -> PathBuf {
    let exe = std::env::current_exe().expect("the test binary");
    let (tree, lock) = (
        exe.with_file_name("e2e-debian-1"),
        exe.with_file_name("e2e-debian.lock"),
    );
    let lock = std::fs::File::create(lock).expect("lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    if !tree.exists() {
        let new = exe.with_file_name("e2e-debian.new");
        let _ = std::fs::remove_dir_all(&new);
        let output = Command::new("debootstrap")
            .args(["--variant=minbase", "stable"])
            .arg(&new)
            .arg(mirror())
            .output();
        let output = output.unwrap_or_else(|e| panic!("debootstrap: {e} (apt-get install -y debootstrap)"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        std::fs::rename(&new, &tree).expect("rename");
    }
    tree
}

async fn bash_apt_and_users(rt: Runtime) {
    let tree = tokio::task::spawn_blocking(tree).await.expect("tree");
    std::fs::create_dir_all(tree.join("out")).expect("mkdir");
    let d = Daemon::start(rt).await;
    let line = "set -e; dpkg --audit; apt-get --version | head -1; perl -e 'print \"perl $<\\n\"'; id -un; sleep 1000 & echo up > /out/up; wait";
    let b = d.bundle("debian", &["/bin/bash", "-c", line]).edit(|c| {
        c["root"]["path"] = tree.to_str().expect("utf-8").into();
        c["process"]["env"] = serde_json::json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    });
    d.run(&b).await;
    b.line("up").await;
    let log = String::from_utf8(d.logs("debian").await).expect("utf-8");
    assert!(log.starts_with("apt ") && log.ends_with("perl 0\nroot\n"), "{log}");
    // A user of the tree's own passwd, by a real login shell.
    let args = ["/bin/bash", "-lc", "id -un; exit 44"];
    let request = berth_e2e::v1::ExecRequest {
        user: "daemon".into(),
        ..berth_e2e::calls::exec_request("debian", "e", &args)
    };
    d.try_exec(request).await.expect("exec");
    assert_eq!(d.wait_exec("debian", "e").await.code, 44);
    assert_eq!(d.stop("debian", 100).await.signal, 9, "bash as pid 1 ignores SIGTERM");
}

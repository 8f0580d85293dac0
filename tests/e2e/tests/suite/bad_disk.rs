//! Full disks: /run and the log's, each a small tmpfs of the test's own.
use berth_e2e::calls::log;
use berth_e2e::daemon::temporary;
use berth_e2e::v1::{self, ContainerState, ErrorCode, LogPolicy, StdioLog};
use berth_e2e::{Options, Runtime, assert_fails, eventually, on_all, proc, until};
use std::path::PathBuf;

on_all!(
    full_run_refuses_and_loses_nothing,
    full_log_disk_blocks,
    full_log_disk_drops_and_counts
);

/// Declare it before the daemon, so that it is dropped after it.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(size: &str) -> Tmpfs {
        let dir = temporary("disk");
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "tmpfs",
            dir.to_str().expect("utf-8"),
        ]);
        Tmpfs(dir)
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}"), self.0.to_str().expect("utf-8")]);
    }

    /// Takes all that is free.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).expect("filler");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn mount(args: &[&str]) {
    assert!(
        std::process::Command::new("mount")
            .args(args)
            .status()
            .expect("mount")
            .success(),
        "mount {args:?}"
    );
}

/// A full state disk refuses new containers; an old one's exit is kept, told, and survives the daemon.
pub async fn full_run_refuses_and_loses_nothing(rt: Runtime) {
    let disk = Tmpfs::new("2m");
    let mut d = Options {
        state: Some(disk.0.join("s")),
        ..Options::new(rt)
    }
    .start()
    .await;
    let b = d.sh("old", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 42");
    d.run(&b).await;
    let during = d.sh("during", "while [ ! -e /out/go ]; do sleep 0.02; done; exit 43");
    let pid = d.run(&during).await;
    let filler = disk.fill();
    assert_fails(
        d.try_run(d.sh("new", "exit 0").spec()).await,
        ErrorCode::Resources,
        &["new"],
    );
    assert!(!d.folder("new").exists());
    std::fs::write(b.out("go"), "").expect("go");
    assert_eq!(d.wait("old").await.code, 42);
    d.kill();
    std::fs::write(during.out("go"), "").expect("go");
    until("it ended", || (!proc::alive(pid)).then_some(())).await;
    d.restart().await;
    assert_eq!(d.wait("old").await.code, 42);
    assert_eq!(d.wait("during").await.code, 43);
    d.try_delete("old", false).await.expect("delete works on a full disk");
    std::fs::remove_file(filler).expect("make room");
    assert_eq!(d.run_to_end(&d.sh("new", "exit 7")).await.code, 7);
    d.check_exits().await;
}

const BYTES: usize = 1_000_000;

fn noisy(policy: LogPolicy) -> v1::Stdio {
    log(StdioLog {
        policy: policy.into(),
        max_files: 1000,
        ..Default::default()
    })
}

async fn log_bytes(d: &berth_e2e::Daemon, id: &str) -> usize {
    d.logs(id).await.len()
}

/// Block: the container waits for room, and then every byte is there.
pub async fn full_log_disk_blocks(rt: Runtime) {
    let disk = Tmpfs::new("256k");
    let d = Options {
        root: Some(disk.0.join("r")),
        ..Options::new(rt)
    }
    .start()
    .await;
    let b = d
        .sh("noisy", &format!("yes 0123456789abcde | head -c {BYTES}; exit 3"))
        .stdio(noisy(LogPolicy::Block));
    d.run(&b).await;
    until("the disk is full", || {
        let stat = rustix::fs::statvfs(&disk.0).ok()?;
        // The last batch did not fit, and what is left is less than one: never enough for all.
        (stat.f_bavail * stat.f_frsize <= 128 << 10).then_some(())
    })
    .await;
    assert_eq!(d.get("noisy").await.state(), ContainerState::Running, "it waits");
    d.exec("noisy", "e", "exit 5").await;
    assert_eq!(d.wait_exec("noisy", "e").await.code, 5);
    disk.resize("8m");
    assert_eq!(d.wait("noisy").await.code, 3);
    assert_eq!(log_bytes(&d, "noisy").await, BYTES);
    assert_eq!(d.get("noisy").await.log_dropped_bytes, 0);
}

/// Drop: the container goes on, and what was lost is counted.
pub async fn full_log_disk_drops_and_counts(rt: Runtime) {
    let disk = Tmpfs::new("256k");
    let d = Options {
        root: Some(disk.0.join("r")),
        ..Options::new(rt)
    }
    .start()
    .await;
    let b = d
        .sh("noisy", &format!("yes 0123456789abcde | head -c {BYTES}; exit 3"))
        .stdio(noisy(LogPolicy::Drop));
    assert_eq!(d.run_to_end(&b).await.code, 3);
    let dropped = eventually("the loss is counted", || async {
        let dropped = d.get("noisy").await.log_dropped_bytes;
        (dropped > 0).then_some(dropped)
    })
    .await;
    let kept = log_bytes(&d, "noisy").await;
    assert!(kept > 0);
    assert_eq!(kept + dropped as usize, BYTES, "{kept} kept");
}

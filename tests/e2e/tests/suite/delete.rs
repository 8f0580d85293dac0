//! Deleting what does not want to go: it is answered at once what is left, and the rest is done in the background.
use berth_e2e::daemon::temporary;
use berth_e2e::v1::{self, ErrorCode};
use berth_e2e::{Daemon, Runtime, assert_fails, on_all, proc, until};
use std::path::{Path, PathBuf};
use std::process::Command;

on_all!(
    process_in_uninterruptible_sleep,
    cgroup_frozen_by_somebody_else,
    callers_mounts_stay,
    foreign_process_in_the_cgroup,
    cleaning_up_after_an_earlier_one_spares_the_next,
);

fn host(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A file system that can be frozen: whoever writes to it then sleeps and can't be killed. Declare it before the daemon.
struct Freezable {
    dir: PathBuf,
}

impl Freezable {
    fn new() -> Freezable {
        let dir = temporary("ice");
        let image = dir.join("image");
        let fs = Freezable { dir };
        let (image, mounted) = (image.to_str().expect("utf-8"), fs.mounted());
        std::fs::create_dir(&mounted).expect("mkdir");
        host("mke2fs", &["-q", "-t", "ext4", image, "8m"]);
        host("mount", &["-o", "loop", image, mounted.to_str().expect("utf-8")]);
        fs
    }

    fn mounted(&self) -> PathBuf {
        self.dir.join("fs")
    }

    fn freeze(&self, how: &str) {
        host("fsfreeze", &[how, self.mounted().to_str().expect("utf-8")]);
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        // Not frozen any more if all went well.
        let _ = Command::new("fsfreeze").arg("-u").arg(self.mounted()).output();
        let _ = Command::new("umount").arg(self.mounted()).output();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The id is free at once, what is left is named, and it goes when the kernel lets it.
async fn process_in_uninterruptible_sleep(rt: Runtime) {
    let ice = Freezable::new();
    let d = Daemon::start(rt).await;
    let b = d.sh("stuck", "echo up > /out/up; while [ ! -e /out/go ]; do sleep 0.02; done; exec dd if=/dev/zero of=/tmp/file bs=4k count=1");
    let source = ice.mounted();
    let b = b.edit(|c| {
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != "/tmp");
        mounts.push(
            serde_json::json!({ "destination": "/tmp", "type": "bind", "source": source, "options": ["bind", "rw"] }),
        );
    });
    let pid = d.run(&b).await;
    b.line("up").await;
    ice.freeze("-f");
    std::fs::write(b.out("go"), "").expect("go");
    until("it sleeps for good", || (proc::state(pid)? == "D").then_some(())).await;
    let deleted = d.delete("stuck").await;
    assert!(deleted.pending, "{deleted:?}");
    assert!(
        deleted.message.contains(&pid.to_string()) || deleted.message.contains("stuck"),
        "{deleted:?}"
    );
    assert_fails(d.try_get("stuck").await, ErrorCode::NotFound, &["stuck"]);
    assert!(proc::alive(pid), "nothing can kill it");
    assert_eq!(d.run_to_end(&d.sh("other", "exit 2")).await.code, 2);
    ice.freeze("-u");
    until("it is gone", || (!proc::alive(pid)).then_some(())).await;
    until("the rest is done in the background", || {
        d.leftovers()
            .cgroups
            .iter()
            .all(|c| !c.ends_with("stuck"))
            .then_some(())
    })
    .await;
}

fn freezer(pid: u32) -> (PathBuf, &'static str, &'static str) {
    let dirs = proc::cgroup_dirs(pid);
    match dirs.iter().find(|d| d.starts_with("/sys/fs/cgroup/freezer")) {
        Some(dir) => (dir.join("freezer.state"), "FROZEN", "THAWED"),
        None => (dirs[0].join("cgroup.freeze"), "1", "0"),
    }
}

/// Frozen behind Berth's back: force kills it all the same.
async fn cgroup_frozen_by_somebody_else(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("cold")).await;
    let (file, frozen, _) = freezer(pid);
    std::fs::write(file, frozen).expect("freeze");
    let deleted = d.delete("cold").await;
    assert!(!deleted.pending, "{deleted:?}");
    until("it is gone", || (!proc::alive(pid)).then_some(())).await;
}

fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().any(|l| l.split(' ').nth(4) == path.to_str())
}

/// The rootfs that the caller mounted is the caller's.
async fn callers_mounts_stay(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let b = d.sh("mounted", "exit 0");
    let root = b.dir.join("rootfs");
    std::fs::create_dir(&root).expect("mkdir");
    host(
        "mount",
        &[
            "--bind",
            berth_e2e::bundle::rootfs().to_str().expect("utf-8"),
            root.to_str().expect("utf-8"),
        ],
    );
    let b = b.edit(|c| c["root"]["path"] = "rootfs".into());
    d.run_to_end(&b).await;
    d.delete("mounted").await;
    assert!(is_mounted(&root));
    host("umount", &[root.to_str().expect("utf-8")]);
}

/// What somebody put into the container's cgroup is a process of it and goes with it.
async fn foreign_process_in_the_cgroup(rt: Runtime) {
    let d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("crowd")).await;
    let mut guest = Command::new("sleep").arg("1000").spawn().expect("sleep");
    for dir in proc::cgroup_dirs(pid) {
        std::fs::write(dir.join("cgroup.procs"), guest.id().to_string()).expect("move in");
    }
    let request = v1::DeleteRequest {
        id: "crowd".into(),
        force: true,
        ..Default::default()
    };
    let deleted = d.api().delete(request).await.expect("delete").into_inner();
    let gone = until("it is killed, or named", || {
        Some(guest.try_wait().ok()?.is_some() || deleted.pending)
    })
    .await;
    let _ = guest.kill();
    guest.wait().expect("wait");
    assert!(gone);
}

/// What is left of a deleted container has the cgroup's name and the runtime's in common with the next one of its id.
pub async fn cleaning_up_after_an_earlier_one_spares_the_next(rt: Runtime) {
    let mut d = Daemon::start(rt).await;
    let pid = d.run(&d.sleeper("again")).await;
    d.terminate().await;
    // As a daemon leaves it that dies when the folder has been renamed and something resists still.
    let earlier = format!("{}~{}", d.folder("again").display(), "0f".repeat(16));
    std::fs::create_dir(&earlier).expect("folder");
    let record = d.folder("again").join("container.json");
    std::fs::copy(record, Path::new(&earlier).join("container.json")).expect("record");
    d.restart().await;
    until("the cleaner looked", || {
        let log = d.log();
        (log.contains("its id is in use again") || log.contains("is gone now")).then_some(())
    })
    .await;
    assert!(proc::alive(pid), "the next container was killed");
    d.delete("again").await;
    until("what was left is gone", || {
        (!Path::new(&earlier).exists()).then_some(())
    })
    .await;
}

//! The public attacks on container runtimes, each kept out by a guard of berth-oci and let in when that guard is taken away.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Stdio;

use berth_conformance::attack::{Stage, guards, while_swapping};
use serde_json::json;

/// Leaves a descriptor of the host's folder open over the execve of berth-oci, as a caller that forgot it would.
fn with_leak(stage: &Stage, flags: &[&str]) -> String {
    let bundle = stage.bundle();
    let mut args = vec!["run", "--bundle", &bundle];
    args.extend(flags);
    args.push("c");
    let command = stage.command(&args);
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!(
        "exec 3<{}; exec \"$@\"",
        stage.folder.join("outside").display()
    ));
    shell.arg("sh").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let ran = stage.finish(shell);
    ran.out + &ran.err
}

/// CVE-2016-9962, CVE-2024-21626: a descriptor that the caller left open is open in the container.
#[test]
fn descriptors_leaked_into_the_container() {
    guards("descriptors", |stage| {
        stage.config("cat /proc/self/fd/*/secret", &json!({}));
        with_leak(stage, &[]).contains("the host's secret")
    });
}

/// CVE-2024-21626: the working folder is one of the host's, by way of a descriptor.
#[test]
fn working_folder_by_a_descriptor() {
    guards("cwd", |stage| {
        stage.config("cat secret", &json!({"process": {"cwd": "/proc/self/fd/3"}}));
        with_leak(stage, &["--preserve-fds", "1"]).contains("the host's secret")
    });
}

/// CVE-2016-9962: what is on its way into the container can be taken apart by who is there.
#[test]
fn descriptors_of_a_process_on_its_way() {
    guards("hidden", |stage| {
        stage.config("true", &json!({}));
        let bundle = stage.bundle();
        let mut create = stage.command(&["create", "--bundle", &bundle, "c"]);
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(create.status().expect("berth-oci runs").success());
        let seen = stage.call(&["exec", "c", "/bin/readlink", "/proc/1/exe"]);
        let _ = stage.call(&["delete", "--force", "c"]);
        seen.ok && seen.out.contains("berth-oci")
    });
}

/// CVE-2019-5736: the container runs the runtime's own program, holds it open, and writes it when it is idle.
#[test]
fn overwriting_the_runtime() {
    const ATTACKER: &str = r#"
        mkfifo /tmp/config.json
        echo ready
        while :; do
            for process in /proc/[0-9]*; do
                case $(readlink $process/exe) in *berth-oci*) exec 9<$process/exe && break 2 ;; esac
            done
        done
        echo wrong >/tmp/config.json
        for try in $(/bin/busybox seq 300); do
            (echo overwritten >/proc/self/fd/9) 2>/dev/null && break
            /bin/busybox usleep 10000
        done
        echo done
        sleep 100"#;
    guards("own-file", |stage| {
        stage.config(ATTACKER, &json!({"process": {"env": stage.environment()}}));
        let bundle = stage.bundle();
        let mut attacker = stage
            // Detached: a runtime of the attacker's own that waits would keep its program from being written.
            .command(&["run", "--detach", "--bundle", &bundle, "c"])
            .spawn()
            .expect("berth-oci runs");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(attacker.stdout.take().expect("piped")));
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("ready"));
        // The victim: somebody starts what the container offers as its program. It waits for the FIFO.
        let _ = stage.call(&[
            "exec",
            "c",
            "/proc/self/exe",
            "--root",
            "/tmp/s",
            "run",
            "--bundle",
            "/tmp",
            "x",
        ]);
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("done"));
        let now = fs::read(stage.program()).expect("berth-oci");
        let _ = attacker.kill();
        let _ = attacker.wait();
        // Whatever became of it, the stage needs it to tidy up.
        let overwritten = now.starts_with(b"overwritten");
        let whole = berth_conformance::bench::runtimes();
        fs::copy(&whole[0].program, stage.program().with_extension("new")).expect("copied");
        fs::rename(stage.program().with_extension("new"), stage.program()).expect("renamed");
        let _ = stage.call(&["delete", "--force", "c"]);
        overwritten
    });
}

/// A volume of the attacker's as /dev, its null device and terminals real but for what is done to it.
fn own_dev(stage: &Stage) -> serde_json::Value {
    let dev = stage.folder.join("vol");
    for folder in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(folder)).expect("a folder");
    }
    let _ = fs::remove_file(dev.join("null"));
    let made = std::process::Command::new("mknod")
        .arg(dev.join("null"))
        .args(["c", "1", "3"])
        .status();
    assert!(made.is_ok_and(|made| made.success()));
    json!({"mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": "@DIR@/vol", "options": ["bind"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
    ]})
}

/// CVE-2025-31133: what covers a masked path is a null device of the attacker's making.
#[test]
fn masked_by_a_false_null_device() {
    guards("mask-null", |stage| {
        let dev = own_dev(stage);
        let _ = fs::remove_file(stage.folder.join("vol/null"));
        symlink("/etc/passwd", stage.folder.join("vol/null")).expect("a link");
        stage.config("cat /proc/keys", &dev);
        stage.run(&[]).out.contains("root:x:0:0")
    });
}

/// The same as a race: the device is real half of the time.
#[test]
fn masked_by_a_null_device_that_is_swapped() {
    let stage = Stage::new("mask-race", None);
    let dev = own_dev(&stage);
    let (null, other) = (stage.folder.join("vol/null"), stage.folder.join("vol/other"));
    symlink("/etc/passwd", &other).expect("a link");
    stage.config("cat /proc/keys", &dev);
    let seen = while_swapping(&null, &other, || {
        (0..20).map(|_| stage.run(&[]).out).collect::<Vec<_>>()
    });
    assert!(seen.iter().all(String::is_empty), "{seen:?}");
}

/// CVE-2025-52565, CVE-2026-88264: /dev/console is a link, and the terminal covers what it points to.
#[test]
fn console_that_is_a_link() {
    guards("console", |stage| {
        let mut changes = own_dev(stage);
        changes["process"] = json!({"terminal": true});
        let _ = fs::remove_file(stage.folder.join("vol/console"));
        symlink("../etc/passwd", stage.folder.join("vol/console")).expect("a link");
        stage.config("cat /proc/self/mountinfo", &changes);
        let ran = stage.run_with_terminal();
        ran.out
            .lines()
            .any(|line| line.split(' ').nth(4) == Some("/etc/passwd"))
    });
}

/// CVE-2025-52881: a write for /proc lands in a file of the attacker's choice.
#[test]
fn procfs_write_redirected() {
    guards("procfs", |stage| {
        let core = stage.folder.join("vol");
        let _ = fs::remove_file(core.join("somaxconn"));
        fs::write(core.join("target"), "untouched").expect("a file");
        symlink("target", core.join("somaxconn")).expect("a link");
        stage.config(
            "true",
            &json!({
                "mounts+": [{"destination": "/proc/sys/net/core", "type": "bind", "source": "@DIR@/vol", "options": ["bind"]}],
                "linux": {
                    "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                    "sysctl": {"net.core.somaxconn": "99"},
                },
            }),
        );
        let _ = stage.run(&[]);
        fs::read_to_string(core.join("target"))
            .expect("a file")
            .starts_with("99")
    });
}

/// CVE-2019-16884, CVE-2023-28642: what /proc is trusted for is covered by a mount of the image's choice.
#[test]
fn proc_covered_by_a_mount() {
    guards("proc-targets", |stage| {
        let cover = json!([{"destination": "/proc/tty", "type": "bind", "source": "@DIR@/vol", "options": ["bind"]}]);
        stage.config("echo started", &json!({"mounts+": cover}));
        stage.run(&[]).out.contains("started")
    });
}

/// A mount below a folder that is a link to the host's.
fn mount_below_the_link(stage: &Stage) {
    stage.config(
        "true",
        &json!({"mounts+": [
            {"destination": "/shared", "type": "bind", "source": "@DIR@/vol", "options": ["rbind"]},
            {"destination": "/shared/there/made", "type": "tmpfs", "source": "tmpfs"},
        ]}),
    );
}

/// CVE-2021-30465, CVE-2024-45310: a mount's target leads out of the root filesystem.
#[test]
fn mount_target_that_is_a_link() {
    guards("in-root", |stage| {
        let _ = fs::remove_file(stage.folder.join("vol/there"));
        symlink(stage.folder.join("outside"), stage.folder.join("vol/there")).expect("a link");
        mount_below_the_link(stage);
        let _ = stage.run(&[]);
        stage.folder.join("outside/made").exists()
    });
}

/// The same as a race: somebody who shares the volume exchanges a folder and a link while the runtime works.
#[test]
fn mount_target_that_is_swapped() {
    let stage = Stage::new("target-race", None);
    let (there, other) = (stage.folder.join("vol/there"), stage.folder.join("vol/other"));
    fs::create_dir(&there).expect("a folder");
    symlink(stage.folder.join("outside"), &other).expect("a link");
    mount_below_the_link(&stage);
    while_swapping(&there, &other, || {
        for _ in 0..20 {
            let _ = stage.run(&[]);
        }
    });
    assert!(!stage.folder.join("outside/made").exists(), "made on the host");
}

/// CVE-2019-19921, CVE-2023-27561: /proc is a link, and the real one is elsewhere.
#[test]
fn proc_that_is_a_link() {
    guards("plain-proc", |stage| {
        fs::remove_dir(stage.root().join("proc")).expect("removed");
        fs::create_dir(stage.root().join("tmp/elsewhere")).expect("a folder");
        symlink("tmp/elsewhere", stage.root().join("proc")).expect("a link");
        stage.config("cat /tmp/elsewhere/self/status", &json!({}));
        stage.run(&[]).out.contains("Uid:")
    });
}

/// CVE-2026-88265 and its kin: through a null device of the host's the container could change the host's.
#[test]
fn null_device_of_the_host() {
    guards("own-null", |stage| {
        let host = fs::metadata("/dev/null").expect("/dev/null");
        stage.config("stat -L -c %d:%i /proc/self/fd/0", &json!({}));
        let bundle = stage.bundle();
        let mut command = stage.command(&["run", "--bundle", &bundle, "c"]);
        command.stdin(Stdio::null());
        // `output` leaves a stdin that was chosen alone.
        stage.finish(command).out.trim() == format!("{}:{}", host.dev(), host.ino())
    });
}

/// And what is no null device stays what it is, whatever the root filesystem's /dev/null may be.
#[test]
fn pipes_stay_pipes() {
    let stage = Stage::new("pipes", None);
    stage.config("readlink /proc/self/fd/0; readlink /proc/self/fd/1", &json!({}));
    let ran = stage.run(&[]);
    assert!(
        ran.out.lines().count() == 2 && ran.out.lines().all(|line| line.starts_with("pipe:")),
        "{ran:?}"
    );
}

/// CRI-O GO-2024-2458: the container's cgroup is outside of the one that its limits are on.
#[test]
fn cgroup_path_that_leaves() {
    guards("cgroup-path", |stage| {
        stage.config(
            "cat /proc/self/cgroup",
            &json!({"linux": {"cgroupsPath": "/@PARENT@/../@PARENT@-other"}}),
        );
        stage.run(&[]).out.contains("-other")
    });
}

/// CVE-2022-0492, CVE-2023-25809: the container writes to cgroups, its own or above.
#[test]
fn cgroups_are_read_only_where_the_config_says_so() {
    let stage = Stage::new("cgroup-ro", None);
    let script = "for d in /sys/fs/cgroup/*/; do touch $d/x && echo written $d; /bin/busybox mkdir $d/y && echo made $d; done; true";
    for namespaces in [json!([]), json!([{"type": "cgroup"}])] {
        let mut all = json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
        all.as_array_mut()
            .expect("a list")
            .extend(namespaces.as_array().expect("a list").iter().cloned());
        stage.config(script, &json!({"linux": {"namespaces": all}}));
        let ran = stage.run(&[]);
        assert!(ran.ok && ran.out.is_empty(), "{ran:?}");
    }
}

/// CVE-2022-0811: a sysctl of the host's own. It is given the value that it has.
#[test]
fn sysctl_of_the_host() {
    guards("sysctl", |stage| {
        let now = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a sysctl");
        stage.config(
            "echo started",
            &json!({"linux": {"sysctl": {"kernel.core_pattern": now.trim()}}}),
        );
        stage.run(&[]).out.contains("started")
    });
}

/// containerd GO-2026-5475: a file of the root filesystem without an end is read to its end.
#[test]
fn passwd_without_an_end() {
    guards("bounded", |stage| {
        let passwd = stage.root().join("etc/passwd");
        let mut text = vec![b'#'; 3 << 20];
        text.extend_from_slice(b"\nu:x:1000:1000::/home/at-the-end:/bin/sh\n");
        fs::write(passwd, text).expect("written");
        stage.config("echo $HOME", &json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
        stage.run(&[]).out.contains("at-the-end")
    });
}

/// And a FIFO in its place holds nobody.
#[test]
fn passwd_that_is_a_fifo() {
    let stage = Stage::new("fifo", None);
    let passwd = stage.root().join("etc/passwd");
    fs::remove_file(&passwd).expect("removed");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&passwd)
            .status()
            .is_ok_and(|made| made.success())
    );
    stage.config("echo started", &json!({}));
    assert!(stage.run(&[]).out.contains("started"));
}

/// CVE-2021-43784 and its kin: a config.json of absurd size is refused before anything is made.
#[test]
fn config_of_absurd_size() {
    let stage = Stage::new("huge", None);
    stage.config("true", &json!({"annotations": {"a": "b".repeat(17 << 20)}}));
    let ran = stage.run(&[]);
    assert!(
        !ran.ok && ran.err.contains("too large"),
        "{:?}",
        ran.err.chars().take(300).collect::<String>()
    );
}

/// NVIDIA CVE-2025-23266: a hook gets neither the container's environment nor the runtime's.
#[test]
fn hooks_get_their_own_environment_only() {
    let stage = Stage::new("hook-env", None);
    let hook = json!([{"path": "/usr/bin/env", "args": ["sh", "-c", "env > @DIR@/outside/env"], "env": ["PATH=/bin:/usr/bin", "MINE=1"]}]);
    let hook_sh = json!([{"path": "/bin/sh", "args": hook[0]["args"], "env": hook[0]["env"]}]);
    stage.config(
        "true",
        &json!({"process": {"env": ["PATH=/bin", "LD_PRELOAD=/evil.so"]}, "hooks": {"createRuntime": hook_sh, "createContainer": hook_sh}}),
    );
    let bundle = stage.bundle();
    let mut command = stage.command(&["run", "--bundle", &bundle, "c"]);
    command.env("OF_THE_RUNTIME", "1");
    assert!(stage.finish(command).ok);
    let env = fs::read_to_string(stage.folder.join("outside/env")).expect("the hook ran");
    assert!(
        env.contains("MINE=1") && !env.contains("LD_PRELOAD") && !env.contains("OF_THE_RUNTIME"),
        "{env}"
    );
}

/// crun CVE-2026-115521: a read-only root is read-only after all, also below what was mounted on the way.
#[test]
fn read_only_root_is_read_only() {
    let stage = Stage::new("ro-root", None);
    stage.config(
        "for d in / /etc /bin /mnt /vol; do touch $d/x && echo written $d; done; true",
        &json!({"root": {"readonly": true}}),
    );
    let ran = stage.run(&[]);
    assert!(ran.ok && ran.out.is_empty(), "{ran:?}");
    assert!(!Path::new(&stage.root()).join("x").exists());
}

/// CVE-2019-16884, CVE-2023-28642: a label that can't be had must not be left out.
#[test]
fn label_is_applied_or_refused() {
    let stage = Stage::new("label", None);
    for changes in [
        json!({"process": {"apparmorProfile": "no-such-profile"}}),
        json!({"process": {"selinuxLabel": "a:b:c:s0"}}),
    ] {
        stage.config("echo started", &changes);
        let ran = stage.run(&[]);
        assert!(!ran.ok && !ran.out.contains("started"), "{ran:?}");
    }
}

/// Two leaks at once are as little: nothing but 0, 1 and 2 is open in the container.
#[test]
fn nothing_is_open_but_the_standard_descriptors() {
    let stage = Stage::new("fds", None);
    let kept = fs::File::open("/").expect("/");
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).expect("kept over execve");
    stage.config("for f in /proc/self/fd/*; do echo ${f##*/}; done", &json!({}));
    let ran = stage.run(&[]);
    // The shell's own look at the folder is a descriptor too.
    let open: Vec<&str> = ran.out.split_whitespace().filter(|number| *number != "3").collect();
    assert_eq!(open, ["0", "1", "2"], "while {} was open", kept.as_raw_fd());
}

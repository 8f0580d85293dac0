//! The command driver with the runtimes that are installed: runc and crun. Needs root, cgroups and busybox.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use berth_core::ErrorCode;
use berth_runtime::{
    Bundle, Call, Command, CreateArgs, Driver, Error, ExecArgs, Overrides, State, Status, Stdio, exec_process,
};
use berth_sys::{
    file::dev_null,
    process::{self, Ended},
};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A bundle with busybox, and a runtime's root, both gone afterwards.
struct Place {
    path: PathBuf,
    driver: Command,
    id: String,
}

impl Place {
    fn new(binary: &Path) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "berth-rt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(&id);
        let bin = path.join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).expect("rootfs");
        for folder in ["proc", "dev", "tmp"] {
            fs::create_dir(path.join("bundle/rootfs").join(folder)).expect("rootfs");
        }
        fs::create_dir(path.join("work")).expect("work");
        fs::copy("/usr/bin/busybox", bin.join("busybox"))
            .or_else(|_| fs::copy("/bin/busybox", bin.join("busybox")))
            .expect("busybox");
        for applet in ["sh", "sleep", "cat", "id", "env"] {
            symlink("busybox", bin.join(applet)).expect("link");
        }
        fs::write(bin.join("plain"), "no program").expect("file");
        process::set_child_subreaper().expect("subreaper");
        let driver = Command {
            binary: binary.to_owned(),
            root: path.join("root"),
            ..Command::default()
        };
        let place = Place { path, driver, id };
        place.configure(&["sleep", "1000"]);
        place
    }

    fn bundle(&self) -> PathBuf {
        self.path.join("bundle")
    }

    fn configure(&self, args: &[&str]) {
        let config = json!({
            "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "hostname": "test",
            "process": {
                "args": args, "cwd": "/", "env": ["PATH=/bin", "A=init"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                "resources": {"memory": {"limit": 64 << 20}},
            },
        });
        fs::write(self.bundle().join("config.json"), config.to_string()).expect("config");
    }

    fn call(&self) -> Call<'_> {
        Call {
            id: &self.id,
            work: Path::new("/"),
            timeout: TIMEOUT,
        }
    }

    fn create(&self) -> Result<u32, Error> {
        let null = dev_null().expect("null");
        self.create_with([null.as_fd(); 3])
    }

    fn create_with(&self, [stdin, stdout, stderr]: [std::os::fd::BorrowedFd<'_>; 3]) -> Result<u32, Error> {
        let work = self.path.join("work");
        let call = Call {
            work: &work,
            ..self.call()
        };
        let stdio = Stdio::Fds { stdin, stdout, stderr };
        Ok(self
            .driver
            .create(&CreateArgs {
                call,
                bundle: &self.bundle(),
                config: None,
                stdio,
            })?
            .pid)
    }

    /// A forced delete would do, but a runtime waits for the init to be reaped, which here nobody else does.
    fn end(&self, pid: u32) {
        self.driver.kill_all(&self.call(), 9).expect("kill");
        // Orphans too, as the shim does: an init ends only when all of its pid namespace were reaped.
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match process::peek().expect("peek") {
                Some((ended, _)) => {
                    process::reap(ended).expect("reap");
                    if ended == pid {
                        break;
                    }
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < deadline, "the init lives");
        }
        self.driver.delete(&self.call(), true).expect("delete");
    }

    fn exec(&self, overrides: &Overrides) -> Result<(u32, String), Error> {
        let bundle = Bundle::load(&self.bundle(), false).expect("bundle");
        let process = exec_process(bundle.process(), overrides, false, None)?;
        let (read, write) = pipe();
        let null = dev_null().expect("null");
        // As the shim gives it: the container's folder by descriptor.
        let folder = File::open(self.path.join("work")).expect("work");
        let work = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
        let call = Call {
            work: &work,
            ..self.call()
        };
        let stdio = Stdio::Fds {
            stdin: null.as_fd(),
            stdout: write.as_fd(),
            stderr: write.as_fd(),
        };
        let made = self.driver.exec(&ExecArgs {
            call,
            exec_id: "e1",
            process: &process,
            stdio,
        })?;
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("text");
        Ok((made.pid, text))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.driver.kill_all(&self.call(), 9);
        while let Ok(Some((pid, _))) = process::peek() {
            let _ = process::reap(pid);
        }
        let _ = self.driver.delete(&self.call(), true);
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    berth_sys::pipe::pipe().expect("pipe")
}

fn wait(pid: u32) -> Ended {
    process::wait(pid).expect("wait").expect("ended")
}

/// Runs `test` in a process of its own for each runtime: a test that reaps must not meet another.
fn with_each(test: impl Fn(&Path)) {
    prepare_for_crun();
    for binary in ["/usr/sbin/runc", "/usr/bin/runc", "/usr/bin/crun"].map(Path::new) {
        if !binary.exists() {
            continue;
        }
        match process::fork().expect("fork") {
            process::Fork::Child => {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(binary)));
                process::exit_now(i32::from(done.is_err()))
            }
            process::Fork::Parent { pid } => assert_eq!(wait(pid), Ended::Exited(0), "{}", binary.display()),
        }
    }
}

/// crun refuses hybrid cgroups while a controller sits in the unified hierarchy; mounting it elsewhere frees it.
fn prepare_for_crun() {
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    let folder = Path::new("/sys/fs/cgroup/hugetlb");
    if controllers.contains("hugetlb") && !folder.join("tasks").exists() {
        let _ = fs::create_dir(folder);
        let mount = std::process::Command::new("mount")
            .args(["-t", "cgroup", "-o", "hugetlb", "cgroup"])
            .arg(folder)
            .status();
        assert!(mount.is_ok_and(|status| status.success()), "mount hugetlb");
    }
}

fn overrides(args: &[&str]) -> Overrides {
    Overrides {
        args: args.iter().map(|&arg| arg.into()).collect(),
        ..Overrides::default()
    }
}

#[test]
fn a_life_from_create_to_delete() {
    with_each(|binary| {
        let place = Place::new(binary);
        let driver = &place.driver;
        assert_eq!(
            driver.state(&place.call()).expect_err("nothing").code(),
            ErrorCode::NotFound
        );
        driver.delete(&place.call(), false).expect("nothing is deleted");
        let pid = place.create().expect("create");
        assert_eq!(
            driver.state(&place.call()).expect("state"),
            State {
                pid,
                status: Status::Created
            }
        );
        assert_eq!(place.create().expect_err("twice").code(), ErrorCode::AlreadyExists);
        driver.start(&place.call()).expect("start");
        assert_eq!(driver.state(&place.call()).expect("state").status, Status::Running);
        assert_eq!(
            driver.start(&place.call()).expect_err("twice").code(),
            ErrorCode::WrongState
        );
        assert_eq!(
            driver.delete(&place.call(), false).expect_err("it runs").code(),
            ErrorCode::WrongState
        );
        driver.pause(&place.call()).expect("pause");
        assert_eq!(driver.state(&place.call()).expect("state").status, Status::Paused);
        driver.resume(&place.call()).expect("resume");
        driver
            .update(
                &place.call(),
                json!({"memory": {"limit": 32 << 20}}).to_string().as_bytes(),
            )
            .expect("update");
        let memory = format!("/sys/fs/cgroup/memory/{}/memory.limit_in_bytes", place.id);
        if let Ok(limit) = fs::read_to_string(memory) {
            assert_eq!(limit.trim(), (32 << 20).to_string());
        }
        driver.kill_all(&place.call(), 9).expect("kill");
        assert_eq!(wait(pid), Ended::Signaled { signal: 9, core: false });
        driver.kill_all(&place.call(), 9).expect("nobody to kill");
        assert_eq!(driver.state(&place.call()).expect("state").status, Status::Stopped);
        driver.delete(&place.call(), false).expect("delete");
        driver.delete(&place.call(), true).expect("delete again");
        assert_eq!(
            fs::read_dir(place.path.join("work")).expect("work").count(),
            0,
            "files are left over"
        );
    });
}

#[test]
fn output_environment_and_exit_are_the_containers() {
    with_each(|binary| {
        let place = Place::new(binary);
        place.configure(&[
            "sh",
            "-c",
            "echo out; echo err >&2; read x; echo got $x; ls /proc/self/fd; env; umask; exit 42",
        ]);
        fs::write(place.path.join("in"), "text\n").expect("in");
        let stdin = File::open(place.path.join("in")).expect("in");
        let (read, write) = pipe();
        let pid = place
            .create_with([stdin.as_fd(), write.as_fd(), write.as_fd()])
            .expect("create");
        place.driver.start(&place.call()).expect("start");
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).expect("text");
        assert_eq!(wait(pid), Ended::Exited(42));
        assert!(text.starts_with("out\nerr\ngot text\n"), "{text}");
        assert!(text.contains("A=init\n") && text.ends_with("0022\n"), "{text}");
        // The bundle may go before the delete, and the delete still leaves nothing.
        fs::remove_dir_all(place.bundle()).expect("remove");
        place.driver.delete(&place.call(), false).expect("delete");
        let left = fs::read_dir(place.path.join("root")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    });
}

#[test]
fn commands_that_can_not_run_are_127_and_126() {
    with_each(|binary| {
        for (command, exit) in [("nope", 127), ("/no/such", 127), ("/bin/plain", 126), ("/tmp", 126)] {
            let place = Place::new(binary);
            place.configure(&[command]);
            let error = place.create().expect_err(command);
            assert_eq!(error.exit_code(), exit, "{error}");
            assert!(!error.runtime_message().is_empty());
            place.configure(&["sleep", "1000"]);
            let pid = place.create().expect("the failed one is gone");
            place.driver.start(&place.call()).expect("start");
            let error = place.exec(&overrides(&[command])).expect_err(command);
            assert_eq!(error.exit_code(), exit, "{error}");
            place.end(pid);
        }
    });
}

#[test]
fn execs_get_what_they_ask_for() {
    with_each(|binary| {
        let place = Place::new(binary);
        let pid = place.create().expect("create");
        place.driver.start(&place.call()).expect("start");
        let wanted = Overrides {
            env: vec!["A=exec".into(), "B=2".into()],
            cwd: "/tmp".into(),
            user: "12:34".into(),
            additional_gids: vec![56],
            capabilities: Some(vec!["NET_ADMIN".into()]),
            no_new_privileges: Some(true),
            ..overrides(&[
                "sh",
                "-c",
                "id -u; id -g; id -G; pwd; echo $A $B; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; ls /proc/self/fd; exit 3",
            ])
        };
        let wanted = Overrides {
            args: wanted
                .args
                .iter()
                .map(|arg| arg.replace("grep", "busybox grep").replace("ls ", "busybox ls "))
                .collect(),
            ..wanted
        };
        let (exec, text) = place.exec(&wanted).expect("exec");
        assert_eq!(wait(exec), Ended::Exited(3), "{text}");
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields[..2], ["12", "34"], "{text}");
        assert!(fields[2..4].contains(&"56"), "{text}");
        assert!(text.contains("/tmp\nexec 2\n"), "{text}");
        assert!(
            text.contains("CapBnd:\t0000000000001000") && text.contains("NoNewPrivs:\t1"),
            "{text}"
        );
        place.end(pid);
        let error = place.exec(&overrides(&["id"])).expect_err("gone");
        assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
    });
}

#[test]
fn a_hanging_hook_is_killed_and_undone() {
    with_each(|binary| {
        let place = Place::new(binary);
        let config = place.bundle().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).expect("config")).expect("json");
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1234"]}]});
        fs::write(&config, spec.to_string()).expect("config");
        let began = Instant::now();
        let work = place.path.join("work");
        let null = dev_null().expect("null");
        let call = Call {
            timeout: Duration::from_secs(1),
            work: &work,
            ..place.call()
        };
        let stdio = Stdio::Fds {
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let error = place
            .driver
            .create(&CreateArgs {
                call,
                bundle: &place.bundle(),
                config: None,
                stdio,
            })
            .expect_err("hangs");
        assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let error = place.driver.state(&place.call()).expect_err("it is undone");
        assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
        // Orphans of the killed runtime, its init among them, have ended: they are ours to reap.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process::children(process::getpid()).expect("children").is_empty() {
            while let Ok(Some((pid, _))) = process::peek() {
                process::reap(pid).expect("reap");
            }
            assert!(Instant::now() < deadline, "an orphan lives");
            std::thread::sleep(Duration::from_millis(5));
        }
        let groups = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
        let left: Vec<_> = groups
            .map(|group| group.path().join(&place.id))
            .filter(|path| path.exists())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_terminal_comes_over_the_console_socket() {
    with_each(|binary| {
        let place = Place::new(binary);
        place.configure(&["sh", "-c", "test -t 0 && echo terminal"]);
        let config = place.bundle().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).expect("config")).expect("json");
        spec["process"]["terminal"] = json!(true);
        spec["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}]);
        fs::write(&config, spec.to_string()).expect("config");
        // A long path: the runtime gets it through our descriptor.
        let folder = place.path.join("work").join("x".repeat(120));
        fs::create_dir(&folder).expect("folder");
        let folder = File::open(&folder).expect("open");
        let short = PathBuf::from(format!(
            "/proc/self/fd/{}/console",
            std::os::fd::AsRawFd::as_raw_fd(&folder)
        ));
        let listener = std::os::unix::net::UnixListener::bind(&short).expect("bind");
        let work = place.path.join("work");
        let call = Call {
            work: &work,
            ..place.call()
        };
        let made = place
            .driver
            .create(&CreateArgs {
                call,
                bundle: &place.bundle(),
                config: None,
                stdio: Stdio::Console { socket: &short },
            })
            .expect("create");
        let (socket, _) = listener.accept().expect("accept");
        let mut bytes = [0; 64];
        let received = berth_sys::socket::recv_fds(&socket, &mut bytes).expect("a terminal");
        let mut master = File::from(received.fds.into_iter().next().expect("one fd"));
        place.driver.start(&place.call()).expect("start");
        let mut text = Vec::new();
        let mut piece = [0; 256];
        while let Ok(got @ 1..) = master.read(&mut piece) {
            text.extend_from_slice(&piece[..got]);
        }
        assert_eq!(String::from_utf8_lossy(&text), "terminal\r\n");
        assert_eq!(wait(made.pid), Ended::Exited(0));
    });
}

#[test]
fn versions_are_told() {
    with_each(|binary| {
        let driver = Command {
            binary: binary.to_owned(),
            ..Command::default()
        };
        let features = driver.features(TIMEOUT).expect("features");
        assert!(features.version.contains(" version "), "{features:?}");
        if features.version.starts_with("runc version 1.1") {
            assert!(features.features["hooks"].is_array());
        }
    });
}

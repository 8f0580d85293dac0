//! Runtimes that misbehave, as shell scripts: each way to fail is told apart.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    time::Instant,
};

use berth_sys::file::dev_null;

use super::*;
use crate::testing::Folder;

struct Fake {
    folder: Folder,
    driver: Command,
    timeout: Duration,
}

impl Fake {
    /// `script` sees the arguments; `$PID_FILE` and `$LOG` are what they name.
    fn new(script: &str) -> Fake {
        let folder = Folder::new();
        let binary = folder.path().join("runtime");
        let find = "for a; do case $p in --pid-file) PID_FILE=$a;; --log) LOG=$a;; esac; p=$a; done\n";
        fs::write(
            &binary,
            format!(
                "#!/bin/sh\necho \"$@\" >> {}/calls\n{find}{script}\n",
                folder.path().display()
            ),
        )
        .expect("script");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("chmod");
        // By way of the shell: to execute a file that was just written fails while another test's fork has it open.
        let driver = Command {
            binary: "/bin/sh".into(),
            args: vec![binary.display().to_string()],
            ..Command::default()
        };
        Fake {
            folder,
            driver,
            timeout: Duration::from_secs(20),
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            id: "xx",
            work: self.folder.path(),
            timeout: self.timeout,
        }
    }

    fn create(&self) -> Result<Created, Error> {
        let null = dev_null().expect("null");
        let stdio = Stdio::Fds {
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        self.driver.create(&CreateArgs {
            call: self.call(),
            bundle: self.folder.path(),
            config: None,
            stdio,
        })
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_pid_file_is_the_proof() {
    let made = Fake::new("echo ' 4711' > $PID_FILE");
    assert_eq!(made.create().expect("made").pid, 4711);
    assert!(
        !made.folder.path().join("init.pid").exists(),
        "the pid file is left over"
    );
    for (script, problem) in [
        (
            "exit 0",
            "its pid file can't be read: No such file or directory (os error 2)",
        ),
        (
            "echo '{garbage' > $PID_FILE; echo garbage",
            "its pid file holds \"{garbage\\n\"",
        ),
        ("echo -5 > $PID_FILE", "its pid file holds \"-5\\n\""),
        ("echo 0 > $PID_FILE", "its pid file holds \"0\\n\""),
    ] {
        let error = Fake::new(script).create().expect_err(script);
        assert!(
            matches!(&error, Error::Broken { problem: told, .. } if told == problem),
            "{error}"
        );
        assert_eq!(error.code(), ErrorCode::Runtime);
    }
}

#[test]
fn an_old_pid_file_is_not_believed() {
    let fake = Fake::new("exit 0");
    fs::write(fake.folder.path().join("init.pid"), "1").expect("write");
    assert!(matches!(fake.create(), Err(Error::Broken { .. })));
}

#[test]
fn a_failed_create_is_undone_but_somebody_elses_container_is_not() {
    let failed = Fake::new("case \"$*\" in *create*) exit 1;; esac");
    failed.create().expect_err("refused");
    assert!(
        failed
            .calls()
            .last()
            .is_some_and(|call| call.ends_with("delete --force xx")),
        "{:?}",
        failed.calls()
    );
    let exists =
        Fake::new("echo '{\"level\":\"error\",\"msg\":\"container with given ID already exists\"}' > $LOG; exit 1");
    assert_eq!(exists.create().expect_err("refused").code(), ErrorCode::AlreadyExists);
    assert_eq!(exists.calls().len(), 1);
    let foreign = Fake::new(
        "case \"$*\" in *create*) exit 1;; *state*) echo '{\"pid\":1,\"status\":\"running\",\"bundle\":\"/usr\"}';; esac",
    );
    foreign.create().expect_err("refused");
    assert!(
        foreign.calls().last().is_some_and(|call| call.ends_with("state xx")),
        "{:?}",
        foreign.calls()
    );
}

#[test]
fn the_words_of_the_log_come_before_those_of_stderr() {
    let fake =
        Fake::new("echo noise >&2; echo '{\"level\":\"error\",\"msg\":\"container not running\"}' > $LOG; exit 3");
    let error = fake.driver.pause(&fake.call()).expect_err("refused");
    assert_eq!(
        (error.code(), error.runtime_message()),
        (ErrorCode::WrongState, "container not running")
    );
    assert_eq!(error.to_string(), "pause xx: container not running");
    let fake = Fake::new("head -c 1000000 /dev/zero | tr '\\0' y >&2; echo >&2; echo the end >&2; exit 1");
    let error = fake.driver.pause(&fake.call()).expect_err("refused");
    assert_eq!((error.code(), error.runtime_message()), (ErrorCode::Runtime, "the end"));
    let error = Fake::new("exit 9").create().expect_err("refused");
    assert_eq!(
        error.to_string(),
        "create xx: the runtime ended with 9 and said nothing"
    );
}

#[test]
fn missing_and_not_executable_are_told_apart() {
    let mut fake = Fake::new("");
    fake.driver = Command {
        binary: fake.folder.path().join("runtime"),
        ..Command::default()
    };
    fs::set_permissions(&fake.driver.binary, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(matches!(fake.create(), Err(Error::NotExecutable { .. })));
    fs::set_permissions(&fake.driver.binary, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::write(&fake.driver.binary, "garbage").expect("write");
    assert!(matches!(fake.create(), Err(Error::NotExecutable { .. })));
    fs::write(&fake.driver.binary, "#!/no/such/interpreter\n").expect("write");
    assert!(matches!(fake.create(), Err(Error::NotExecutable { .. })));
    fake.driver.binary = "/nowhere/runc".into();
    let error = fake.create().expect_err("missing");
    assert_eq!(error.to_string(), "create xx: runtime /nowhere/runc does not exist");
}

#[test]
fn killed_and_hanging_end() {
    let error = Fake::new("case \"$*\" in *create*) kill -9 $$;; esac")
        .create()
        .expect_err("killed");
    assert!(matches!(error, Error::Killed { signal: 9, .. }), "{error}");
    let mut fake =
        Fake::new("case \"$*\" in *create*) echo stuck >&2; sleep 1000 & echo $! > $(dirname $0)/hook; wait;; esac");
    fake.timeout = Duration::from_millis(300);
    let began = Instant::now();
    let error = fake.create().expect_err("hangs");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(error.code(), ErrorCode::Timeout);
    // What it had started in its process group is gone with it.
    let hook = fs::read_to_string(fake.folder.path().join("hook")).expect("hook");
    let stat = fs::read_to_string(format!("/proc/{}/stat", hook.trim()));
    assert!(
        stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")),
        "the hook lives"
    );
}

#[test]
fn repeated_ends_are_success() {
    let gone = Fake::new("echo '{\"level\":\"error\",\"msg\":\"container does not exist\"}' > $LOG; exit 1");
    gone.driver.delete(&gone.call(), false).expect("gone");
    gone.driver.kill_all(&gone.call(), 9).expect("gone");
    assert_eq!(
        gone.driver.state(&gone.call()).expect_err("gone").code(),
        ErrorCode::NotFound
    );
}

#[test]
fn states_and_features_are_read() {
    let fake = Fake::new(
        "case $1 in --version) echo 'fake 1.0'; echo more;; features) exit 1;; *) echo '{\"status\":\"created\",\"pid\":7}';; esac",
    );
    assert_eq!(
        fake.driver.state(&fake.call()).expect("state"),
        State {
            pid: 7,
            status: Status::Created
        }
    );
    let features = fake.driver.features(fake.timeout).expect("features");
    assert_eq!(
        (features.version.as_str(), features.features),
        ("fake 1.0", serde_json::Value::Null)
    );
    for garbage in [
        "echo nonsense",
        "echo '{\"status\":\"dancing\"}'",
        "head -c 3000000 /dev/zero",
    ] {
        let fake = Fake::new(garbage);
        assert!(
            matches!(fake.driver.state(&fake.call()), Err(Error::Broken { .. })),
            "{garbage}"
        );
    }
}

//! Each finding on a state folder that has it, and what mending it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_core::{ContainerKey, ExitStatus};
use berth_record::{ContainerRecord, ExitRecord, Folder, Layout, ProcessRecord, ShimRecord, folder_name, random};
use berth_sys::process;

use crate::*;

/// A state folder that goes with the test.
struct Temp {
    path: PathBuf,
    layout: Layout,
}

impl Temp {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("berth-doctor-{}", random::hex::<8>().unwrap()));
        let layout = Layout::new(path.join("state"), path.join("root"));
        layout.prepare().unwrap();
        Self { path, layout }
    }

    /// What is wrong, apart from this machine's disks.
    fn findings(&self) -> Vec<Finding> {
        let mut found = examine(&self.layout).unwrap();
        found.retain(|finding| !matches!(finding, Finding::AlmostFull { .. }));
        found
    }

    fn only(&self) -> Finding {
        let found = self.findings();
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn mend(&self, finding: &Finding) -> Mended {
        let lock = self.layout.lock().unwrap();
        mend(&self.layout, finding, Some(&lock)).unwrap()
    }

    fn container(&self, id: &str) -> Folder {
        let folder = Folder::create(&self.layout, &key(id)).unwrap();
        let record = ContainerRecord {
            namespace: "ns".into(),
            id: id.into(),
            incarnation: INCARNATION.into(),
            boot_id: process::boot_id().unwrap(),
            ..ContainerRecord::default()
        };
        folder.write_container(&record).unwrap();
        folder
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.layout.container(&key(id))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Ended with the test.
struct Running(Child);

impl Running {
    fn process(&self) -> ProcessRecord {
        let pid = self.0.id();
        ProcessRecord {
            pid,
            start_time: process::start_time(pid).unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const INCARNATION: &str = "00112233445566778899aabbccddeeff";

fn key(id: &str) -> ContainerKey {
    ContainerKey::parse("ns", id).unwrap()
}

fn shim(shim: ProcessRecord, init: Option<ProcessRecord>) -> ShimRecord {
    ShimRecord {
        shim,
        boot_id: process::boot_id().unwrap(),
        incarnation: INCARNATION.into(),
        init,
        ..ShimRecord::default()
    }
}

fn sleeper() -> Running {
    Running(Command::new("sleep").arg("1000").spawn().unwrap())
}

/// A program of the shim's name that holds a container's folder open, as a shim does.
fn holder(at: &Path, folder: &Path) -> Running {
    let program = at.join("berth-shim");
    fs::copy("/bin/sleep", &program).unwrap();
    let folder = fs::File::open(folder).unwrap();
    let child = Command::new(&program).arg("1000").stdin(Stdio::from(folder)).spawn();
    Running(child.unwrap())
}

#[test]
fn nothing_is_wrong_with_an_empty_or_absent_state() {
    let temp = Temp::new();
    assert_eq!(temp.findings(), []);
    let absent = Layout::new(temp.path.join("x"), temp.path.join("y"));
    let found = examine(&absent).unwrap();
    assert!(
        found
            .iter()
            .all(|finding| matches!(finding, Finding::AlmostFull { .. })),
        "{found:?}"
    );
}

#[test]
fn a_container_that_its_shim_serves_is_well() {
    let temp = Temp::new();
    let folder = temp.container("a");
    let holder = holder(&temp.path, &temp.folder("a"));
    folder.write_shim(&shim(holder.process(), None)).unwrap();
    assert_eq!(temp.findings(), []);
}

#[test]
fn a_shim_that_the_record_does_not_name() {
    let temp = Temp::new();
    let folder = temp.container("a");
    let (first, second) = (holder(&temp.path, &temp.folder("a")), sleeper());
    folder.write_shim(&shim(second.process(), None)).unwrap();
    let finding = temp.only();
    assert!(matches!(&finding, Finding::SecondShim { pid, container } if *pid == first.0.id() && container == "ns/a"));
    assert_eq!(temp.mend(&finding), Mended::Left);
}

#[test]
fn a_container_whose_shim_is_gone() {
    let temp = Temp::new();
    let folder = temp.container("a");
    let mut init = sleeper();
    folder
        .write_shim(&shim(ProcessRecord::default(), Some(init.process())))
        .unwrap();
    let finding = temp.only();
    assert!(
        matches!(&finding, Finding::Orphan { pid, .. } if *pid == init.0.id()),
        "{finding:?}"
    );
    assert_eq!(temp.mend(&finding), Mended::Left, "the daemon ends it and tells so");
    init.0.kill().unwrap();
    init.0.wait().unwrap();
    assert!(matches!(temp.only(), Finding::Unseen { .. }));
    let exit = ExitRecord::new(INCARNATION, "", 7, &ExitStatus::ended(3, 0, false, 5));
    folder.reserve_exit().unwrap();
    folder.write_exit(&exit).unwrap();
    assert_eq!(temp.findings(), [], "its end is known");
}

#[test]
fn a_creation_that_no_shim_served() {
    let temp = Temp::new();
    temp.container("a");
    assert!(matches!(temp.only(), Finding::HalfMade { container } if container == "ns/a"));
}

#[test]
fn a_broken_record_is_set_aside_once_no_daemon_runs_and_no_shim_serves_it() {
    let temp = Temp::new();
    temp.container("a");
    let record = temp.folder("a").join("container.json");
    fs::write(&record, "no record").unwrap();
    let finding = temp.only();
    assert!(finding.to_string().contains("container.json"), "{finding}");
    assert_eq!(
        mend(&temp.layout, &finding, None).unwrap(),
        Mended::Left,
        "a daemon is at work"
    );
    {
        let _shim = holder(&temp.path, &temp.folder("a"));
        assert_eq!(temp.mend(&finding), Mended::Left, "it is served");
    }
    assert!(matches!(temp.mend(&finding), Mended::Done(_)));
    assert_eq!(temp.findings(), []);
    let aside = temp.layout.state().join("aside").join("ns:a.0/container.json");
    assert_eq!(fs::read_to_string(aside).unwrap(), "no record");
}

#[test]
fn a_shim_of_a_removed_container_is_killed_even_beside_a_daemon() {
    let temp = Temp::new();
    temp.container("a");
    let mut stray = holder(&temp.path, &temp.folder("a"));
    fs::remove_dir_all(temp.folder("a")).unwrap();
    let finding = temp.only();
    assert!(
        matches!(&finding, Finding::StrayShim { pid, .. } if *pid == stray.0.id()),
        "{finding:?}"
    );
    assert!(matches!(mend(&temp.layout, &finding, None).unwrap(), Mended::Done(_)));
    assert!(!stray.0.wait().unwrap().success());
    assert_eq!(temp.findings(), []);
    assert!(
        matches!(mend(&temp.layout, &finding, None).unwrap(), Mended::Done(_)),
        "again is no error"
    );
}

#[test]
fn a_stray_shim_is_looked_at_again_before_it_is_killed() {
    let temp = Temp::new();
    temp.container("a");
    let serving = holder(&temp.path, &temp.folder("a"));
    let old = Finding::StrayShim {
        pid: serving.0.id(),
        start_time: serving.process().start_time,
        container: "ns:a".into(),
    };
    assert_eq!(mend(&temp.layout, &old, None).unwrap(), Mended::Left);
    assert!(process::start_time(serving.0.id()).is_ok());
}

#[test]
fn leftovers_go_and_output_stays() {
    let temp = Temp::new();
    let name = folder_name(&key("a"));
    let leftover = temp.layout.logs().join(format!("{name}~{INCARNATION}"));
    let log = temp.layout.logs().join(&name);
    let bundle = temp.layout.bundles().join("ns/b");
    let tomb = temp.layout.containers().join(format!("{name}~{INCARNATION}"));
    let foreign = temp.layout.containers().join("what is this");
    for path in [&leftover, &log, &bundle, &tomb, &foreign] {
        fs::create_dir_all(path.join("inside")).unwrap();
    }
    let found = temp.findings();
    assert_eq!(found.len(), 5, "{found:?}");
    for finding in &found {
        assert_eq!(
            mend(&temp.layout, finding, None).unwrap(),
            Mended::Left,
            "{finding} beside a daemon"
        );
        temp.mend(finding);
    }
    let left: Vec<bool> = [&leftover, &log, &bundle, &tomb, &foreign]
        .map(|path| path.exists())
        .into();
    assert_eq!(left, [false, true, false, false, true]);
    assert_eq!(temp.findings().len(), 2);
}

#[test]
fn folders_that_are_too_open_are_closed() {
    let temp = Temp::new();
    fs::set_permissions(temp.layout.events(), fs::Permissions::from_mode(0o755)).unwrap();
    let finding = temp.only();
    assert_eq!(
        finding.to_string(),
        format!("{}: mode 0755, at most 0700 is safe", temp.layout.events().display())
    );
    assert!(matches!(mend(&temp.layout, &finding, None).unwrap(), Mended::Done(_)));
    assert_eq!(temp.findings(), []);
}

#[test]
fn a_finding_as_json_says_what_it_is() {
    let finding = Finding::Orphan {
        container: "ns/a".into(),
        pid: 7,
    };
    assert_eq!(
        serde_json::to_value(finding).unwrap(),
        serde_json::json!({"finding": "orphan", "container": "ns/a", "pid": 7})
    );
}

//! Folders, the scan, verdicts, and a full disk.

use std::path::{Path, PathBuf};

use berth_core::{ContainerKey, ExitStatus};
use berth_sys::namespaces::{Namespaces, unshare};
use berth_sys::newmount::{Attr, Propagation, attach, new_filesystem, set_root_propagation};
use berth_sys::{dir, process};

use crate::*;

/// A state folder that goes with the test.
struct Temp {
    path: PathBuf,
    layout: Layout,
}

impl Temp {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("berth-record-{}", random::hex::<8>().unwrap()));
        let layout = Layout::new(path.join("state"), path.join("root"));
        layout.prepare().unwrap();
        Self { path, layout }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn key(id: &str) -> ContainerKey {
    ContainerKey::parse("ns", id).unwrap()
}

const INCARNATION: &str = "00112233445566778899aabbccddeeff";

fn container(id: &str, boot_id: &str) -> ContainerRecord {
    ContainerRecord {
        namespace: "ns".into(),
        id: id.into(),
        incarnation: INCARNATION.into(),
        boot_id: boot_id.into(),
        bundle: "/bundle".into(),
        labels: [("a".into(), "b\nc".into())].into(),
        ..ContainerRecord::default()
    }
}

fn exit() -> ExitRecord {
    ExitRecord::new(INCARNATION, "", 7, &ExitStatus::ended(3, 0, false, 5))
}

fn this_process() -> ProcessRecord {
    let pid = process::getpid();
    ProcessRecord {
        pid,
        start_time: process::start_time(pid).unwrap(),
    }
}

#[test]
fn a_container_folder_has_a_life() {
    let temp = Temp::new();
    let folder = Folder::create(&temp.layout, &key("c")).unwrap();
    assert!(Folder::create(&temp.layout, &key("c")).is_err());
    assert_eq!(
        (
            folder.container().unwrap(),
            folder.shim().unwrap(),
            folder.exit().unwrap()
        ),
        (None, None, None)
    );
    folder.write_container(&container("c", "boot")).unwrap();
    folder.reserve_exit().unwrap();
    assert_eq!((folder.exit().unwrap(), folder.exit_seq().unwrap()), (None, None));
    folder.reserve_exec("e.1").unwrap();
    let mut exec = ExecRecord {
        exec_id: "e.1".into(),
        process: this_process(),
        ..ExecRecord::default()
    };
    folder.write_exec(&exec).unwrap();
    exec.exit = Some(exit());
    folder.write_exec_exit(&exec).unwrap();
    folder.write_exec_seq("e.1", 9).unwrap();
    // A second time, when nothing is reserved any more.
    folder.write_exit(&exit()).unwrap();
    folder.write_exit(&exit()).unwrap();
    folder.write_exit_seq(12).unwrap();
    folder.write_exit_seq(3).unwrap();

    let loaded = load(&temp.layout, &key("c")).unwrap();
    assert_eq!(loaded.container.unwrap(), container("c", "boot"));
    assert_eq!(
        (loaded.exit, loaded.exit_seq, loaded.execs),
        (Some(exit()), Some(3), vec![exec])
    );
    assert_eq!(loaded.folder.exec_seq("e.1").unwrap(), Some(9));
    folder.remove_exec("e.1").unwrap();
    assert_eq!(folder.exec_ids().unwrap(), [""; 0]);
    let mut names: Vec<_> = dir::entries(&folder)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["container.json", "exit.json", "exit.seq"]);
    Folder::remove(&temp.layout, &key("c")).unwrap();
    Folder::remove(&temp.layout, &key("c")).unwrap();
    assert_eq!(scan(&temp.layout).unwrap().keys, []);
}

#[test]
fn a_broken_record_costs_its_container_only() {
    let temp = Temp::new();
    for id in ["good", "broken", "swapped"] {
        Folder::create(&temp.layout, &key(id))
            .unwrap()
            .write_container(&container(id, "boot"))
            .unwrap();
    }
    std::fs::write(temp.layout.container(&key("broken")).join("container.json"), "garbage").unwrap();
    let good = temp.layout.container(&key("good")).join("container.json");
    std::fs::copy(good, temp.layout.container(&key("swapped")).join("container.json")).unwrap();
    std::fs::create_dir(temp.layout.containers().join("not ours")).unwrap();

    let mut index = scan(&temp.layout).unwrap();
    index.keys.sort_unstable();
    assert_eq!(index.keys, [key("broken"), key("good"), key("swapped")]);
    assert_eq!(index.strange, ["not ours"]);
    assert!(load(&temp.layout, &key("good")).is_ok());
    for id in ["broken", "swapped"] {
        let error = load(&temp.layout, &key(id)).unwrap_err().to_string();
        assert!(error.contains(&format!("ns:{id}/container.json")), "{error}");
    }
}

#[test]
fn verdicts() {
    let temp = Temp::new();
    let judged = |id: &str, container: Option<ContainerRecord>, shim: Option<ShimRecord>, exit: Option<ExitRecord>| {
        let folder = Folder::create(&temp.layout, &key(id)).unwrap();
        container
            .iter()
            .for_each(|record| folder.write_container(record).unwrap());
        shim.iter().for_each(|record| folder.write_shim(record).unwrap());
        exit.iter().for_each(|record| folder.write_exit(record).unwrap());
        judge(&load(&temp.layout, &key(id)).unwrap(), "now").unwrap()
    };
    let gone = ProcessRecord {
        pid: process::getpid(),
        start_time: 1,
    };
    let shim = |shim, init, boot_id: &str| {
        let incarnation = INCARNATION.into();
        Some(ShimRecord {
            shim,
            init,
            boot_id: boot_id.into(),
            incarnation,
            ..ShimRecord::default()
        })
    };
    let now = |id: &str| Some(container(id, "now"));
    assert!(matches!(judged("a", None, None, None), Verdict::HalfMade));
    assert!(matches!(judged("b", now("b"), None, None), Verdict::HalfMade));
    assert!(matches!(
        judged("c", now("c"), shim(gone, None, "now"), None),
        Verdict::HalfMade
    ));
    assert!(matches!(
        judged("d", now("d"), shim(this_process(), None, "now"), None),
        Verdict::Live { .. }
    ));
    assert!(matches!(
        judged("e", now("e"), shim(this_process(), None, "now"), Some(exit())),
        Verdict::Live { .. }
    ));
    assert!(matches!(
        judged("f", now("f"), shim(gone, Some(gone), "now"), None),
        Verdict::Lost { init: None }
    ));
    let lost = judged("g", now("g"), shim(gone, Some(this_process()), "now"), None);
    assert!(matches!(lost, Verdict::Lost { init: Some((pid, _)) } if pid == process::getpid()));
    assert!(matches!(
        judged("h", now("h"), shim(gone, None, "now"), Some(exit())),
        Verdict::Ended { .. }
    ));
    // After a reboot the numbers mean nothing, even if a process has them.
    let before = Some(container("i", "before"));
    assert!(matches!(
        judged("i", before, shim(this_process(), None, "before"), None),
        Verdict::Rebooted
    ));
    assert!(matches!(
        judged("j", Some(container("j", "before")), None, Some(exit())),
        Verdict::Ended { .. }
    ));
    // The exit of an earlier life.
    let old = ExitRecord {
        incarnation: "f".repeat(32),
        ..exit()
    };
    assert!(matches!(judged("k", now("k"), None, Some(old)), Verdict::HalfMade));
}

#[test]
fn a_state_folder_has_one_daemon() {
    let temp = Temp::new();
    let lock = temp.layout.lock().unwrap();
    assert!(matches!(temp.layout.lock(), Err(Error::Locked { .. })));
    drop(lock);
    temp.layout.lock().unwrap();
}

/// In a process and a mount namespace of its own.
#[test]
fn no_exit_is_lost_on_a_full_disk() {
    let temp = Temp::new();
    let layout = temp.layout.clone();
    match process::fork().unwrap() {
        process::Fork::Child => {
            let result = std::panic::catch_unwind(|| on_a_full_disk(&layout));
            process::exit_now(match result {
                Ok(true) => 0,
                Ok(false) => 77,
                Err(_) => 1,
            })
        }
        process::Fork::Parent { pid } => match process::wait(pid).unwrap() {
            Some(process::Ended::Exited(0)) => {}
            Some(process::Ended::Exited(77)) => eprintln!("skipped: no mount namespace can be made here"),
            other => panic!("{other:?}"),
        },
    }
}

fn on_a_full_disk(layout: &Layout) -> bool {
    if unshare(Namespaces::MOUNT).is_err() {
        return false;
    }
    set_root_propagation(Propagation::Private, true).unwrap();
    let disk = new_filesystem("tmpfs", None, &["size=256k"], Attr::empty()).unwrap();
    let state = dir::open_path(layout.state()).unwrap();
    attach(std::os::fd::AsFd::as_fd(&disk), std::os::fd::AsFd::as_fd(&state)).unwrap();
    layout.prepare().unwrap();

    let folder = Folder::create(layout, &key("c")).unwrap();
    folder.write_container(&container("c", "boot")).unwrap();
    folder.reserve_exit().unwrap();
    folder.reserve_exec("e").unwrap();
    let limits = Limits {
        events: 1000,
        bytes: 1 << 20,
    };
    let (mut journal, _) = Journal::open(&layout.events(), limits).unwrap();
    journal.append(b"before").unwrap();
    fill(&layout.state().join("filler"));

    assert!(folder.write_container(&container("c", "boot")).unwrap_err().is_full());
    assert_eq!(folder.container().unwrap(), Some(container("c", "boot")));
    assert!(
        Folder::create(layout, &key("d"))
            .and_then(|folder| folder.reserve_exit())
            .unwrap_err()
            .is_full()
    );
    folder.write_exit(&exit()).unwrap();
    folder.write_exit_seq(1).unwrap();
    let exec = ExecRecord {
        exec_id: "e".into(),
        exit: Some(exit()),
        ..ExecRecord::default()
    };
    folder.write_exec_exit(&exec).unwrap();
    folder.write_exec_seq("e", 2).unwrap();
    assert_eq!(
        (folder.exit().unwrap(), folder.exit_seq().unwrap()),
        (Some(exit()), Some(1))
    );
    assert_eq!(
        (folder.exec("e").unwrap(), folder.exec_seq("e").unwrap()),
        (Some(exec), Some(2))
    );

    // The journal says so, uses up no number, and goes on when there is room.
    let mut next = journal.next();
    while let Ok(number) = journal.append(&[1; 1000]) {
        assert_eq!(number, next);
        next += 1;
        fill(&layout.state().join("filler"));
    }
    assert!(journal.append(&[1; 1000]).unwrap_err().is_full());
    assert_eq!(journal.next(), next);
    std::fs::remove_file(layout.state().join("filler")).unwrap();
    assert_eq!(journal.append(b"after").unwrap(), next);
    drop(journal);
    let (journal, opened) = Journal::open(&layout.events(), limits).unwrap();
    assert_eq!(
        (opened, journal.read(next, 9).unwrap()),
        (journal::Opened::default(), vec![(next, b"after".to_vec())])
    );
    true
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for size in [4096, 64, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

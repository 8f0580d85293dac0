//! Recorded texts, and this machine's own hierarchies.

use super::*;

const V2: &[u8] =
    b"25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
const HYBRID: &[u8] = b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

fn of(text: &[u8]) -> Hierarchies {
    Hierarchies::of(&crate::mounts::parse(text))
}

#[test]
fn a_v2_machine() {
    let machine = of(V2);
    assert_eq!(machine.version(), Version::V2);
    let group = machine.group_in("0::/system.slice/berth/c1\n");
    assert_eq!(group.name(), "/system.slice/berth/c1");
    let folder = Path::new("/sys/fs/cgroup/system.slice/berth/c1");
    assert_eq!(
        (group.folder("memory"), group.folder("pids")),
        (Some(folder), Some(folder))
    );
    assert_eq!(group.folders(), [folder]);
    // Outside of our cgroup namespace.
    assert_eq!(machine.group_in("0::/../other\n").folder("memory"), None);
}

#[test]
fn a_hybrid_machine_with_a_place_of_its_own_per_controller() {
    let machine = of(HYBRID);
    assert_eq!(machine.version(), Version::Hybrid);
    let group = machine.group_in("4:memory:/a/c1\n2:cpu,cpuacct:/c1 (deleted)\n9:name=systemd:/\n0::/\n");
    assert_eq!(group.name(), "/a/c1");
    assert_eq!(group.folder("memory"), Some(Path::new("/sys/fs/cgroup/memory/a/c1")));
    assert_eq!(
        group.folder("cpuacct"),
        Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/c1"))
    );
    assert_eq!(group.folder("name=systemd"), Some(Path::new("/sys/fs/cgroup/systemd")));
    assert_eq!(group.folder("pids"), None);
    assert_eq!(of(&HYBRID[..HYBRID.len() - 62]).version(), Version::V1);
}

#[test]
fn a_mount_that_shows_a_part_of_the_hierarchy() {
    let machine = of(b"35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    let group = machine.group_in("4:memory:/docker/x/c1\n");
    assert_eq!(group.folder("memory"), Some(Path::new("/sys/fs/cgroup/memory/c1")));
    assert_eq!(machine.group_in("4:memory:/docker/y\n").folder("memory"), None);
}

#[test]
fn names_that_lead_out_are_refused() {
    let machine = of(V2);
    for name in ["", "c1", "/a/../b", "/..", "/./a"] {
        assert!(machine.group_named(name).is_err(), "{name:?}");
    }
}

#[test]
fn recorded_files() {
    use parse::*;
    assert_eq!(
        keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"),
        Some(3)
    );
    assert_eq!(
        keyed(
            "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n",
            "oom_kill"
        ),
        Some(2)
    );
    assert_eq!(
        keyed(
            "usage_usec 17\nuser_usec 5\nsystem_usec 12\nnr_periods 0\n",
            "usage_usec"
        ),
        Some(17)
    );
    assert_eq!(
        keyed("inactive_file 4096\ntotal_inactive_file 8192\n", "total_inactive_file"),
        Some(8192)
    );
    assert_eq!(keyed("", "x"), None);
    assert_eq!(
        (
            limit("max\n"),
            limit("9223372036854771712\n"),
            limit("1048576\n"),
            limit("garbage")
        ),
        (0, 0, 1048576, 0)
    );
    let blkio_text = "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 5\n8:0 Total 4106\n8:16 Read 4\n8:16 Write x\nTotal 4110\n";
    assert_eq!(blkio(blkio_text), ReadWrite { read: 4100, write: 10 });
    assert_eq!(blkio("Total 0\n"), ReadWrite::default());
    let io = "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=1 rios=1\n7:0 \n";
    let expected = (
        ReadWrite {
            read: 1459201,
            write: 314773504,
        },
        ReadWrite { read: 193, write: 353 },
    );
    assert_eq!(io_stat(io), expected);
    assert_eq!(super::parse::pids("1\n0\n22\nx\n").collect::<Vec<_>>(), [1, 22]);
}

#[test]
fn the_group_that_we_are_in_is_ours_alone_to_keep() {
    let Ok(machine) = Hierarchies::detect() else { return };
    let own = machine.group_of(std::process::id()).unwrap();
    assert!(own.pids().unwrap().contains(&std::process::id()));
    assert!(own.stats().memory_bytes > 0 || own.folder("memory").is_none());
    for refused in [own.kill(&machine), own.remove(), own.set_frozen(true)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

/// Needs root and hierarchies that can be written; says so where it has not.
#[test]
fn a_group_of_our_own_is_filled_frozen_killed_and_removed() {
    let machine = Hierarchies::detect().unwrap();
    let mut root = machine.group_in(
        "1:cpu:/\n2:cpuacct:/\n3:cpuset:/\n4:memory:/\n5:devices:/\n6:freezer:/\n7:blkio:/\n8:pids:/\n0::/\n",
    );
    root.name = "/".into();
    let group = match root.make_below(&format!("berth-sys-test-{}", std::process::id())) {
        Ok(group) => group,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let below = group.make_below("inner").unwrap();
    let pids: Vec<u32> = [&group, &below]
        .into_iter()
        .map(|group| {
            let fd = crate::file::dev_null().unwrap();
            let program = crate::process::Program::Path(Path::new("/bin/sleep"));
            let args = ["sleep", "1000"].map(std::ffi::OsStr::new);
            let fds: Vec<_> = (0..3).map(|target| (std::os::fd::AsFd::as_fd(&fd), target)).collect();
            let what = crate::process::Exec {
                program,
                args: &args,
                env: &[],
                fds: &fds,
            };
            let pid = crate::process::spawn(&what).unwrap();
            group.add(pid).unwrap();
            pid
        })
        .collect();
    let mut found = group.pids().unwrap();
    found.sort_unstable();
    let mut expected = pids.clone();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(machine.group_of(pids[0]).unwrap().name(), group.name());
    assert!(group.holds(&machine.group_of(pids[1]).unwrap()));
    assert!(group.stats().pids == 0 || group.stats().pids == 2);
    group.set_frozen(true).unwrap();
    assert!(group.is_frozen().unwrap());
    let mut kills = OomKills::of(&group).unwrap();
    kills.watch(&group).unwrap();
    assert_eq!(kills.read().unwrap(), 0);
    group.kill(&machine).unwrap();
    for pid in pids {
        let ended = crate::process::wait(pid).unwrap();
        assert_eq!(ended, Some(crate::process::Ended::Signaled { signal: 9, core: false }));
    }
    group.remove().unwrap();
    assert!(group.folders().iter().all(|folder| !folder.exists()));
    group.remove().unwrap();
}

/// What the shim watches of cgroup v2, on a file that every hybrid machine has too.
#[test]
fn a_file_of_cgroup_v2_tells_its_changes_until_it_is_read() {
    let machine = Hierarchies::detect().unwrap();
    let Some(top) = &machine.unified else {
        return eprintln!("skipped: no unified hierarchy");
    };
    let folder = top.point.join(format!("berth-sys-events-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&folder) {
        return eprintln!("skipped: {error}");
    }
    let mut epoll = crate::epoll::Epoll::new().unwrap();
    let mut events = OomKills::of_file(&folder.join("cgroup.events"), Version::V2).unwrap();
    let priority = crate::epoll::Interest {
        priority: true,
        ..crate::epoll::Interest::NONE
    };
    epoll.add(&events, 1, priority).unwrap();
    let mut told = |patience| {
        let mut ready = Vec::new();
        epoll
            .wait(Some(std::time::Duration::from_millis(patience)), &mut ready)
            .unwrap();
        !ready.is_empty()
    };
    assert!(!told(0), "what was before is no news");
    let mut sleep = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    control::write(&folder.join("cgroup.procs"), &sleep.id().to_string()).unwrap();
    assert!(told(10_000));
    assert!(told(0), "until it is read");
    events.read().unwrap();
    assert!(!told(0));
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert!(told(10_000));
    std::fs::remove_dir(&folder).unwrap();
    assert!(events.read().is_err(), "gone");
}

#[test]
fn the_usual_places_are_those_of_this_machine() {
    let own = std::process::id();
    let (usual, found) = (Hierarchies::usual().unwrap(), Hierarchies::detect().unwrap());
    let (usual, found) = (usual.group_of(own).unwrap(), found.group_of(own).unwrap());
    assert_eq!(usual.name(), found.name());
    // By way of its own name or of a mount that several share.
    let real = |group: &Group| group.folder("memory").and_then(|folder| folder.canonicalize().ok());
    assert_eq!(real(&usual), real(&found));
}

#[test]
fn the_usual_places_come_from_what_a_process_is_in() {
    let machine = Hierarchies::usual_in(
        Path::new("/nowhere"),
        "4:memory:/a\n2:cpu,cpuacct:/b\n9:name=systemd:/c\n0::/d\n",
    );
    assert_eq!(machine.version(), Version::Hybrid);
    let group = machine.group_in("4:memory:/x/c1\n2:cpu,cpuacct:/y/c1\n9:name=systemd:/\n0::/z\n");
    assert_eq!(group.name(), "/x/c1");
    assert_eq!(group.folder("memory"), Some(Path::new("/nowhere/memory/x/c1")));
    assert_eq!(group.folder("cpu"), Some(Path::new("/nowhere/cpu/y/c1")));
    assert_eq!(group.unified(), Some(Path::new("/nowhere/unified/z")));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_left_out(text: String, key: String) {
        let _ = (parse::keyed(&text, &key), parse::blkio(&text), parse::io_stat(&text), parse::limit(&text));
        let _ = (parse::pids(&text).count(), parse::membership(&text).count(), crate::net_dev::parse(&text));
        let machine = Hierarchies::of(&crate::mounts::parse(text.as_bytes()));
        let _ = machine.group_in(&text);
        for folder in of(V2).group_in(&format!("0::/{text}")).folders() {
            proptest::prop_assert!(folder.starts_with("/sys/fs/cgroup"));
            proptest::prop_assert!(!folder.components().any(|part| part == std::path::Component::ParentDir));
        }
    }
}

//! Processes, each test in a child of its own where it would disturb the others of the test program.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(20));

/// Runs it in a forked process. A panic in there fails the test with its text on stderr.
fn in_child(test: impl FnOnce() + std::panic::UnwindSafe) {
    match fork().unwrap() {
        Fork::Child => exit_now(i32::from(std::panic::catch_unwind(test).is_err())),
        Fork::Parent { pid } => assert_eq!(wait(pid).unwrap(), Some(Ended::Exited(0))),
    }
}

fn forked(child: impl FnOnce()) -> (u32, std::os::fd::OwnedFd) {
    match fork_pidfd().unwrap() {
        ForkPidfd::Child => {
            child();
            exit_now(7)
        }
        ForkPidfd::Parent { pid, pidfd } => (pid, pidfd),
    }
}

/// Until a signal.
fn pause() {
    loop {
        std::thread::park();
    }
}

#[test]
fn an_end_is_peeked_at_before_it_is_reaped() {
    in_child(|| {
        assert_eq!(peek().unwrap(), None);
        let (pid, pidfd) = forked(|| {});
        assert!(wait_until_ended(&pidfd, LONG).unwrap());
        for _ in 0..2 {
            assert_eq!(peek().unwrap(), Some((pid, Ended::Exited(7))));
            assert_eq!(peek_pid(pid).unwrap(), Some(Ended::Exited(7)));
        }
        assert_eq!(reap(pid).unwrap(), Some(Ended::Exited(7)));
        assert_eq!((peek().unwrap(), reap(pid).unwrap()), (None, None));
    });
}

#[test]
fn a_signal_by_pidfd_is_told_with_its_number() {
    in_child(|| {
        let (pid, pidfd) = forked(pause);
        assert!(!has_ended(&pidfd).unwrap());
        assert_eq!((peek().unwrap(), reap(pid).unwrap()), (None, None));
        assert!(!wait_until_ended(&pidfd, Some(Duration::from_millis(1))).unwrap());
        pidfd_send_signal(&pidfd, libc::SIGTERM).unwrap();
        let ended = Ended::Signaled {
            signal: 15,
            core: false,
        };
        assert_eq!((wait(pid).unwrap(), ended.code()), (Some(ended), 143));
        assert_eq!(
            pidfd_send_signal(&pidfd, 0).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    });
}

#[test]
fn a_sibling_is_the_parents_own_child() {
    in_child(|| {
        let (creator, creator_fd) = forked(|| match fork_sibling().unwrap() {
            ForkPidfd::Child => exit_now(5),
            ForkPidfd::Parent { pidfd, .. } => exit_now(i32::from(!wait_until_ended(pidfd, LONG).unwrap())),
        });
        assert!(wait_until_ended(creator_fd, LONG).unwrap());
        let mut ends = Vec::new();
        while let Some((pid, ended)) = peek().unwrap() {
            reap(pid).unwrap();
            ends.push((pid == creator, ended));
        }
        ends.sort_unstable_by_key(|(is_creator, _)| *is_creator);
        assert_eq!(ends, [(false, Ended::Exited(5)), (true, Ended::Exited(0))]);
    });
}

#[test]
fn a_number_used_again_is_not_taken_for_the_process() {
    in_child(|| {
        let (pid, pidfd) = forked(pause);
        let start = start_time(pid).unwrap();
        assert!(open_known(pid, start).unwrap().is_some());
        assert!(open_known(pid, start + 1).unwrap().is_none());
        assert!(children(getpid()).unwrap().contains(&pid));
        assert_eq!(descendants(getpid()).unwrap(), [getpid(), pid]);
        assert_eq!(stat(pid).unwrap().parent, getpid());
        pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
        assert!(wait_until_ended(&pidfd, LONG).unwrap());
        // A zombie is none that runs.
        assert!(open_known(pid, start).unwrap().is_none());
        reap(pid).unwrap();
        assert!(open_known(pid, start).unwrap().is_none());
    });
}

#[test]
fn an_orphan_comes_to_the_subreaper() {
    in_child(|| {
        set_child_subreaper().unwrap();
        let (middle, _) = forked(|| {
            forked(|| exit_now(9));
            exit_now(0)
        });
        wait(middle).unwrap();
        let end = loop {
            if let Some((pid, ended)) = peek().unwrap() {
                break (pid != middle, ended);
            }
            std::thread::yield_now();
        };
        assert_eq!(end, (true, Ended::Exited(9)));
    });
}

#[test]
fn a_signal_comes_by_descriptor_and_dispositions_are_reset() {
    in_child(|| {
        let signals = SignalFd::block(&[libc::SIGUSR1, libc::SIGCHLD]).unwrap();
        assert_eq!(signals.read().unwrap(), None);
        pidfd_send_signal(pidfd_open(getpid()).unwrap(), libc::SIGUSR1).unwrap();
        assert_eq!(
            (signals.read().unwrap(), signals.read().unwrap()),
            (Some(libc::SIGUSR1), None)
        );
        ignore_signal(libc::SIGUSR2).unwrap();
        let of = |name: &str| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            u64::from_str_radix(
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim(),
                16,
            )
            .unwrap()
        };
        // Rust's own runtime ignores SIGPIPE.
        assert!(of("SigBlk:") != 0 && of("SigIgn:") != 0);
        reset_signals().unwrap();
        assert_eq!((of("SigBlk:"), of("SigIgn:")), (0, 0));
    });
}

#[test]
fn a_child_dies_with_its_parent() {
    in_child(|| {
        set_child_subreaper().unwrap();
        let (reader, writer) = crate::pipe::pipe().unwrap();
        let (middle, _) = forked(|| {
            forked(|| {
                die_with_parent().unwrap();
                rustix::io::write(&writer, b"x").unwrap();
                pause();
            });
            let mut byte = [0];
            rustix::io::read(&reader, &mut byte).unwrap();
            exit_now(0)
        });
        assert_eq!(wait(middle).unwrap(), Some(Ended::Exited(0)));
        let orphan = children(getpid()).unwrap();
        for pid in orphan {
            assert_eq!(wait(pid).unwrap(), Some(Ended::Signaled { signal: 9, core: false }));
        }
    });
}

#[test]
fn a_spawned_program_gets_what_it_was_given_and_no_more() {
    let (reader, writer) = crate::pipe::pipe().unwrap();
    let null = crate::file::dev_null().unwrap();
    let script = "echo \"$0 $A ${HOME:-none}\"; ls /proc/self/fd | tr '\\n' ' '; grep SigIgn /proc/self/status";
    let args = ["sh", "-c", script, "name"].map(OsStr::new);
    let env = ["A=b", "PATH=/bin:/usr/bin"].map(OsStr::new);
    let fds = [
        (null.as_fd(), 0),
        (writer.as_fd(), 1),
        (null.as_fd(), 2),
        (null.as_fd(), 5),
    ];
    let pid = spawn(&Exec {
        program: Program::Path(Path::new("/bin/sh")),
        args: &args,
        env: &env,
        fds: &fds,
    })
    .unwrap();
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut text).unwrap();
    assert_eq!(wait(pid).unwrap(), Some(Ended::Exited(0)));
    // 3 is ls's own.
    assert_eq!(text, "name b none\n0 1 2 3 5 SigIgn:\t0000000000000000\n");
}

#[test]
fn a_sealed_copy_can_be_executed_and_a_missing_program_is_an_error() {
    let sealed = crate::memfd::sealed_copy("true", std::fs::File::open("/bin/true").unwrap()).unwrap();
    let args = [OsStr::new("true")];
    let pid = spawn(&Exec {
        program: Program::Fd(sealed.as_fd()),
        args: &args,
        env: &[],
        fds: &[],
    })
    .unwrap();
    assert_eq!(wait(pid).unwrap(), Some(Ended::Exited(0)));
    let missing = Exec {
        program: Program::Path(Path::new("/no/such")),
        args: &args,
        env: &[],
        fds: &[],
    };
    assert_eq!(spawn(&missing).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_title_and_a_name_are_shown() {
    in_child(|| {
        set_name("a name that is much too long").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "a name that is \n");
        set_title_area("berth-shim: ns/id").unwrap();
        let title = std::fs::read("/proc/self/cmdline").unwrap();
        assert!(title.starts_with(b"berth-shim: ns/id\0"), "{title:?}");
    });
}

proptest! {
    #[test]
    fn any_text_is_a_stat_or_not(bytes: Vec<u8>, name in "[^\0]{0,15}") {
        let _ = parse_stat(&bytes);
        let line = format!("7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 11 22 5 6 20 0 1 0 12345 0 0\n");
        let expected = Stat { state: 'S', parent: 1, cpu_ticks: 33, start_time: 12345 };
        prop_assert_eq!(parse_stat(line.as_bytes()), Some(expected));
    }
}

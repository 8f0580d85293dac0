//! What a shim does without: descriptors that are used up, a disk that hangs, writers that die.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use berth_sys::{process, signal};
use berth_wire::hello::Hello;
use berth_wire::rpc::Method;
use berth_wire::shim::{CreateResponse, DeleteRequest, DeleteResponse, State, stdio::To};

use crate::harness::{Box, Client, log, runtimes, to, until};

/// Numbers of its open descriptors.
fn descriptors(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut numbers: Vec<u64> = entries
        .map(|e| e.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_shim_without_free_descriptors_takes_one_daemon_more_and_does_not_spin() {
    let it = Box::new(&runtimes()[0]);
    let open = descriptors(it.shim);
    let limit = open.last().unwrap() + 1;
    process::set_limit_nofile_of(it.shim, (Some(limit), Some(limit))).unwrap();
    let free = limit - open.len() as u64;
    // The last one of these gets what was kept for it.
    let mut taken: Vec<Client> = (0..=free).map(|_| it.connect()).collect();
    for client in &mut taken {
        client.greet(Hello::tool()).unwrap();
    }
    let mut waiting = it.connect();
    waiting.socket().write_all(&Hello::tool().encode()).unwrap();
    let used = || process::stat(it.shim).unwrap().cpu_ticks;
    let before = used();
    // What is looked for is something that does not happen.
    std::thread::sleep(Duration::from_millis(600));
    assert!(used() - before < 20, "{} ticks", used() - before);
    drop(taken.pop());
    let mut answer = [0; berth_wire::hello::LEN];
    waiting.socket().read_exact(&mut answer).unwrap();
    it.end();
}

/// A file system whose server never answers.
struct Mute {
    server: std::process::Child,
    point: std::path::PathBuf,
}

impl Mute {
    /// None where there is no FUSE.
    fn mount(point: std::path::PathBuf) -> Option<Mute> {
        fs::create_dir_all(&point).unwrap();
        let line = "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 mute \"$0\" && exec sleep 1000";
        let mut server = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .arg(&point)
            .spawn()
            .unwrap();
        let mounted = || {
            fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains(point.to_str().unwrap())
        };
        until("mounted, or it can't be", || {
            mounted() || matches!(server.try_wait(), Ok(Some(_)))
        });
        mounted().then_some(Mute { server, point })
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.point).status();
    }
}

#[test]
fn a_fifo_on_a_disk_that_hangs_holds_its_own_create_only() {
    let mut it = Box::new(&runtimes()[0]);
    let mute = Mute::mount(it.dir.join("mute")).expect("a kernel with FUSE (/dev/fuse)");
    let fifo = berth_wire::shim::Fifo {
        stdout: mute.point.join("fifo").to_str().unwrap().into(),
        ..berth_wire::shim::Fifo::default()
    };
    let request = it.request(to(To::Fifo(fifo)), true);
    let create = it.conn.send(Method::Create, &request);
    assert_eq!(it.state().state(), State::Creating);
    let delete = DeleteRequest {
        force: true,
        ..DeleteRequest::default()
    };
    let deleted = it.conn.send(Method::Delete, &delete);
    let (message, _) = it.conn.answer::<CreateResponse>(create).unwrap_err();
    assert!(message.contains("given up"), "{message}");
    it.conn.answer::<DeleteResponse>(deleted).unwrap();
    drop(mute);
    it.end();
}

fn kill_writer(it: &Box) {
    let writer = || {
        let children = process::children(it.shim).unwrap();
        let is_writer = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "berth-writer")
                && process::stat(*pid).is_ok_and(|stat| stat.state != 'Z')
        };
        children.into_iter().find(is_writer)
    };
    until("a writer", || writer().is_some());
    let pid = writer().unwrap();
    let pidfd = process::pidfd_open(pid).unwrap();
    process::pidfd_send_signal(&pidfd, signal::SIGKILL).unwrap();
    until("gone", || writer() != Some(pid));
}

#[test]
fn writers_that_die_now_and_then_are_always_made_again() {
    let mut it = Box::new(&runtimes()[0]);
    it.shell("while :; do echo x; sleep 0.02; done");
    it.run(to(To::Log(log(&it))));
    for _ in 0..8 {
        let before = it.log().len();
        until("it grows", || it.log().len() > before);
        kill_writer(&it);
    }
    it.end();
}

#[test]
fn a_log_that_no_writer_can_write_does_not_hold_the_container() {
    let mut it = Box::new(&runtimes()[0]);
    it.shell("until [ -e /tmp/go ]; do sleep 0.02; done; seq 200000; exit 3");
    it.run(to(To::Log(log(&it))));
    for _ in 0..5 {
        kill_writer(&it);
    }
    fs::write(it.dir.join("bundle/rootfs/tmp/go"), "").unwrap();
    assert_eq!(it.exit().code, 3);
    assert!(it.state().log_dropped_bytes > 1_000_000);
    it.end();
}

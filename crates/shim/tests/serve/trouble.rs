//! What can go wrong around a container: OOM kills, daemons that come and go, hanging runtimes, shims that die.

use std::fs;
use std::os::fd::AsFd;

use berth_core::ErrorCode;
use berth_sys::process;
use berth_sys::{dir, signal, socket};
use berth_wire::hello::{Hello, Verdict};
use berth_wire::rpc::Method;
use berth_wire::shim::{
    AckRequest, AckResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, ExecRequest, ExecResponse,
    ForkRequest, ForkResponse, ShutdownRequest, ShutdownResponse, SignalRequest, SignalResponse, State, StateRequest,
    StateResponse, event::What, stdio::To,
};
use prost::Message;

use crate::harness::{Box, Client, each, log, null, runtimes, spawn, spawn_serve, to, until};

#[test]
fn an_oom_kill_is_told_before_the_exit() {
    each(|it| {
        it.config(
            &["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"],
            |config| {
                config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
            },
        );
        it.run(null());
        let mut events = it.events();
        let Some(What::Oom(oom)) = events.next().what else {
            panic!("no OOM event came first")
        };
        assert!(oom.count >= 1);
        let exit = events.exit_of("");
        assert_eq!((exit.code, exit.signal, exit.oom), (137, 9, true));
        assert_eq!(it.state().oom_kills, oom.count);
    });
}

#[test]
fn a_child_killed_for_memory_is_told_while_the_container_runs() {
    each(|it| {
        let line = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; sleep 1000";
        it.config(&["/bin/sh", "-c", line], |config| {
            config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
        });
        it.run(null());
        assert!(matches!(it.events().next().what, Some(What::Oom(_))));
        assert_eq!(it.state().state(), State::Running);
    });
}

#[test]
fn the_highest_epoch_is_in_charge() {
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        let mut newer = it.connect();
        newer.greet(Hello::daemon(5)).unwrap();
        assert!(it.conn.frame().is_none(), "the older daemon is hung up on");
        assert_eq!(it.connect().greet(Hello::daemon(4)), Err(Verdict::Fenced));
        assert_eq!(
            it.connect().greet(Hello {
                min: 9,
                max: 9,
                ..Hello::daemon(9)
            }),
            Err(Verdict::Version)
        );
        let mut tool = it.connect();
        tool.greet(Hello::tool()).unwrap();
        let refused = tool
            .call::<ShutdownResponse>(Method::Shutdown, &ShutdownRequest {})
            .unwrap_err();
        assert_eq!(ErrorCode::from_number(refused.1.code), Some(ErrorCode::WrongState));
        it.conn = newer;
        assert_eq!(it.state().state(), State::Running);
    });
}

#[test]
fn an_exit_that_nobody_heard_is_told_to_the_next_daemon_until_it_is_acknowledged() {
    each(|it| {
        it.shell("exit 9");
        it.run(null());
        // The daemon dies.
        it.conn = it.connect();
        it.conn.greet(Hello::daemon(2)).unwrap();
        until("the exit is recorded", || it.dir.join("c/exit.json").exists());
        for _ in 0..2 {
            let mut events = it.connect();
            events.greet(Hello::daemon(2)).unwrap();
            events.send(Method::Events, &berth_wire::shim::EventsRequest { after: 0 });
            let mut events = crate::harness::Events(events);
            let event = events.next();
            assert_eq!(event.number, 1);
            let Some(What::Exited(exited)) = event.what else {
                panic!("no exit")
            };
            assert_eq!(exited.exit.unwrap().code, 9);
        }
        let _: AckResponse = it.conn.call(Method::Ack, &AckRequest { number: 1 }).unwrap();
        let state = it.state();
        assert_eq!((state.last_event, state.processes[0].exit.unwrap().code), (1, 9));
    });
}

#[test]
fn peers_that_talk_nonsense_are_hung_up_on() {
    use std::io::Write;
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        for nonsense in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 64]] {
            let mut peer = it.connect();
            peer.socket().write_all(nonsense).unwrap();
            assert!(peer.frame().is_none());
        }
        let mut peer = it.connect();
        peer.greet(Hello::daemon(1)).unwrap();
        peer.socket().write_all(&[0xff; 10]).unwrap();
        assert!(peer.frame().is_none());
        // One that says nothing, and one that was cut, are no trouble.
        let (_mute, mut cut) = (it.connect(), it.connect());
        cut.greet(Hello::daemon(1)).unwrap();
        cut.socket().write_all(&[0, 0, 1, 0]).unwrap();
        drop(cut);
        assert_eq!(it.state().state(), State::Running);
    });
}

fn with_hook(it: &Box, seconds: &str) -> CreateRequest {
    it.config(&["/bin/sleep", "1000"], |config| {
        config["hooks"] =
            serde_json::json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", seconds] }] });
    });
    it.request(null(), true)
}

#[test]
fn a_start_that_waits_for_a_hook_says_so_and_a_late_one_is_undone() {
    each(|it| {
        let mut events = it.events();
        let request = CreateRequest {
            runtime_timeout_ms: 700,
            ..with_hook(it, "100")
        };
        let stream = it.conn.send(Method::Create, &request);
        let wait = events.next();
        assert!(matches!((wait.number, wait.what), (0, Some(What::ForeignWait(_)))));
        let (message, failure) = it.conn.answer::<CreateResponse>(stream).unwrap_err();
        assert_eq!(
            ErrorCode::from_number(failure.code),
            Some(ErrorCode::Timeout),
            "{message}"
        );
        assert_eq!(it.state().state(), State::Empty);
    });
}

#[test]
fn a_delete_by_force_ends_a_create_under_way() {
    each(|it| {
        let mut events = it.events();
        let request = with_hook(it, "100");
        let stream = it.conn.send(Method::Create, &request);
        assert!(matches!(events.next().what, Some(What::ForeignWait(_))));
        let mut other = it.connect();
        other.greet(Hello::daemon(1)).unwrap();
        let delete = DeleteRequest {
            force: true,
            ..DeleteRequest::default()
        };
        let left: DeleteResponse = other.call(Method::Delete, &delete).unwrap();
        assert_eq!(left.left, Vec::<String>::new());
        let (message, failure) = it.conn.answer::<CreateResponse>(stream).unwrap_err();
        assert_eq!(
            ErrorCode::from_number(failure.code),
            Some(ErrorCode::Cancelled),
            "{message}"
        );
    });
}

#[test]
fn what_a_killed_shim_leaves_the_next_one_removes() {
    each(|it| {
        it.shell("sleep 1000");
        let init = it.run(null());
        let pidfd = process::pidfd_open(init.pid).unwrap();
        let shim = process::pidfd_open(it.shim).unwrap();
        process::pidfd_send_signal(&shim, signal::SIGKILL).unwrap();
        process::wait(it.shim).unwrap();
        assert!(it.conn.frame().is_none());
        let (ours, theirs) = socket::stream_pair(false).unwrap();
        it.shim = spawn_serve(&it.id, &it.dir.join("c"), theirs);
        it.conn = Client::new(ours);
        it.conn.greet(Hello::daemon(2)).unwrap();
        let request = CreateRequest {
            cleanup_only: true,
            ..it.request(null(), false)
        };
        let _: CreateResponse = it.conn.call(Method::Create, &request).unwrap();
        let delete = DeleteRequest {
            force: true,
            ..DeleteRequest::default()
        };
        let left: DeleteResponse = it.conn.call(Method::Delete, &delete).unwrap();
        assert_eq!(left.left, Vec::<String>::new());
        assert!(process::has_ended(&pidfd).unwrap());
    });
}

/// A shim of its own folder, without a container.
fn fresh(name: &str) -> (std::path::PathBuf, u32, Client) {
    let dir = std::env::temp_dir().join(format!("shimtest-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (ours, theirs) = socket::stream_pair(false).unwrap();
    let shim = spawn_serve(name, &dir, theirs);
    (dir, shim, Client::new(ours))
}

#[test]
fn a_shim_without_a_container_ends_with_the_last_daemon() {
    let (dir, shim, mut first) = fresh("fresh");
    first.greet(Hello::daemon(1)).unwrap();
    let place = dir::open(&dir).unwrap();
    let connect = || Client::new(socket::connect_at(place.as_fd(), "shim.sock", false).unwrap());
    let (mut second, mut tool) = (connect(), connect());
    second.greet(Hello::daemon(1)).unwrap();
    tool.greet(Hello::tool()).unwrap();
    drop(first);
    let state: StateResponse = second.call(Method::State, &StateRequest {}).unwrap();
    assert_eq!(state.state(), State::Empty);
    drop(second);
    assert!(ends(shim), "it stays for ever");
    assert!(tool.frame().is_none());
    assert!(!dir.join("shim.sock").exists());
    fs::remove_dir_all(dir).unwrap();

    // Its daemon died before it could say a word, and the next one has removed the folder.
    let (dir, shim, first) = fresh("mute");
    until("it serves", || dir.join("shim.json").exists());
    fs::remove_dir_all(dir).unwrap();
    drop(first);
    assert!(ends(shim), "it stays for ever");
}

fn ends(shim: u32) -> bool {
    let pidfd = process::pidfd_open(shim).unwrap();
    let ended = process::wait_until_ended(&pidfd, Some(crate::harness::PATIENCE)).unwrap();
    if !ended {
        process::pidfd_send_signal(&pidfd, signal::SIGKILL).unwrap();
    }
    process::wait(shim).unwrap();
    ended
}

#[test]
fn a_shim_whose_folder_is_gone_ends_when_nothing_lives_and_no_daemon_is_there() {
    each(|it| {
        it.shell("read line; exit 3");
        let fifo = it.dir.join("stdin");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let stdin = berth_wire::shim::Fifo {
            stdin: fifo.to_str().unwrap().into(),
            ..Default::default()
        };
        it.run(to(berth_wire::shim::stdio::To::Fifo(stdin)));
        fs::remove_dir_all(it.dir.join("c")).unwrap();
        let (ours, theirs) = socket::stream_pair(false).unwrap();
        // The daemon goes, the container lives.
        it.conn = Client::new(ours);
        let shim = process::pidfd_open(it.shim).unwrap();
        assert!(!process::wait_until_ended(&shim, Some(std::time::Duration::from_millis(50))).unwrap());
        fs::write(&fifo, "go\n").unwrap();
        assert!(ends(it.shim), "it stays for ever");
        // A next one, so that what the runtime has left goes.
        fs::create_dir(it.dir.join("c")).unwrap();
        it.shim = spawn_serve(&it.id, &it.dir.join("c"), theirs);
        it.conn.greet(Hello::daemon(2)).unwrap();
        let request = CreateRequest {
            cleanup_only: true,
            ..it.request(null(), false)
        };
        let _: CreateResponse = it.conn.call(Method::Create, &request).unwrap();
    });
}

#[test]
fn processes_that_share_the_hosts_pid_namespace_end_with_their_container() {
    each(|it| {
        it.config(&["/bin/sh", "-c", "sleep 1000 & echo left; exit 2"], |config| {
            config["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }]);
        });
        it.run(to(berth_wire::shim::stdio::To::Log(log(it))));
        assert_eq!(it.exit().code, 2);
        assert!(it.log().contains("left"));
    });
}

#[test]
fn the_template_forks_shims_that_outlive_it() {
    each(|it| {
        let (ours, theirs) = socket::seqpacket_pair(false).unwrap();
        let template = spawn(&["berth-shim", "template"], &[(theirs.as_fd(), 3)]);
        drop(theirs);
        let folder = it.dir.join("forked");
        fs::create_dir(&folder).unwrap();
        let place = dir::open_path(&folder).unwrap();
        let (client, shims) = socket::stream_pair(false).unwrap();
        let request = ForkRequest {
            token: 3,
            name: "test/forked".into(),
        };
        socket::send_fds(&ours, &request.encode_to_vec(), &[place.as_fd(), shims.as_fd()]).unwrap();
        drop(shims);
        let mut buffer = [0; 256];
        let mut received = socket::recv_fds(&ours, &mut buffer).unwrap();
        let answer = ForkResponse::decode(&buffer[..received.len]).unwrap();
        let pidfd = received.fds.pop().expect("a pidfd");
        assert_eq!((answer.token, answer.error), (3, 0));
        drop(ours);
        assert_eq!(process::wait(template).unwrap(), Some(process::Ended::Exited(0)));

        let mut client = Client::new(client);
        assert_eq!(
            client.greet(Hello::daemon(1)).unwrap().pid,
            u64::from(answer.pid.unsigned_abs())
        );
        it.shell("exit 8");
        let request = it.request(null(), true);
        let _: CreateResponse = client.call(Method::Create, &request).unwrap();
        let stream = client.send(Method::Events, &berth_wire::shim::EventsRequest { after: 0 });
        assert_eq!(stream, client.frame().unwrap().stream);
        let delete = DeleteRequest {
            force: true,
            ..DeleteRequest::default()
        };
        let _: DeleteResponse = client.call(Method::Delete, &delete).unwrap();
        let _: ShutdownResponse = client.call(Method::Shutdown, &ShutdownRequest {}).unwrap();
        assert!(process::wait_until_ended(&pidfd, Some(crate::harness::PATIENCE)).unwrap());
        fs::remove_dir_all(folder).unwrap();
    });
}

/// What an exec'ed shim has to itself; one that the template forked shares more of it. A build without optimisation has larger tables.
#[test]
fn an_idle_shim_is_small() {
    each(|it| {
        it.shell("sleep 1000");
        it.run(null());
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", it.shim)).unwrap();
        let field = |name: &str| -> u64 {
            rollup
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
                .unwrap()
        };
        let private = field("Private_Dirty:");
        println!("idle shim: PSS {} KiB, private dirty {private} KiB", field("Pss:"));
        assert!(
            private < if cfg!(debug_assertions) { 1000 } else { 350 },
            "{private} KiB"
        );
        let kill = SignalRequest {
            signal: 9,
            ..SignalRequest::default()
        };
        let _: SignalResponse = it.conn.call(Method::Signal, &kill).unwrap();
        assert_eq!(it.exit().code, 137);
    });
}

#[test]
fn an_exec_that_is_being_made_is_there_for_the_next_daemon() {
    each(|it| {
        it.shell("sleep 1000");
        // An exec of this runtime waits for a file.
        let (slow, go) = (it.dir.join("slow"), it.dir.join("go"));
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' exec '*) while [ ! -e {go} ]; do sleep 0.01; done;; esac\nexec {runtime} \"$@\"\n",
            go = go.display(),
            runtime = it.runtime.display(),
        );
        fs::write(&slow, script).unwrap();
        fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        it.runtime = slow;
        it.run(null());
        let exec = ExecRequest {
            exec_id: "e".into(),
            overrides: Some(berth_wire::shim::ExecOverrides {
                args: ["/bin/sh", "-c", "exit 4"].map(String::from).into(),
                ..Default::default()
            }),
            stdio: Some(null()),
            request_id: "r".into(),
            ..ExecRequest::default()
        };
        it.conn.send(Method::Exec, &exec);
        let mut next = it.connect();
        next.greet(Hello::daemon(2)).unwrap();
        it.conn = next;
        let state = it.state();
        assert_eq!((state.processes.len(), state.being_made.len()), (1, 1));
        assert_eq!(state.being_made[0].request_id, "r");
        let join = |exec_id: &str| ExecRequest {
            exec_id: exec_id.into(),
            join: true,
            ..ExecRequest::default()
        };
        let (joined, again) = (
            it.conn.send(Method::Exec, &join("e")),
            it.conn.send(Method::Exec, &exec),
        );
        let refused = it.conn.call::<ExecResponse>(Method::Exec, &join("f")).unwrap_err();
        assert_eq!(ErrorCode::from_number(refused.1.code), Some(ErrorCode::NotFound));
        let other = ExecRequest {
            request_id: "s".into(),
            ..exec
        };
        let refused = it.conn.call::<ExecResponse>(Method::Exec, &other).unwrap_err();
        assert_eq!(ErrorCode::from_number(refused.1.code), Some(ErrorCode::AlreadyExists));
        fs::write(&go, "").unwrap();
        let joined: ExecResponse = it.conn.answer(joined).unwrap();
        let again: ExecResponse = it.conn.answer(again).unwrap();
        assert_eq!(joined, again);
        let exited = it.events_of(2).exited();
        assert_eq!((exited.exec_id.as_str(), exited.pid), ("e", joined.pid));
        assert_eq!(exited.exit.unwrap().code, 4);
    });
}

/// A runtime whose `create` names a process of somebody else's.
fn with_pid(it: &Box, pid: &str) -> CreateRequest {
    let script = it.dir.join("names");
    let find = "for a; do case $p in --pid-file) f=$a;; esac; p=$a; done";
    fs::write(
        &script,
        format!("{find}\ncase \"$*\" in *create*) echo {pid} > $f;; esac\n"),
    )
    .unwrap();
    let mut request = it.request(null(), true);
    let command = berth_wire::shim::Command {
        binary: "/bin/sh".into(),
        args: vec![script.to_str().unwrap().into()],
        ..berth_wire::shim::Command::default()
    };
    request.driver = Some(berth_wire::shim::Driver {
        kind: Some(berth_wire::shim::driver::Kind::Command(command)),
    });
    request
}

#[test]
fn a_pid_that_is_no_child_of_the_shims_is_refused() {
    let mut it = Box::new(&runtimes()[0]);
    let own = std::process::id().to_string();
    for (pid, wanted) in [
        (own.as_str(), "no child of the shim's"),
        ("1", "no child of the shim's"),
        // The creator: a child of the shim's, but not the container's.
        ("$PPID", "another one's"),
    ] {
        let request = with_pid(&it, pid);
        let (message, failure) = it.conn.call::<CreateResponse>(Method::Create, &request).unwrap_err();
        assert_eq!(
            ErrorCode::from_number(failure.code),
            Some(ErrorCode::Runtime),
            "{message}"
        );
        assert!(message.contains(wanted), "{message}");
    }
    it.end();
}

#[test]
fn a_signal_to_all_reaches_every_process_once_for_each_request() {
    each(|it| {
        it.shell("trap 'echo init' USR1; (trap 'echo other' USR1; echo ready; while :; do sleep 1000 & wait; done) & while :; do wait; done");
        let log = log(it);
        it.run(to(To::Log(log)));
        until("ready", || it.log().contains("ready"));
        let request = SignalRequest {
            signal: 10,
            all: true,
            request_id: "one".into(),
            ..SignalRequest::default()
        };
        for _ in 0..2 {
            it.conn.call::<SignalResponse>(Method::Signal, &request).unwrap();
        }
        until("both have it", || {
            it.log().contains("init") && it.log().contains("other")
        });
        assert_eq!(it.log().matches("other").count(), 1);
    });
}

#[test]
fn an_exit_that_waits_for_the_end_of_a_start_does_not_spin() {
    let mut it = Box::new(&runtimes()[0]);
    it.config(&["/bin/true"], |config| {
        let hook = serde_json::json!({ "path": "/bin/sleep", "args": ["sleep", "2"] });
        config["hooks"] = serde_json::json!({ "poststart": [hook] });
    });
    let mut request = it.request(null(), true);
    request.drain_timeout_ms = 100;
    let before = process::stat(it.shim).unwrap().cpu_ticks;
    it.conn.call::<CreateResponse>(Method::Create, &request).unwrap();
    let used = process::stat(it.shim).unwrap().cpu_ticks - before;
    assert!(used < 50, "{used} ticks");
    assert_eq!(it.exit().code, 0);
    it.end();
}

//! A real `berth-shim` with a real runtime and a busybox bundle, driven over its socket as a daemon drives it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_sys::process::{self, Exec, Program};
use berth_sys::{dir, socket};
use berth_wire::hello::{self, Answer, Hello, Verdict};
use berth_wire::rpc::{self, Method, Outcome};
use berth_wire::shim::{
    Command, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, Driver, Event, EventsRequest, Exit, Failure,
    Log, Null, ProcessExited, ShutdownRequest, ShutdownResponse, StateRequest, StateResponse, Stdio, driver::Kind,
    event::What, stdio::To,
};
use berth_wire::ttrpc::{self, Decoder, Frame};
use prost::Message;
use serde_json::{Value, json};

/// Longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The runtimes that are installed.
pub fn runtimes() -> Vec<PathBuf> {
    let found = ["runc", "crun"].into_iter().filter_map(|name| {
        let places = [
            "/usr/sbin",
            "/usr/bin",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/sbin",
            "/bin",
        ];
        places
            .into_iter()
            .map(|place| Path::new(place).join(name))
            .find(|path| path.exists())
    });
    let found: Vec<PathBuf> = found.collect();
    assert!(
        !found.is_empty(),
        "these tests need runc or crun: apt-get install runc crun"
    );
    found
}

/// Runs a test with each runtime.
pub fn each(test: impl Fn(&mut Box)) {
    for runtime in runtimes() {
        eprintln!("with {}", runtime.display());
        let mut under_test = Box::new(&runtime);
        test(&mut under_test);
        under_test.end();
    }
}

/// A container's folder, bundle and shim.
pub struct Box {
    pub dir: PathBuf,
    pub id: String,
    pub runtime: PathBuf,
    pub shim: u32,
    pub conn: Client,
    ended: bool,
}

/// A connection to a shim.
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    stream: u32,
}

impl Box {
    pub fn new(runtime: &Path) -> Box {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("shimtest-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(dir.join("c")).unwrap();
        fs::create_dir_all(dir.join("log")).unwrap();
        fs::create_dir_all(dir.join("bundle/rootfs")).unwrap();
        let (ours, theirs) = socket::stream_pair(false).unwrap();
        let shim = spawn_serve(&id, &dir.join("c"), theirs);
        let mut under_test = Box {
            dir,
            id,
            runtime: runtime.into(),
            shim,
            conn: Client::new(ours),
            ended: false,
        };
        under_test.bundle();
        under_test.conn.greet(Hello::daemon(1)).unwrap();
        under_test
    }

    fn bundle(&self) {
        let root = self.dir.join("bundle/rootfs");
        for folder in ["bin", "proc", "dev", "tmp", "etc", "sys"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
            .or_else(|_| fs::copy("/bin/busybox", root.join("bin/busybox")))
            .unwrap();
        for name in [
            "sh", "sleep", "cat", "echo", "true", "tty", "stty", "dd", "kill", "seq", "wc",
        ] {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
        }
        self.config(&["/bin/true"], |_| {});
    }

    /// Writes config.json.
    pub fn config(&self, args: &[&str], edit: impl FnOnce(&mut Value)) {
        let mount = |to: &str, kind: &str| json!({ "destination": to, "type": kind, "source": kind });
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": { "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args,
                "env": ["PATH=/bin"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"),
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["newinstance", "ptmxmode=0666"] }],
            "linux": {
                "cgroupsPath": format!("/shimtest/{}", self.id),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
                "resources": {},
            },
        });
        edit(&mut config);
        fs::write(self.dir.join("bundle/config.json"), config.to_string()).unwrap();
    }

    pub fn shell(&self, line: &str) {
        self.config(&["/bin/sh", "-c", line], |_| {});
    }

    pub fn request(&self, stdio: Stdio, start: bool) -> CreateRequest {
        let command = Command {
            binary: self.runtime.to_str().unwrap().into(),
            root: self.dir.join("runtime").to_str().unwrap().into(),
            ..Command::default()
        };
        CreateRequest {
            namespace: "test".into(),
            id: self.id.clone(),
            incarnation: "0123456789abcdef0123456789abcdef".into(),
            bundle: self.dir.join("bundle").to_str().unwrap().into(),
            driver: Some(Driver {
                kind: Some(Kind::Command(command)),
            }),
            stdio: Some(stdio),
            start,
            runtime_timeout_ms: 10_000,
            drain_timeout_ms: 1_000,
            ..CreateRequest::default()
        }
    }

    pub fn run(&mut self, stdio: Stdio) -> CreateResponse {
        let request = self.request(stdio, true);
        self.conn.call(Method::Create, &request).unwrap()
    }

    /// A connection through shim.sock, as an adopting daemon makes it.
    pub fn connect(&self) -> Client {
        let folder = dir::open(&self.dir.join("c")).unwrap();
        Client::new(socket::connect_at(folder.as_fd(), "shim.sock", false).unwrap())
    }

    /// The next events on a stream of their own, from the first one on.
    pub fn events(&self) -> Events {
        self.events_of(1)
    }

    /// Likewise, for a daemon of this epoch.
    pub fn events_of(&self, epoch: u64) -> Events {
        let mut client = self.connect();
        client.greet(Hello::daemon(epoch)).unwrap();
        client.send(Method::Events, &EventsRequest { after: 0 });
        Events(client)
    }

    pub fn exit(&self) -> Exit {
        self.events().exit_of("")
    }

    pub fn state(&mut self) -> StateResponse {
        self.conn.call(Method::State, &StateRequest {}).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log/log")).unwrap_or_default()
    }

    /// Deletes by force, shuts down, and looks whether anything is left.
    pub fn end(mut self) {
        self.ended = true;
        let left: DeleteResponse = self
            .conn
            .call(
                Method::Delete,
                &DeleteRequest {
                    force: true,
                    ..DeleteRequest::default()
                },
            )
            .unwrap();
        assert_eq!(left.left, Vec::<String>::new());
        let _: ShutdownResponse = self.conn.call(Method::Shutdown, &ShutdownRequest {}).unwrap();
        assert_eq!(process::wait(self.shim).unwrap(), Some(process::Ended::Exited(0)));
        self.nothing_is_left();
    }

    pub fn nothing_is_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "a mount is left");
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = controller.path().join("shimtest").join(&self.id);
            assert!(!group.exists(), "{} is left", group.display());
        }
        let files: Vec<String> = fs::read_dir(self.dir.join("c"))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !["shim.json", "exit.json", "exit.seq", "exit.reserve"].contains(&name.as_str()))
            .collect();
        assert_eq!(files, Vec::<String>::new());
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        if !self.ended {
            eprintln!("log: {}", self.log());
            let delete = DeleteRequest {
                force: true,
                ..DeleteRequest::default()
            };
            let _ = self.conn.try_call::<DeleteResponse>(Method::Delete, &delete);
            if let Ok(pidfd) = process::pidfd_open(self.shim) {
                let _ = process::pidfd_send_signal(&pidfd, berth_sys::signal::SIGKILL);
                let _ = process::wait(self.shim);
            }
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn spawn_serve(id: &str, folder: &Path, socket: OwnedFd) -> u32 {
    let folder = dir::open_path(folder).unwrap();
    let name = format!("test/{id}");
    spawn(
        &["berth-shim", "serve", "--name", &name],
        &[(folder.as_fd(), 3), (socket.as_fd(), 4)],
    )
}

pub fn spawn(args: &[&str], fds: &[(BorrowedFd<'_>, i32)]) -> u32 {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let built = || env!("CARGO_BIN_EXE_berth-shim").into();
    // For the same tests on a release build.
    let program = std::env::var_os("BERTH_SHIM").map_or_else(built, PathBuf::from);
    process::spawn(&Exec {
        program: Program::Path(&program),
        args: &args,
        env: &[],
        fds,
    })
    .unwrap()
}

impl Client {
    pub fn new(socket: OwnedFd) -> Client {
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client {
            socket,
            decoder: Decoder::new(),
            stream: 1,
        }
    }

    pub fn greet(&mut self, hello: Hello) -> Result<Answer, Verdict> {
        self.socket.write_all(&hello.encode()).unwrap();
        let mut bytes = [0; hello::LEN];
        self.socket.read_exact(&mut bytes).unwrap();
        let answer = Answer::decode(&bytes).unwrap();
        if answer.verdict == Verdict::Ok {
            Ok(answer)
        } else {
            Err(answer.verdict)
        }
    }

    /// Sends a request; gives its stream.
    pub fn send(&mut self, method: Method, message: &impl Message) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        self.socket
            .write_all(&rpc::request(stream, method, message).unwrap())
            .unwrap();
        stream
    }

    pub fn data(&mut self, stream: u32, message: &impl Message) -> std::io::Result<()> {
        self.socket.write_all(&rpc::data(stream, message).unwrap())
    }

    pub fn socket(&mut self) -> &mut UnixStream {
        &mut self.socket
    }

    /// None = the shim has hung up.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.pop().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The answer of a stream, other frames are passed over.
    pub fn answer<R: Message + Default>(&mut self, stream: u32) -> Result<R, (String, Failure)> {
        loop {
            let frame = self.frame().expect("the shim has hung up");
            if frame.stream == stream && frame.kind == ttrpc::Kind::Response {
                return match rpc::parse_response(frame.body).unwrap() {
                    Outcome::Ok(payload) => Ok(R::decode(payload).unwrap()),
                    Outcome::Failed { message, failure } => Err((message, failure)),
                };
            }
        }
    }

    pub fn call<R: Message + Default>(
        &mut self,
        method: Method,
        message: &impl Message,
    ) -> Result<R, (String, Failure)> {
        let stream = self.send(method, message);
        self.answer(stream)
    }

    fn try_call<R: Message + Default>(&mut self, method: Method, message: &impl Message) -> Option<R> {
        let stream = self.stream;
        self.stream += 2;
        self.socket
            .write_all(&rpc::request(stream, method, message).ok()?)
            .ok()?;
        self.answer(stream).ok()
    }
}

/// An Events stream.
pub struct Events(pub Client);

impl Events {
    pub fn next(&mut self) -> Event {
        let frame = self.0.frame().expect("the shim has hung up");
        assert_eq!(frame.kind, ttrpc::Kind::Data);
        Event::decode(frame.body).unwrap()
    }

    pub fn exited(&mut self) -> ProcessExited {
        loop {
            if let Some(What::Exited(exited)) = self.next().what {
                return exited;
            }
        }
    }

    pub fn exit_of(&mut self, exec_id: &str) -> Exit {
        loop {
            let exited = self.exited();
            if exited.exec_id == exec_id {
                return exited.exit.unwrap();
            }
        }
    }
}

pub fn null() -> Stdio {
    Stdio {
        to: Some(To::Null(Null {})),
        ..Stdio::default()
    }
}

pub fn log(under_test: &Box) -> Log {
    Log {
        dir: under_test.dir.join("log").to_str().unwrap().into(),
        max_size: 10 << 20,
        max_files: 3,
        ..Log::default()
    }
}

pub fn to(to: To) -> Stdio {
    Stdio {
        to: Some(to),
        ..Stdio::default()
    }
}

/// Waits for a fact that has no descriptor to wait on.
pub fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

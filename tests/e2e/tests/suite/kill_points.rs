//! SIGKILL at every named stage of every operation, of the daemon and of the shim; then the books must balance.
//!
//! Needs binaries with the feature `failpoints`; `berthd fail-points` and `berth-shim fail-points` print the names, one a line,
//! the operation before the dot.
//!
//! A round: a daemon that will die at the stage; what the operation needs; the operation; the daemon is gone; another takes
//! over; the same request once more by the same request id must be answered; its effect is there once; a bystander has not
//! noticed; all is deleted, and nothing is left.
use berth_e2e::calls::exec_request;
use berth_e2e::daemon::binary;
use berth_e2e::proc::Process;
use berth_e2e::v1::{self, ContainerState, ExitReason};
use berth_e2e::{Bundle, Daemon, LIMIT, Options, Runtime, on_all, until, within};
use tonic::Status;

on_all!(
    create,
    start,
    exec,
    stop,
    exit,
    delete,
    shim_create,
    shim_start,
    shim_exec,
    shim_exit,
    shim_delete
);

/// For each runtime, so that each stage sees at least ten kills.
const ROUNDS: usize = 5;

fn stages(program: &str, operation: &str) -> Vec<String> {
    let output = std::process::Command::new(binary(program))
        .arg("fail-points")
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program} is not built with the feature failpoints"
    );
    let names = String::from_utf8(output.stdout).expect("utf-8");
    let prefix = format!("{operation}.");
    let of: Vec<_> = names
        .lines()
        .map(str::trim)
        .filter(|n| n.starts_with(&prefix))
        .map(str::to_owned)
        .collect();
    assert!(!of.is_empty(), "{program} names no stage of {operation}");
    of
}

/// One container and one request, to be made again after the crash.
struct Round<'a> {
    operation: &'a str,
    id: String,
    bundle: Bundle,
}

const CODE: u32 = 23;

impl Round<'_> {
    fn new<'a>(d: &Daemon, operation: &'a str, id: String) -> Round<'a> {
        let line = format!(
            "echo x >> /out/ran; trap 'exit {CODE}' TERM; while [ ! -e /out/go ]; do sleep 0.02; done; exit {CODE}"
        );
        let bundle = d.sh(&id, &line);
        Round { operation, id, bundle }
    }

    /// What must be there before the operation.
    async fn prepare(&self, d: &Daemon) {
        match self.operation {
            "create" | "run" => {}
            "start" => drop(d.try_create(self.bundle.spec()).await.expect("create")),
            _ => {
                d.run(&self.bundle).await;
                self.bundle.line("ran").await;
            }
        }
        if self.operation == "delete" {
            self.go();
            assert_eq!(d.wait(&self.id).await.code, CODE);
        }
    }

    fn go(&self) {
        std::fs::write(self.bundle.out("go"), "").expect("go");
    }

    async fn act(&self, d: &Daemon) -> Result<(), Status> {
        let mut api = d.connect();
        let (id, request_id) = (self.id.clone(), format!("request-{}", self.id));
        match self.operation {
            "create" => {
                let request = v1::CreateRequest {
                    container: Some(self.bundle.spec()),
                    request_id,
                };
                api.create(request).await.map(drop)
            }
            "run" => {
                let request = v1::RunRequest {
                    container: Some(self.bundle.spec()),
                    request_id,
                };
                api.run(request).await.map(drop)
            }
            "start" => api
                .start(v1::StartRequest {
                    id,
                    request_id,
                    ..Default::default()
                })
                .await
                .map(drop),
            "exec" => {
                let request = exec_request(&id, "e", &["/bin/sh", "-c", "echo x >> /out/exec; exit 9"]);
                api.exec(v1::ExecRequest { request_id, ..request }).await.map(drop)
            }
            "stop" => {
                let timeout_ms = Some(20_000);
                api.stop(v1::StopRequest {
                    id,
                    timeout_ms,
                    request_id,
                    ..Default::default()
                })
                .await
                .map(drop)
            }
            "exit" => {
                self.go();
                api.wait(v1::WaitRequest {
                    id,
                    ..Default::default()
                })
                .await
                .map(drop)
            }
            "delete" => api
                .delete(v1::DeleteRequest {
                    id,
                    request_id,
                    ..Default::default()
                })
                .await
                .map(drop),
            other => panic!("{other}"),
        }
    }

    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.bundle.out(file))
            .unwrap_or_default()
            .lines()
            .count()
    }

    /// After the operation was done for good.
    async fn check(&self, d: &Daemon) {
        match self.operation {
            "create" => {
                let c = d.get(&self.id).await;
                assert_eq!(c.state(), ContainerState::Created);
                assert!(berth_e2e::proc::alive(c.pid));
                assert_eq!(self.lines("ran"), 0);
                d.try_start(&self.id).await.expect("it can be started");
            }
            "start" | "run" => assert_eq!(d.get(&self.id).await.state(), ContainerState::Running),
            "exec" => {
                assert_eq!(d.wait_exec(&self.id, "e").await.code, 9);
                assert_eq!(self.lines("exec"), 1, "the command ran once");
            }
            "stop" | "exit" => {
                let exit = d.wait(&self.id).await;
                assert_eq!((exit.code, exit.reason()), (CODE, ExitReason::Exited));
                return;
            }
            "delete" => {
                assert!(d.list().await.iter().all(|c| c.id != self.id));
                return;
            }
            _ => {}
        }
        self.bundle.line("ran").await;
        assert_eq!(self.lines("ran"), 1, "it started once");
        self.go();
        assert_eq!(d.wait(&self.id).await.code, CODE);
    }
}

struct Bystander(Process);

impl Bystander {
    async fn start(d: &Daemon) -> Bystander {
        let pid = d.run(&d.sleeper("bystander")).await;
        Bystander(Process::find(pid).expect("the bystander"))
    }

    async fn check(&self, d: &Daemon) {
        assert!(self.0.alive());
        let c = d.get("bystander").await;
        assert_eq!((c.pid, c.state()), (self.0.pid, ContainerState::Running));
    }
}

/// Nothing but the bystander: no container, record, cgroup, runtime state, mount.
async fn balance(d: &Daemon) {
    d.check_exits().await;
    assert_eq!(
        d.list().await.into_iter().map(|c| c.id).collect::<Vec<_>>(),
        ["bystander"]
    );
    let names = |dir: std::path::PathBuf| -> Vec<_> {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let mut wrong = String::new();
    let balanced = berth_e2e::until::blocking(LIMIT, || {
        let found = d.leftovers();
        let of_it = |name: &String| name.ends_with("bystander");
        let mut all = names(d.root().join("logs"));
        all.extend(names(d.runtime_root(d.runtime).join("default")));
        all.extend(
            found
                .cgroups
                .iter()
                .filter(|c| !c.to_string_lossy().contains("/bystander"))
                .map(|c| c.display().to_string()),
        );
        all.extend(names(d.state().join("c")));
        all.extend(found.mounts.iter().cloned());
        all.retain(|name| !of_it(name));
        all.extend(found.strays().iter().map(|pid| format!("process {pid}")));
        wrong = format!("{all:?}\n{}", found.describe());
        all.is_empty().then_some(())
    });
    assert!(balanced.is_some(), "more than the bystander is left: {wrong}");
}

/// Run passes the stages of a creation too, and one of them alone.
fn request<'a>(operation: &'a str, stage: &str, round: usize) -> &'a str {
    if operation == "create" && (round % 2 == 1 || stage == "create.told") {
        "run"
    } else {
        operation
    }
}

async fn kill_daemon(rt: Runtime, operation: &str) {
    let mut d = Daemon::start(rt).await;
    let bystander = Bystander::start(&d).await;
    for stage in stages("berthd", operation) {
        let mut kills = 0;
        for i in 0..ROUNDS {
            d.terminate().await;
            d.set_env(&[("BERTH_KILL_AT", &stage)]);
            d.restart().await;
            let round = Round::new(
                &d,
                request(operation, &stage, i),
                format!("{}-{i}", stage.replace('.', "-")),
            );
            round.prepare(&d).await;
            // The answer may have left before the kill.
            let _ = within(&stage, LIMIT, round.act(&d)).await;
            until(&format!("the daemon dies at {stage}"), || d.was_killed().then_some(())).await;
            kills += 1;
            d.set_env(&[]);
            d.restart().await;
            let again = within("the same request again", LIMIT, round.act(&d)).await;
            again.unwrap_or_else(|e| panic!("{stage}: the same request after the crash: {e:?}"));
            round.check(&d).await;
            bystander.check(&d).await;
            d.delete(&round.id).await;
            balance(&d).await;
        }
        println!(
            "{stage}: {kills} kills of the daemon on {}, nothing lost, nothing left",
            rt.name()
        );
    }
}

async fn create(rt: Runtime) {
    kill_daemon(rt, "create").await;
}

async fn start(rt: Runtime) {
    kill_daemon(rt, "start").await;
}

async fn exec(rt: Runtime) {
    kill_daemon(rt, "exec").await;
}

async fn stop(rt: Runtime) {
    kill_daemon(rt, "stop").await;
}

async fn exit(rt: Runtime) {
    kill_daemon(rt, "exit").await;
}

async fn delete(rt: Runtime) {
    kill_daemon(rt, "delete").await;
}

/// The shim dies at the stage: the call may fail, the container may be lost, but that is told, once, and nothing is left.
async fn kill_shim(rt: Runtime, operation: &str) {
    let mut d = Options::new(rt).start().await;
    let bystander = Bystander::start(&d).await;
    for stage in stages("berth-shim", operation) {
        for i in 0..ROUNDS {
            d.terminate().await;
            d.set_env(&[("BERTH_SHIM_KILL_AT", &stage)]);
            d.restart().await;
            let round = Round::new(&d, operation, format!("s-{}-{i}", stage.replace('.', "-")));
            round.prepare(&d).await;
            let shim = match operation {
                "create" => None,
                _ => Process::find(d.get(&round.id).await.shim_pid),
            };
            let result = within(&stage, LIMIT, round.act(&d)).await;
            if let Some(shim) = shim {
                until(&format!("the shim dies at {stage}"), || (!shim.alive()).then_some(())).await;
            }
            if operation == "exit" {
                let exit = d.wait(&round.id).await;
                let known = matches!(
                    (exit.reason(), exit.code),
                    (ExitReason::Exited, CODE) | (ExitReason::Lost, 255)
                );
                assert!(known, "{stage}: {exit:?}");
                assert!(
                    stage != "exit.recorded" || exit.code == CODE,
                    "what is in the record is told"
                );
            } else if result.is_ok() && matches!(operation, "create" | "start" | "exec") {
                let exit = d.wait(&round.id).await;
                assert_eq!((exit.code, exit.reason()), (255, ExitReason::Lost), "{stage}");
            }
            bystander.check(&d).await;
            d.terminate().await;
            d.set_env(&[]);
            d.restart().await;
            d.delete(&round.id).await;
            bystander.check(&d).await;
            balance(&d).await;
        }
        println!("{stage}: {ROUNDS} kills of the shim on {}, nothing left", rt.name());
    }
}

async fn shim_create(rt: Runtime) {
    kill_shim(rt, "create").await;
}

async fn shim_start(rt: Runtime) {
    kill_shim(rt, "start").await;
}

async fn shim_exec(rt: Runtime) {
    kill_shim(rt, "exec").await;
}

async fn shim_exit(rt: Runtime) {
    kill_shim(rt, "exit").await;
}

async fn shim_delete(rt: Runtime) {
    kill_shim(rt, "delete").await;
}

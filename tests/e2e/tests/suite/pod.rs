//! Containers that share namespaces, as those of a pod do.

use berth_e2e::{Daemon, Runtime};
use serde_json::{Value, json};

/// The second joins the user namespace that the first has made: between the shim and its init there is one more process, which the
/// shim has for a moment and which is nobody's container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_container_joins_the_user_namespace_of_the_first() {
    let d = Daemon::start(Runtime::Embedded).await;
    let pid = d.run(&d.sleeper("first").own_users()).await;
    let joining = |c: &mut Value| {
        for kind in ["user", "net", "ipc"] {
            let name = if kind == "net" { "network" } else { kind };
            namespaces(c).retain(|one| one["type"] != name);
            namespaces(c).push(json!({ "type": name, "path": format!("/proc/{pid}/ns/{kind}") }));
        }
    };
    let script =
        "read inside outside size < /proc/self/uid_map; [ $(id -u):$inside:$outside:$$ = 0:0:100000:1 ] && exit 7";
    let second = d.sh("second", script).edit(joining);
    let exit = d.run_to_end(&second).await;
    assert_eq!(exit.code, 7, "{exit:?}");

    let third = d.sleeper("third").edit(joining);
    d.run(&third).await;
    d.exec("third", "e", "exit $(($(id -u) + 3))").await;
    assert_eq!(d.wait_exec("third", "e").await.code, 3);
    for id in ["third", "first"] {
        d.signal(id, "KILL").await;
        assert_eq!(d.wait(id).await.signal, 9);
        d.delete(id).await;
    }
}

/// A hook of the runtime is in the runtime's namespaces, whatever the container joins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_of_one_that_joins_are_in_the_runtimes_namespaces() {
    let d = Daemon::start(Runtime::Embedded).await;
    let pid = d.run(&d.sleeper("first")).await;
    for users in [false, true] {
        let joining = |c: &mut Value| {
            // A user namespace mounts only a /proc whose processes are its own.
            let kinds = [("network", "net"), ("ipc", "ipc"), ("pid", "pid")];
            for (name, kind) in kinds.into_iter().take(if users { 2 } else { 3 }) {
                namespaces(c).retain(|one| one["type"] != name);
                namespaces(c).push(json!({ "type": name, "path": format!("/proc/{pid}/ns/{kind}") }));
            }
        };
        let id = format!("joins-{users}");
        let seen = d.dir.join(&id);
        let line = format!("readlink /proc/self/ns/* > {}", seen.display());
        let b = d.sh(&id, "exit 4").edit(joining).hook("prestart", &line);
        let exit = d.run_to_end(&if users { b.own_users() } else { b }).await;
        assert_eq!(exit.code, 4, "{exit:?}");
        let own = [
            "cgroup", "ipc", "mnt", "net", "pid", "pid", "time", "time", "user", "uts",
        ]
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace"))
        .map(|link| format!("{}\n", link.display()));
        assert_eq!(std::fs::read_to_string(seen).expect("the hook has run"), own.concat());
    }
    d.signal("first", "KILL").await;
    assert_eq!(d.wait("first").await.signal, 9);
}

/// In a user namespace the keyring of the init is the namespace's root's, and an exec joins it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_in_a_user_namespace_joins_the_keyring() {
    let d = Daemon::start(Runtime::Embedded).await;
    d.run(&d.sleeper("mapped").own_users()).await;
    d.exec("mapped", "e", "exit 6").await;
    assert_eq!(d.wait_exec("mapped", "e").await.code, 6);
    d.signal("mapped", "KILL").await;
    assert_eq!(d.wait("mapped").await.signal, 9);
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces")
}

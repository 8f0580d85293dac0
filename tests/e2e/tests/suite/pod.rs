//! Containers that share namespaces, as those of a pod do.

use berth_e2e::{Daemon, Runtime};
use serde_json::{Value, json};

/// The second joins the user namespace that the first has made: between the shim and its init there is one more process, which the
/// shim has for a moment and which is nobody's container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_container_joins_the_user_namespace_of_the_first() {
    let d = Daemon::start(Runtime::Embedded).await;
    let first = d.sleeper("first").edit(|c| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        (c["linux"]["uidMappings"], c["linux"]["gidMappings"]) = (map.clone(), map);
        namespaces(c).push(json!({ "type": "user" }));
    });
    let pid = d.run(&first).await;
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

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces")
}

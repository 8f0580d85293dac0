//! User namespaces: a new one, one that is there already, and mounts whose ids are mapped.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::place::Place;

const MAP: [u32; 2] = [100_000, 65_536];

/// The test's root file system belongs to somebody that the namespace does not know: nothing can be made in it.
fn with_dev(place: &Place, script: &str) -> Value {
    let mut config = place.config(script);
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] }));
    config
}

fn mapped(place: &Place, script: &str) -> Value {
    let mut config = with_dev(place, script);
    let map = json!([{ "containerID": 0, "hostID": MAP[0], "size": MAP[1] }]);
    (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "user" }]);
    config
}

/// A container of a pod whose user namespace the first one made.
fn joining(place: &Place, pid: &str, script: &str) -> Value {
    let mut config = with_dev(place, script);
    config["linux"]["namespaces"] = json!([
        { "type": "user", "path": format!("/proc/{pid}/ns/user") },
        { "type": "ipc", "path": format!("/proc/{pid}/ns/ipc") },
        { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "cgroup" },
    ]);
    config["hostname"] = json!("second");
    config
}

#[test]
fn the_second_container_of_a_pod_joins_the_user_namespace_of_the_first() {
    let (first, second) = (Place::new(), Place::new());
    let mut config = mapped(&first, "exec sleep 1000");
    config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "ipc" }));
    first.write(&config);
    let pid_file = first.path.join("pid").display().to_string();
    let bundle = first.path.join("bundle").display().to_string();
    let detached = [
        "run",
        "--detach",
        "--pid-file",
        &pid_file,
        "--bundle",
        &bundle,
        &first.id,
    ];
    first.call(&detached).well();
    let pid = std::fs::read_to_string(&pid_file).expect("a pid");

    let script = "id -u; hostname; cat /proc/self/uid_map /proc/self/oom_score_adj; echo $$; \
        grep pids: /proc/self/cgroup; ls /proc/self/fd | wc -l";
    let mut config = joining(&second, &pid, script);
    config["process"]["oomScoreAdj"] = json!(500);
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }]);
    let out = second.run(&config).well();
    let words: Vec<&str> = out.split_whitespace().collect();
    let [base, size] = MAP.map(|number| number.to_string());
    assert_eq!(words[..7], ["0", "second", "0", &base, &size, "500", "1"], "{out}");
    assert!(words[7].ends_with(":/"), "{out}");
    second.assert_nothing_left();

    // Created and started apart, and one more process in it.
    second.write(&joining(&second, &pid, "exec sleep 1000"));
    let bundle = second.path.join("bundle").display().to_string();
    second.call(&["create", "--bundle", &bundle, &second.id]).well();
    second.call(&["start", &second.id]).well();
    let id = second.call(&["exec", &second.id, "id", "-u"]).well();
    assert_eq!(id, "0\n");
    second.call(&["delete", "--force", &second.id]).well();
    second.assert_nothing_left();
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let place = Place::new();
    let told = place.run(&joining(&place, "self/nowhere", "true")).refused();
    assert!(told.contains("/proc/self/nowhere/ns/user"), "{told}");
    place.assert_nothing_left();
}

/// The root of a user namespace may not reach the folder that is mounted, and may not raise its limits.
#[test]
fn the_creator_does_what_the_root_of_the_namespace_may_not() {
    let place = Place::new();
    let closed = place.path.join("closed");
    std::fs::create_dir_all(closed.join("data")).expect("folders");
    std::fs::write(closed.join("data/file"), "seen").expect("a file");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("closed");
    let mut config = mapped(&place, "cat /mnt/file; ulimit -n; ulimit -Hn");
    let source = closed.join("data").display().to_string();
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "ro"] }));
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 90, "hard": 100 }]);
    assert_eq!(place.run(&config).well(), "seen90\n100\n");
}

#[test]
fn the_ids_of_a_mount_are_mapped() {
    let place = Place::new();
    let data = place.path.join("data");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("file"), "").expect("a file");
    let mount = |options: Value| json!({ "destination": "/mnt", "type": "bind", "source": data.display().to_string(), "options": options });
    // By its own maps, without a user namespace.
    let mut config = place.config("stat -c '%u %g' /mnt/file; echo > /mnt/made");
    let mut own = mount(json!(["bind"]));
    own["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    own["gidMappings"] = json!([{ "containerID": 0, "hostID": 2000, "size": 10 }]);
    config["process"]["user"] = json!({ "uid": 1003, "gid": 2003 });
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).expect("open");
    config["mounts"].as_array_mut().expect("mounts").push(own);
    assert_eq!(place.run(&config).well(), "1000 2000\n");
    let made = std::fs::metadata(data.join("made")).expect("made");
    assert_eq!((made.uid(), made.gid()), (3, 3));
    // By the maps of the container.
    let mut config = mapped(&place, "stat -c '%u %g' /mnt/file");
    config["mounts"]
        .as_array_mut()
        .expect("mounts")
        .push(mount(json!(["rbind", "ridmap"])));
    assert_eq!(place.run(&config).well(), "0 0\n");
}

//! What the process gets.

use serde_json::json;

use crate::place::Place;

#[test]
fn of_a_variable_that_comes_twice_the_last_counts() {
    let place = Place::new();
    let mut config = place.config("env");
    config["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2"]);
    let out = place.run(&config).well();
    let all: Vec<&str> = out.lines().filter(|line| line.starts_with("A=")).collect();
    assert_eq!(all, ["A=2"]);
}

#[test]
fn a_capability_of_tomorrow_is_told_and_left_out() {
    let place = Place::new();
    let mut config = place.config("cat /proc/self/status");
    let sets = json!(["CAP_KILL", "CAP_TOMORROW"]);
    config["process"]["capabilities"] = json!({ "bounding": sets, "effective": sets, "permitted": sets });
    let said = place.run(&config);
    assert!(said.err.contains("CAP_TOMORROW"), "{}", said.err);
    assert!(said.well().contains("CapEff:\t0000000000000020"));
}

#[test]
fn an_empty_host_name_leaves_the_name_alone() {
    let place = Place::new();
    let mut config = place.config("hostname; cat /proc/sys/kernel/domainname");
    let known = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).expect("a name");
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }]);
    (config["hostname"], config["domainname"]) = (json!(""), json!(""));
    assert_eq!(place.run(&config).well(), known("hostname") + &known("domainname"));
}

#[test]
fn the_working_folder_is_made() {
    let place = Place::new();
    let mut config = place.config("pwd");
    config["process"]["cwd"] = json!("/mnt/not/there");
    config["root"]["readonly"] = json!(true);
    assert_eq!(place.run(&config).well(), "/mnt/not/there\n");
}

#[test]
fn hooks_run_without_a_view_of_cgroups() {
    let place = Place::new();
    let mut config = place.config("true");
    let file = place.path.join("said").display().to_string();
    let hook = |word: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> {file}")] }]);
    config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    place.run(&config).well();
    let said = std::fs::read_to_string(file).expect("hooks ran");
    assert_eq!(said, "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");
}

#[test]
fn clocks_of_a_time_namespace_are_moved() {
    let place = Place::new();
    let mut config = place.config("cat /proc/uptime");
    let file = place.path.join("hook").display().to_string();
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "time" }]);
    config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000 }, "monotonic": { "secs": 5 } });
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat /proc/uptime > {file}")] }]);
    config["hooks"] = json!({ "createRuntime": hook });
    let seconds = |text: &str| -> f64 {
        text.split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("seconds")
    };
    let inside = seconds(&place.run(&config).well());
    let hook = seconds(&std::fs::read_to_string(file).expect("the hook ran"));
    assert!(inside > 100_000_000.0 && hook < 100_000_000.0, "{inside} {hook}");
}

#[test]
fn a_memory_policy_is_the_processs() {
    let place = Place::new();
    let mut config = place.config("grep -m 1 . /proc/self/numa_maps");
    config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let said = place.run(&config);
    if said.code == Some(0) {
        assert!(said.out.contains("bind=static:0"), "{}", said.out);
    } else {
        // A kernel without NUMA.
        assert!(said.err.contains("linux.memoryPolicy MPOL_BIND"), "{}", said.err);
        place.assert_nothing_left();
    }
}

#[test]
fn a_label_that_the_kernel_lacks_is_named() {
    let place = Place::new();
    if std::path::Path::new("/sys/module/apparmor").exists() {
        return;
    }
    let mut config = place.config("true");
    config["process"]["apparmorProfile"] = json!("docker-default");
    let told = place.run(&config).refused();
    assert!(
        told.contains("process.apparmorProfile \"docker-default\": AppArmor is not supported"),
        "{told}"
    );
    place.assert_nothing_left();
}

#[test]
fn a_hosts_name_is_not_the_containers_to_set() {
    let place = Place::new();
    let mut config = place.config("true");
    config["hostname"] = json!("mine");
    let told = place.run(&config).refused();
    assert!(told.contains("hostname: \"mine\""), "{told}");
    place.assert_nothing_left();
}

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

//! Interfaces that the container gets.

use std::process::Command;

use serde_json::json;

use crate::place::Place;

fn ip(args: &[&str]) -> bool {
    let output = Command::new("ip").args(args).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn an_interface_moves_into_the_container_with_its_addresses() {
    let place = Place::new();
    let name = format!("bo{}", std::process::id());
    let peer = format!("{name}p");
    if !ip(&["link", "add", &name, "type", "veth", "peer", "name", &peer]) {
        eprintln!("no veth here");
        return;
    }
    assert!(ip(&["addr", "add", "10.213.7.1/24", "dev", &name]), "an address");
    let script = "cat /proc/net/fib_trie /sys/class/net/eth7/flags; ls /sys/class/net";
    let mut config = place.config(script);
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "network" }]);
    config["linux"]["netDevices"] = json!({ name.as_str(): { "name": "eth7" } });
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }));
    let said = place.run(&config);
    // The other end goes with the namespace; if the move failed it has to be taken away.
    ip(&["link", "del", &peer]);
    let out = said.well();
    assert!(out.contains("10.213.7.1") && out.contains("eth7"), "{out}");
    let flags = out.lines().find_map(|line| line.strip_prefix("0x")).expect("flags");
    assert_eq!(u32::from_str_radix(flags, 16).expect("a number") & 1, 1, "it is up");

    let mut config = place.config("true");
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "network" }]);
    config["linux"]["netDevices"] = json!({ "no-such-if": {} });
    let told = place.run(&config).refused();
    assert!(told.contains("linux.netDevices no-such-if"), "{told}");
    place.assert_nothing_left();
}

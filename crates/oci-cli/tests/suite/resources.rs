//! Limits, as runc takes them.

use serde_json::json;

use crate::place::Place;

/// The container's own view of its cgroups.
fn with_cgroups(place: &Place, script: &str) -> serde_json::Value {
    let mut config = place.config(script);
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    config
}

#[test]
fn zero_is_not_given() {
    let place = Place::new();
    let mut config = place.config("true");
    config["linux"]["resources"] = json!({
        "memory": { "limit": 0, "swap": 0, "reservation": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0 },
        "pids": { "limit": 0 },
    });
    place.run(&config).well();
}

#[test]
fn unified_is_refused_by_name_where_there_is_none() {
    let place = Place::new();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let mut config = place.config("true");
    config["linux"]["resources"] = json!({ "unified": { "memory.high": "1" } });
    let told = place.run(&config).refused();
    assert!(told.contains("linux.resources.unified"), "{told}");
    place.assert_nothing_left();
}

#[test]
fn the_default_devices_are_runcs() {
    let place = Place::new();
    if !std::path::Path::new("/sys/fs/cgroup/devices").exists() {
        return;
    }
    let config = with_cgroups(&place, "cat /sys/fs/cgroup/devices/devices.list");
    let out = place.run(&config).well();
    let mut all: Vec<&str> = out.lines().collect();
    all.sort_unstable();
    let expected = [
        "b *:* m",
        "c 10:200 rwm",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c *:* m",
    ];
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(all, expected);
}

#[test]
fn the_hierarchies_of_v1_are_read_only_on_a_writable_folder() {
    let place = Place::new();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let config = with_cgroups(&place, "cat /proc/self/mountinfo");
    let out = place.run(&config).well();
    let flags = |point: &str| {
        let line = out.lines().find(|line| line.split(' ').nth(4) == Some(point));
        line.and_then(|line| line.split(' ').nth(5)).map(str::to_owned)
    };
    assert!(
        flags("/sys/fs/cgroup").is_some_and(|flags| flags.starts_with("rw,")),
        "{out}"
    );
    assert!(
        flags("/sys/fs/cgroup/pids").is_some_and(|flags| flags.starts_with("ro,")),
        "{out}"
    );
    assert_eq!(flags("/sys/fs/cgroup/unified"), None);
}

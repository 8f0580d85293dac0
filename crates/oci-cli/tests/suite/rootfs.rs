//! The file tree.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::place::Place;

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().expect("mounts").push(mount);
}

#[test]
fn a_target_stays_in_the_root() {
    let place = Place::new();
    let mut config = place.config("cat /proc/self/mountinfo");
    for destination in ["/nowhere/../../x", "mnt/rel"] {
        add(
            &mut config,
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }),
        );
    }
    let out = place.run(&config).well();
    for point in [" /x ", " /mnt/rel "] {
        assert!(out.contains(point), "{out}");
    }
}

#[test]
fn a_read_only_file_system_is_read_only_itself() {
    let place = Place::new();
    let mut config = place.config("cat /proc/self/mountinfo");
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }, { "type": "network" }]);
    add(
        &mut config,
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
    );
    add(
        &mut config,
        json!({ "destination": "/mnt/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }),
    );
    let out = place.run(&config).well();
    assert!(out.contains("- sysfs sysfs ro"), "{out}");
    let tmpfs = out.lines().find(|line| line.contains(" /mnt/t ")).expect("a tmpfs");
    assert!(
        tmpfs.contains(" ro,relatime ") && tmpfs.contains("- tmpfs tmpfs rw"),
        "{tmpfs}"
    );
}

/// The public attack: a root file system whose link makes the runtime mount over what /proc is trusted for.
#[test]
fn nothing_is_mounted_over_what_proc_is_trusted_for() {
    let place = Place::new();
    symlink("proc", place.rootfs().join("link")).expect("a link");
    let tmpfs = |at: &str| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs" });
    let bind = |at: &str| json!({ "destination": at, "type": "bind", "source": "/etc/hostname", "options": ["bind"] });
    for mount in [
        tmpfs("/proc"),
        tmpfs("/proc/self/attr"),
        tmpfs("/link/sys"),
        bind("/link/version"),
        bind("/proc/keys"),
    ] {
        let mut config = place.config("true");
        add(&mut config, mount.clone());
        let told = place.run(&config).refused();
        assert!(
            told.contains("mounts.destination") && told.contains("/proc"),
            "{mount}: {told}"
        );
        place.assert_nothing_left();
    }
    // Files that others may stand in for, and a procfs over a procfs.
    let mut config = place.config("cat /proc/uptime");
    add(
        &mut config,
        json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
    );
    add(&mut config, bind("/proc/uptime"));
    let expected = std::fs::read_to_string("/etc/hostname").expect("a name");
    assert_eq!(place.run(&config).well(), expected);
}

#[test]
fn a_node_of_the_image_takes_the_mode_that_config_says() {
    let place = Place::new();
    let made = std::process::Command::new("mknod")
        .arg(place.rootfs().join("dev/mine"))
        .args(["-m", "600", "c", "1", "3"])
        .status();
    assert!(made.expect("mknod runs").success());
    let mut config = place.config("stat -c '%a %u %g' /dev/mine");
    config["linux"]["devices"] =
        json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 5, "gid": 6 }]);
    assert_eq!(place.run(&config).well(), "666 5 6\n");
}

//! The bundle of a container whose first process is our init: the caller's, with the init mounted and put before the command.
//!
//! The caller's own is left as it is. What is made here lies in the container's folder and goes with it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_core::ErrorCode;
use berth_sys::{dir, file};
use serde_json::{Value, json};

use super::job::failed;
use super::report::Failed;
use crate::init;

const FOLDER: &str = "bundle";

/// Of a bundle that was checked.
pub fn bundle(bundle: &Path, program: &Path, folder: &OwnedFd) -> Result<PathBuf, Failed> {
    let unable =
        |error: std::io::Error| failed(ErrorCode::Internal, format!("create: the bundle with an init: {error}"));
    let text = file::read(&bundle.join("config.json"), berth_runtime::CONFIG_LIMIT).map_err(unable)?;
    let config: Value = serde_json::from_slice(&text).map_err(|error| unable(error.into()))?;
    let config = with_init(config, bundle, program);
    let made = dir::make_at(folder, FOLDER, 0o700).map_err(unable)?;
    file::write_aside(&made, "config.json", config.to_string().as_bytes(), 0o600).map_err(unable)?;
    let own = std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).map_err(unable)?;
    Ok(own.join(FOLDER))
}

fn with_init(mut config: Value, bundle: &Path, program: &Path) -> Value {
    // What was relative to the caller's bundle.
    let absolute = |path: &Value| path.as_str().map(|path| json!(bundle.join(path)));
    config["root"]["path"] = absolute(&config["root"]["path"]).unwrap_or_else(|| json!(bundle.join("rootfs")));
    let mut mounts = config["mounts"].as_array().cloned().unwrap_or_default();
    for mount in &mut mounts {
        let bind = mount["type"] == "bind"
            || mount["options"]
                .as_array()
                .is_some_and(|options| options.iter().any(|option| option == "bind" || option == "rbind"));
        if bind && let Some(source) = absolute(&mount["source"]) {
            mount["source"] = source;
        }
    }
    let place = place(&mounts);
    mounts.push(json!({
        "destination": place, "type": "bind", "source": program, "options": ["bind", "ro", "nosuid", "nodev"],
    }));
    config["mounts"] = mounts.into();
    let command = config["process"]["args"].as_array().cloned().unwrap_or_default();
    config["process"]["args"] = [json!(place), json!("--")].into_iter().chain(command).collect();
    config
}

/// Where it is mounted: in a tmpfs of the container's own if there is one, as the empty file below a mount stays behind.
fn place(mounts: &[Value]) -> String {
    let is_own = |folder: &str| {
        let last = mounts.iter().rfind(|mount| mount["destination"] == folder);
        last.is_some_and(|mount| mount["type"] == "tmpfs")
    };
    let folder = ["/dev", "/run", "/tmp"].into_iter().find(|folder| is_own(folder));
    format!("{}/{}", folder.unwrap_or_default(), init::NAME)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_command_comes_behind_the_init_and_paths_hold() {
        let config = json!({
            "root": { "path": "rootfs" },
            "process": { "args": ["sh", "-c", "true"] },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
                { "destination": "/data", "type": "none", "source": "data", "options": ["rbind"] },
            ],
        });
        let made = with_init(config, Path::new("/b"), Path::new("/usr/bin/berth-shim"));
        assert_eq!(made["root"]["path"], "/b/rootfs");
        assert_eq!(
            made["process"]["args"],
            json!(["/dev/berth-init", "--", "sh", "-c", "true"])
        );
        let sources: Vec<_> = made["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .map(|m| &m["source"])
            .collect();
        assert_eq!(sources, ["proc", "tmpfs", "/b/data", "/usr/bin/berth-shim"]);
        let bare = with_init(
            json!({ "process": { "args": ["a"] } }),
            Path::new("/b"),
            Path::new("/i"),
        );
        assert_eq!(bare["process"]["args"], json!(["/berth-init", "--", "a"]));
        assert_eq!(bare["root"]["path"], "/b/rootfs");
        // The host's /dev is no place of the container's own.
        let host = json!([
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/dev", "type": "bind", "source": "/dev" },
        ]);
        assert_eq!(place(host.as_array().expect("mounts")), "/berth-init");
    }
}

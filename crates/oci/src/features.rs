//! What this runtime can do, in the form of the specification's `features` document, which engines read before they ask.

use serde_json::{Value, json};

use crate::process::NAMES;
use crate::rootfs::options;
use crate::seccomp;

/// Lowest and highest version of config.json that is understood.
const OLDEST: &str = "1.0.0";

/// The document. `program`: name and version of whoever answers.
#[must_use]
pub fn features(program: &str) -> Value {
    let capabilities: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    let flags = seccomp::FLAGS.map(|(name, _)| name);
    json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": crate::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::names(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": false,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::architectures(),
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": seccomp::library_version(),
            "org.opencontainers.runc.checkpoint.enabled": "false",
            "berth.version": program,
        },
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_document_is_the_specifications() {
        let all = features("test");
        let parsed: oci_spec::runtime::Features = serde_json::from_value(all.clone()).expect("features");
        let options = parsed.mount_options().clone().unwrap_or_default();
        for name in ["rro", "rbind", "tmpcopyup", "rnosuid", "ro", "nosymfollow"] {
            assert!(options.iter().any(|known| known == name), "{name}");
        }
        assert!(options.is_sorted());
        assert_eq!(all["linux"]["cgroup"]["v1"], true);
    }
}

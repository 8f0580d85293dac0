//! linux.sysctl: only what belongs to a namespace that the container does not share by default (CVE-2022-0811), written through a
//! /proc that was proved to be procfs (CVE-2025-52881).

use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_sys::namespaces::Namespaces;
use berth_sys::unguarded::without;
use oci_spec::runtime::Spec;

use crate::error::{Context, OciError};
use crate::plan;

const IPC: [&str; 8] = [
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "shmall",
    "shmmax",
    "shmmni",
    "shm_rmid_forced",
];

/// Refuses what would change the host.
pub(crate) fn check(spec: &Spec) -> Result<(), OciError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let own = plan::kinds(spec);
    for (name, value) in linux.sysctl().iter().flatten() {
        let of = path(name).and_then(|path| namespace(&path));
        if !of.is_some_and(|kind| own.contains(kind)) && !without("sysctl") {
            return Err(OciError::field(
                format!("linux.sysctl {name:?}"),
                format!("{value:?}"),
                "only a setting of a namespace that the container has of its own",
            ));
        }
    }
    Ok(())
}

pub(crate) fn apply(spec: &Spec, root: BorrowedFd<'_>) -> Result<(), OciError> {
    let all = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    for (name, value) in all.into_iter().flatten() {
        let Some(path) = path(name) else { continue };
        let file = format!("/proc/sys/{path}");
        berth_sys::execve::write_proc(root, Path::new(&file), value).step("set sysctl", format!("{name}={value}"))?;
    }
    Ok(())
}

/// Below /proc/sys. As sysctl(8): the first of `.` and `/` parts the name, the other stands for a `.` inside of a part.
fn path(name: &str) -> Option<String> {
    let dots = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dots {
        name.chars().map(swap).collect()
    } else {
        name.to_owned()
    };
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    path.split('/').all(plain).then_some(path)
}

fn namespace(path: &str) -> Option<Namespaces> {
    match path.split_once('/')? {
        ("net", _) => Some(Namespaces::NET),
        ("fs", rest) if rest.starts_with("mqueue/") => Some(Namespaces::IPC),
        ("kernel", name) if IPC.contains(&name) => Some(Namespaces::IPC),
        ("kernel", "domainname") => Some(Namespaces::UTS),
        ("user", _) => Some(Namespaces::USER),
        _ => None,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_become_paths_as_sysctl_reads_them() {
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(
            path("net/ipv4/conf/eth0.1/mtu").as_deref(),
            Some("net/ipv4/conf/eth0.1/mtu")
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.mtu").as_deref(),
            Some("net/ipv4/conf/eth0.1/mtu")
        );
        for bad in ["", "net/../kernel/core_pattern", "net..x", "/net/x", "net.//.x"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_hosts_own_settings_are_refused() {
        let spec = |name: &str| -> Spec {
            let text = format!(
                r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":[{{"type":"network"}},{{"type":"ipc"}}],"sysctl":{{"{name}":"1"}}}}}}"#
            );
            serde_json::from_str(&text).expect("a spec")
        };
        for good in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max"] {
            assert!(check(&spec(good)).is_ok(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "vm.swappiness",
            "net/../kernel/core_pattern",
            "kernel.domainname",
            "kernel",
        ] {
            assert!(check(&spec(bad)).is_err(), "{bad}");
        }
    }
}

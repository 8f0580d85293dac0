//! SCMP_ACT_NOTIFY: the kernel asks a program outside of the container, and this is how that program gets to be asked.
//!
//! The process installs its filter and says the number of its listener with write(2), the one call that a rule may not ask about;
//! whoever is at the other end takes the descriptor out of it (pidfd_getfd(2)) and sends it to `listenerPath` with the state that
//! the specification names ("The Container Process State").

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use berth_sys::{process, socket};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use serde_json::{Value, json};

use crate::error::{Context, OciError};

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    path: PathBuf,
    metadata: Option<String>,
}

impl Listener {
    /// The listener of a profile that asks one.
    pub(super) fn of(profile: &LinuxSeccomp) -> Result<Option<Listener>, OciError> {
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(OciError::field(
                "linux.seccomp.defaultAction",
                "SCMP_ACT_NOTIFY",
                "any other action: the process could not even say that it has a listener",
            ));
        }
        if !super::notifies(profile) {
            return Ok(None);
        }
        let mut asked = profile.syscalls().iter().flatten();
        let about_write = asked.any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActNotify && rule.names().iter().any(|name| name == "write")
        });
        if about_write {
            return Err(OciError::field(
                "linux.seccomp.syscalls",
                "write with SCMP_ACT_NOTIFY",
                "any other action: the process could not say that it has a listener",
            ));
        }
        let path = profile.listener_path().clone().filter(|path| path.is_absolute());
        let Some(path) = path else {
            let given = format!("{:?}", profile.listener_path().clone().unwrap_or_default());
            return Err(OciError::field(
                "linux.seccomp.listenerPath",
                given,
                "the absolute path of a socket, with SCMP_ACT_NOTIFY",
            ));
        };
        Ok(Some(Listener {
            path,
            metadata: profile.listener_metadata().clone(),
        }))
    }

    /// Takes descriptor `number` of process `pid` and gives it to the listener. `state`: the container's.
    pub(crate) fn introduce(&self, pid: u32, number: i32, state: &Value) -> Result<(), OciError> {
        let what = || self.path.display().to_string();
        let pidfd = process::pidfd_open(pid).step("open process", pid)?;
        let listener = process::pidfd_take(&pidfd, number).step("take the seccomp listener of", pid)?;
        let mut text = json!({
            "ociVersion": crate::SPEC_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if let Some(metadata) = &self.metadata {
            text["metadata"] = Value::from(metadata.as_str());
        }
        let text = text.to_string();
        let connection = UnixStream::connect(&self.path).step("connect to the seccomp listener", what())?;
        let sent = socket::send_fds(&connection, text.as_bytes(), &[listener.as_fd()]);
        match sent.step("send to the seccomp listener", what())? {
            all if all == text.len() => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::WriteZero)).step("send to the seccomp listener", what()),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn listener(text: &str) -> Result<Option<Listener>, String> {
        Listener::of(&serde_json::from_str(text).expect("a profile")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listener_needs_a_path_and_a_way_to_be_introduced() {
        let rule = |name: &str, more: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW"{more},"syscalls":[{{"names":["{name}"],"action":"SCMP_ACT_NOTIFY"}}]}}"#
            )
        };
        let path = r#","listenerPath":"/run/agent.sock""#;
        assert!(listener(&rule("mkdir", path)).expect("legal").is_some());
        assert!(listener(&rule("mkdir", "")).is_err_and(|told| told.contains("listenerPath")));
        assert!(listener(&rule("write", path)).is_err_and(|told| told.contains("write")));
        assert!(listener(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err_and(|told| told.contains("defaultAction")));
        assert!(
            listener(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)
                .expect("legal")
                .is_none()
        );
    }
}

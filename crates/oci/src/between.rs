//! A container in a user namespace that is there already: a process between the creator and the init.
//!
//! The creator keeps its rights on the host, for it puts the init into its cgroups, sets its oom score and runs its hooks. What the
//! container makes has to belong to the user namespace, so whoever makes the init must be in it. The process between joins it and
//! the others, makes the init as its own sibling, and ends.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use berth_sys::{credentials, process as proc, socket};

use crate::error::{Context, OciError};
use crate::init::{self, Inside};
use crate::plan::Plan;

/// The longest message: a letter and an error's text.
const LONGEST: usize = 4096;

/// Makes the init, which goes on with `inside`; answers its pid. `sibling`: it becomes a child of the caller's parent.
pub(crate) fn make_init<'a>(
    plan: &Plan,
    sibling: bool,
    inside: impl FnOnce() -> Inside<'a>,
) -> Result<(u32, OwnedFd), OciError> {
    let (ours, theirs) = socket::seqpacket_pair(false).step("make", "socketpair")?;
    let clone = CloneOptions {
        namespaces: Namespaces::empty(),
        sibling,
        cgroup: None,
    };
    match namespaces::clone_process(clone).step("clone", "process between")? {
        Cloned::Child => {
            drop(ours);
            let said = match step_in(plan) {
                Ok(Cloned::Child) => {
                    drop(theirs);
                    init::run(inside())
                }
                Ok(Cloned::Parent { pid, pidfd }) => {
                    socket::send_fds(&theirs, &[&b"P"[..], &pid.to_be_bytes()].concat(), &[pidfd.as_fd()])
                }
                Err(error) => {
                    let text = error.to_string();
                    let text = &text.as_bytes()[..text.len().min(LONGEST - 1)];
                    socket::send_fds(&theirs, &[&b"F"[..], text].concat(), &[])
                }
            };
            proc::exit_now(i32::from(said.is_err()))
        }
        Cloned::Parent { pid: between, pidfd } => {
            drop(theirs);
            let mut buffer = [0u8; LONGEST];
            let received = socket::recv_fds(&ours, &mut buffer).step("talk to", "process between");
            let _ = proc::wait_until_ended(&pidfd, None);
            if !sibling {
                let _ = proc::reap(between);
            }
            let mut received = received?;
            match (&buffer[..received.len], received.fds.pop()) {
                ([b'P', pid @ ..], Some(pidfd)) if pid.len() == 4 => {
                    Ok((pid.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)), pidfd))
                }
                ([b'F', text @ ..], _) => Err(OciError::Init {
                    message: String::from_utf8_lossy(text).into_owned(),
                    exit_code: 1,
                }),
                _ => Err(OciError::InitLost),
            }
        }
    }
}

/// Into the namespaces, as root of the user namespace; then the init.
fn step_in(plan: &Plan) -> Result<Cloned, OciError> {
    // Processes of the namespace must not get at the host through this one.
    credentials::set_dumpable(false).step("hide", "process")?;
    plan.join(Namespaces::USER)?;
    credentials::set_uid(0).step("become", "root of the user namespace")?;
    match credentials::set_groups(0, &[]) {
        // The namespace was made by somebody who may not (setgroups denied).
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => credentials::set_gid(0),
        other => other,
    }
    .step("become", "root of the user namespace")?;
    plan.join(Namespaces::ALL.without(Namespaces::USER))?;
    let clone = CloneOptions {
        namespaces: plan.at_clone()?,
        sibling: true,
        cgroup: None,
    };
    namespaces::clone_process(clone).step("clone", "init process")
}

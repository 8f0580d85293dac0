//! linux.netDevices: interfaces of the host that the container gets, with the addresses that they have.
//!
//! The creator takes them; what is to be done in the container's network namespace does a child of it. An interface that is there
//! when the namespace goes is the kernel's to bring back.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use berth_sys::namespaces::{self, CloneOptions, Cloned, Namespaces};
use berth_sys::rtnetlink::{Address, Route};
use berth_sys::{process as proc, socket};
use oci_spec::runtime::Spec;

use crate::error::{Context, OciError};
use crate::plan::Plan;

const LONGEST: usize = 4096;

/// Moves them into the network namespace of `init`.
pub(crate) fn move_all(spec: &Spec, plan: &Plan, init: u32) -> Result<(), OciError> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let Some(wanted) = wanted.filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    let mut wanted: Vec<(&str, &str)> = wanted
        .iter()
        .map(|(name, device)| {
            let new = device.name().as_deref().filter(|new| !new.is_empty());
            (name.as_str(), new.unwrap_or(name))
        })
        .collect();
    wanted.sort_unstable();
    let made;
    let namespace = match plan.joined(Namespaces::NET) {
        Some(namespace) => namespace,
        None => {
            made = File::open(format!("/proc/{init}/ns/net")).step("open network namespace of", init)?;
            made.as_fd()
        }
    };
    let mut route = Route::new().step("open", "rtnetlink socket")?;
    let mut moved = Vec::new();
    for (name, new) in wanted {
        let what = || format!("linux.netDevices {name}");
        let index = route.index(name).step("find", what())?;
        let addresses = route.addresses(index).step("read addresses of", what())?;
        route.set_up(index, false).step("take down", what())?;
        route.move_to(index, new, namespace).step("move", what())?;
        moved.push((new, addresses));
    }
    finish(namespace, &moved)
}

/// In the namespace: what the move has taken.
fn finish(namespace: BorrowedFd<'_>, moved: &[(&str, Vec<Address>)]) -> Result<(), OciError> {
    let (ours, theirs) = socket::seqpacket_pair(false).step("make", "socketpair")?;
    match namespaces::clone_process(CloneOptions::default()).step("clone", "process for interfaces")? {
        Cloned::Child => {
            drop(ours);
            let text = inside(namespace, moved)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            let told = socket::send_fds(&theirs, &text.as_bytes()[..text.len().min(LONGEST)], &[]);
            proc::exit_now(i32::from(told.is_err() || !text.is_empty()))
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut buffer = [0u8; LONGEST];
            let received = socket::recv_fds(&ours, &mut buffer).step("talk to", "process for interfaces");
            let _ = proc::wait_until_ended(&pidfd, None);
            let ended = proc::reap(pid).step("reap", "process for interfaces")?;
            match (ended.map(|ended| ended.code()), received?.len) {
                (Some(0), 0) => Ok(()),
                (_, length) => Err(OciError::Init {
                    message: String::from_utf8_lossy(&buffer[..length]).into_owned(),
                    exit_code: 1,
                }),
            }
        }
    }
}

fn inside(namespace: BorrowedFd<'_>, moved: &[(&str, Vec<Address>)]) -> Result<(), OciError> {
    namespaces::join(namespace, Namespaces::NET).step("join", "network namespace")?;
    let mut route = Route::new().step("open", "rtnetlink socket")?;
    for (name, addresses) in moved {
        let what = || format!("linux.netDevices, {name} in the container");
        let index = route.index(name).step("find", what())?;
        for address in addresses {
            route.add_address(index, address).step("give its address to", what())?;
        }
        route.set_up(index, true).step("bring up", what())?;
    }
    Ok(())
}

//! The template: a warm process that forks shims on request, which costs a sixth of an exec and shares its memory with them.
//!
//! It knows nothing but the daemon's socket (fd 3, SOCK_SEQPACKET) and ends with it; the shims live on, in sessions of their own.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::process::{self, ForkPidfd};
use berth_sys::{signal, socket};
use berth_wire::rpc;
use berth_wire::shim::{CreateRequest, ForkRequest, ForkResponse, StateResponse};
use prost::Message;

use crate::error::Error;
use crate::serve::serve;

/// Longest request.
const LIMIT: usize = 4096;

/// Until the daemon closes its end. In a shim that it forked this returns too, when that shim has ended.
pub fn run(daemon: OwnedFd) -> Result<(), Error> {
    let io = |what: &'static str| Error::io("template", what);
    // All of them once, so that no shim needs to. Shims are nobody's children to wait for.
    process::reset_signals()
        .and_then(|()| process::ignore_signal(signal::SIGPIPE))
        .and_then(|()| process::ignore_signal(signal::SIGCHLD))
        .map_err(io("signals"))?;
    process::set_name("berth-template").map_err(io("name"))?;
    // Room for the titles of shims is not to be seen.
    process::set_title_area("berth-shim template").map_err(io("title"))?;
    warm();
    let mut buffer = [0; LIMIT];
    loop {
        let received = socket::recv_fds(&daemon, &mut buffer).map_err(io("socket"))?;
        if received.len == 0 {
            return Ok(());
        }
        let request = ForkRequest::decode(&buffer[..received.len]);
        // Not one more: it would stay open in the shim for its life.
        let fds: Result<[OwnedFd; 2], _> = received.fds.try_into();
        let (Ok(request), Ok([folder, first]), false) = (request, fds, received.truncated) else {
            return Err(Error::Invalid {
                operation: "template",
                problem: "a request that is none".into(),
            });
        };
        match process::fork_pidfd() {
            Ok(ForkPidfd::Child) => {
                drop(daemon);
                process::setsid().map_err(io("setsid"))?;
                return serve(&request.name, folder, first);
            }
            Ok(ForkPidfd::Parent { pid, pidfd }) => {
                let answer = ForkResponse {
                    token: request.token,
                    pid: pid.cast_signed(),
                    error: 0,
                };
                socket::send_fds(&daemon, &answer.encode_to_vec(), &[pidfd.as_fd()]).map_err(io("socket"))?;
            }
            Err(error) => {
                let error = error.raw_os_error().unwrap_or(1);
                let answer = ForkResponse {
                    token: request.token,
                    pid: 0,
                    error,
                };
                socket::send_fds(&daemon, &answer.encode_to_vec(), &[]).map_err(io("socket"))?;
            }
        }
    }
}

/// Touches what every shim will run first, so that its pages are shared and not made again in each.
fn warm() {
    let request = CreateRequest {
        id: "warm".into(),
        bundle: "/".into(),
        ..CreateRequest::default()
    };
    if let Ok(frame) = rpc::request(1, rpc::Method::Create, &request) {
        let mut decoder = berth_wire::ttrpc::Decoder::new();
        decoder.push(&frame);
        if let Ok(Some(frame)) = decoder.pop() {
            let _ = rpc::parse_request(frame.body);
        }
    }
    let _ = rpc::response_ok(1, &StateResponse::default());
    // What is the same for every shim is found out here.
    let _ = process::boot_id();
    // In a virtual machine each question to the processor costs as much as a fork.
    let _ = process::knows_processor();
    process::malloc_trim();
}

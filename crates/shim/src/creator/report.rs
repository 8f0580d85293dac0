//! What a creator tells the loop, one message each: FIFOs that it has opened, `created` as soon as there is a process, then `done` or `failed`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::socket;
use berth_wire::shim;
use prost::Message;

/// Longest message; texts are cut so that they fit.
const LIMIT: usize = 32 << 10;
const TEXT: usize = 8 << 10;

#[derive(Clone, PartialEq, Message)]
pub struct Report {
    #[prost(message, optional, tag = "1")]
    pub created: Option<Created>,
    #[prost(message, optional, tag = "2")]
    pub failed: Option<Failed>,
    #[prost(bool, tag = "3")]
    pub done: bool,
    #[prost(message, repeated, tag = "4")]
    pub stages: Vec<StageTime>,
    /// Of a delete: what could not be removed.
    #[prost(string, repeated, tag = "5")]
    pub left: Vec<String>,
    /// The message has the loop's ends of FIFOs with it.
    #[prost(bool, tag = "6")]
    pub fifos: bool,
}

pub use shim::StageTime;

/// The new process. It is the loop's child and not reaped before the loop knows of it, so all of this is about the same one.
#[derive(Clone, PartialEq, Message)]
pub struct Created {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(uint64, tag = "2")]
    pub start_time: u64,
    #[prost(string, tag = "3")]
    pub cgroup: String,
    /// OOM kills in the cgroup so far.
    #[prost(uint64, tag = "4")]
    pub oom_kills: u64,
    /// Its pid namespace is not the shim's: nothing of it outlives it, and no orphan of it comes to the shim.
    #[prost(bool, tag = "5")]
    pub own_pid_namespace: bool,
    /// All of its /proc/PID/cgroup.
    #[prost(string, tag = "6")]
    pub membership: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, tag = "3")]
    pub runtime_message: String,
    #[prost(uint32, tag = "4")]
    pub exit_code: u32,
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT));
}

impl Report {
    /// Nobody listens = nobody cares: the shim is gone or has given this creator up.
    pub fn send(mut self, to: impl AsFd) {
        if let Some(failed) = &mut self.failed {
            cut(&mut failed.message);
            cut(&mut failed.runtime_message);
        }
        self.left.truncate(8);
        self.left
            .iter_mut()
            .for_each(|line| line.truncate(line.floor_char_boundary(TEXT / 8)));
        let _ = socket::send(to, &self.encode_to_vec());
    }

    /// What was opened for the loop. An error: it is gone, or the system has no memory for them.
    pub fn send_fifos(to: impl AsFd, fds: &[OwnedFd]) -> io::Result<()> {
        let report = Report {
            fifos: true,
            ..Report::default()
        };
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        socket::send_fds(to, &report.encode_to_vec(), &fds).map(|_| ())
    }

    /// The next report. Ok(None) = not yet; `gone` = no more will come.
    pub fn receive(from: impl AsFd) -> io::Result<Received> {
        // Not on the stack: its pages would stay the shim's for ever.
        let mut buffer = vec![0; LIMIT];
        match socket::recv_fds(from, &mut buffer) {
            Ok(received) if received.len == 0 => Ok(Received::Gone),
            Ok(received) => {
                let report = Report::decode(&buffer[..received.len])
                    .map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source))?;
                Ok(if report.fifos {
                    Received::Fifos(received.fds)
                } else {
                    Received::Report(report)
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
pub enum Received {
    Nothing,
    Gone,
    Report(Report),
    Fifos(Vec<OwnedFd>),
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_report_fits_however_much_a_runtime_says() {
        let (ours, theirs) = socket::seqpacket_pair(true).unwrap();
        let text = "é".repeat(1 << 20);
        let failed = Failed {
            message: text.clone(),
            runtime_message: text.clone(),
            ..Failed::default()
        };
        Report {
            failed: Some(failed),
            left: vec![text; 9],
            ..Report::default()
        }
        .send(&theirs);
        let Received::Report(report) = Report::receive(&ours).unwrap() else {
            panic!("nothing")
        };
        assert!(report.failed.unwrap().message.len() <= TEXT && report.left.len() == 8);
        assert!(matches!(Report::receive(&ours).unwrap(), Received::Nothing));
    }
}

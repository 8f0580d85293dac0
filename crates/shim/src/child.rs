//! One process of the container: its init, or an exec.

use std::os::fd::OwnedFd;
use std::time::Instant;

use berth_wire::shim::{Exit, Process};

use crate::stdio::Stdio;

/// From the request that made it until its Delete. `exec_id` is "" for the init.
#[derive(Debug)]
pub struct Child {
    /// In tokens; never used again.
    pub id: u32,
    pub exec_id: String,
    pub request_id: String,
    pub stdio: Stdio,
    /// None while its creator is at work and has not told.
    pub born: Option<Born>,
    /// A creator works on it (create, start, exec): its exit is told after that call's answer.
    pub busy: bool,
    pub started_at: i64,
    /// Set when it was reaped.
    pub exit: Option<Exit>,
    /// When its exit is told although its output may have more.
    pub drain_by: Option<Instant>,
    /// Its exit is in its record and in the outbox.
    pub told: bool,
    /// OOM kills in the cgroup when it began.
    pub oom_before: u64,
}

#[derive(Debug)]
pub struct Born {
    pub pid: u32,
    pub start_time: u64,
    /// Until it is reaped.
    pub pidfd: Option<OwnedFd>,
    pub own_pid_namespace: bool,
}

impl Child {
    /// One whose creator is about to be forked.
    pub fn new(id: u32, exec_id: String, request_id: String, stdio: Stdio) -> Child {
        Child {
            id,
            exec_id,
            request_id,
            stdio,
            born: None,
            busy: true,
            started_at: 0,
            exit: None,
            drain_by: None,
            told: false,
            oom_before: 0,
        }
    }

    pub fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Made, and not reaped.
    pub fn lives(&self) -> bool {
        self.born.is_some() && self.exit.is_none()
    }

    /// It may have ended.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        match self.born.as_ref().and_then(|born| born.pidfd.as_ref()) {
            Some(pidfd) => berth_sys::process::pidfd_send_signal(pidfd, signal),
            None => Ok(()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.born.as_ref().map_or(0, |born| born.pid)
    }

    pub fn to_wire(&self) -> Process {
        Process {
            exec_id: self.exec_id.clone(),
            pid: self.pid(),
            start_time: self.born.as_ref().map_or(0, |born| born.start_time),
            terminal: self.stdio.terminal,
            started_at: self.started_at,
            exit: self.exit,
            request_id: self.request_id.clone(),
        }
    }
}

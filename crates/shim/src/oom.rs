//! OOM kills. What counts is the cgroup's own counter, read at the start, at every notification and at every exit; a notification
//! only wakes, so that a kill of some other process than the init is told early too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_sys::eventfd::EventFd;
use berth_sys::file;
use berth_sys::inotify;

use crate::cgroup::{self, Version};
use crate::shim::Shim;
use crate::watch::{Poll, Token, Want, Watched};

/// v1 notifies before it kills: the counter is looked at again after these times, then left to the next notification or exit.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
];

#[derive(Debug)]
pub struct OomWatch {
    /// None where the kernel gives no notification; exits are looked at all the same.
    notices: Option<Watched>,
    /// v1's registration lives as long as this file.
    _control: Option<File>,
    before: u64,
    seen: u64,
    pub look_again: Option<Instant>,
    /// Looks since the last notification.
    looked: usize,
}

impl Shim {
    pub fn watch_for_oom(&mut self, before: u64) {
        let group = self
            .container
            .as_ref()
            .map(|container| container.cgroup.clone())
            .unwrap_or_default();
        let (notices, control) = register(&group, &self.poll).map_or((None, None), |(n, c)| (Some(n), c));
        self.oom = Some(OomWatch {
            notices,
            _control: control,
            before,
            seen: before,
            look_again: None,
            looked: AGAIN.len(),
        });
    }

    /// Kills since the start.
    pub fn oom_kills(&self) -> u64 {
        self.oom.as_ref().map_or(0, |oom| oom.seen.saturating_sub(oom.before))
    }

    pub fn oom_ready(&mut self) {
        let Some(oom) = &mut self.oom else { return };
        if let Some(notices) = &mut oom.notices {
            // One read takes an eventfd's count, or all that inotify has for one watch.
            let mut buffer = [0; 512];
            let over = !matches!(file::read_some(&*notices, &mut buffer), Ok(Some(count)) if count > 0);
            if over {
                oom.notices = None;
            }
        }
        oom.looked = 0;
        self.look_for_oom();
    }

    /// Tells kills that were not told yet. Answers the counter.
    pub fn look_for_oom(&mut self) -> u64 {
        let group = self
            .container
            .as_ref()
            .map(|container| container.cgroup.as_str())
            .unwrap_or_default();
        let count = cgroup::oom_kills(group);
        let Some(oom) = &mut self.oom else { return count };
        oom.look_again = None;
        if count > oom.seen {
            oom.seen = count;
            self.outbox.oom(count - oom.before);
        } else if let Some(after) = AGAIN.get(oom.looked) {
            oom.looked += 1;
            oom.look_again = Some(Instant::now() + *after);
        }
        // A group that is gone (systemd removes it at once) counts no more.
        oom.seen
    }
}

fn register(group: &str, poll: &Poll) -> io::Result<(Watched, Option<File>)> {
    if group.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    match cgroup::version() {
        Version::V1 => {
            let control = File::open(cgroup::oom_file(group))?;
            let event = EventFd::new()?;
            let path = cgroup::folder(group).join("cgroup.event_control");
            let fd = OwnedFd::from(event);
            // In one write, or the kernel takes its first piece for all of it.
            let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
            OpenOptions::new().write(true).open(path)?.write_all(line.as_bytes())?;
            Ok((poll.watch(fd, Token::Oom, Want::READ)?, Some(control)))
        }
        Version::V2 => {
            let changes = inotify::watch_changes(&cgroup::oom_file(group))?;
            Ok((poll.watch(changes, Token::Oom, Want::READ)?, None))
        }
    }
}

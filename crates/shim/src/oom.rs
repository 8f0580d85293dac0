//! OOM kills. What counts is the cgroup's own counter, read at the start, at every notification and at every exit; a notification
//! only wakes, so that a kill of some other process than the init is told early too.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_sys::cgroup::OomKills;
use berth_sys::file;

use crate::shim::Shim;
use crate::watch::{Token, Want, Watched};

/// v1 notifies before it kills: the counter is looked at again after these times, then left to the next notification or exit.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
];

#[derive(Debug)]
pub struct OomWatch {
    /// None where nothing counts.
    kills: Option<OomKills>,
    /// None where the kernel gives no notification; exits are looked at all the same.
    notices: Option<Watched>,
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
            .and_then(|container| container.cgroup.group().ok());
        let mut kills = group.as_ref().and_then(|group| OomKills::of(group).ok());
        let notices = kills.as_mut().zip(group.as_ref()).and_then(|(kills, group)| {
            kills.watch(group).ok()?;
            let want = if kills.is_priority() {
                Want::PRIORITY
            } else {
                Want::READ
            };
            self.poll
                .watch(file::duplicate(kills.as_fd()).ok()?, Token::Oom, want)
                .ok()
        });
        self.oom = Some(OomWatch {
            kills,
            notices,
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
        oom.looked = 0;
        self.look_for_oom();
    }

    /// Tells kills that were not told yet. Answers the counter; that of a group that is gone (systemd removes it at once) stays.
    pub fn look_for_oom(&mut self) -> u64 {
        let Some(oom) = &mut self.oom else { return 0 };
        oom.look_again = None;
        match oom.kills.as_mut().map(OomKills::read) {
            Some(Ok(count)) if count > oom.seen => {
                oom.seen = count;
                self.outbox.oom(count - oom.before);
            }
            Some(Ok(_)) => {
                if let Some(after) = AGAIN.get(oom.looked) {
                    oom.looked += 1;
                    oom.look_again = Some(Instant::now() + *after);
                }
            }
            // Its descriptor would stay ready for ever.
            Some(Err(_)) | None => oom.notices = None,
        }
        oom.seen
    }
}

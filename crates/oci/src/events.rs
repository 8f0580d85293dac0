//! What a container uses and what happens to it, as `events` tells it.

use std::time::Duration;

use berth_sys::cgroup::{Group, Hierarchies, OomKills};
use berth_sys::epoll::{Epoll, Interest};
use serde_json::Value;

use crate::error::{Context, OciError};
use crate::state::Container;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What the container uses, in runc's form.
    Stats(Value),
    /// A process of it found no memory.
    Oom,
}

impl Container {
    /// What it uses now.
    ///
    /// # Errors
    /// [`OciError::NotRunning`].
    pub fn stats(&self) -> Result<Value, OciError> {
        if self.init()?.is_none() {
            return Err(OciError::NotRunning);
        }
        Ok(self.cgroups.stats())
    }

    /// Tells what it uses every `interval`, and each lack of memory at once, until it ends or `tell` answers false.
    ///
    /// # Errors
    /// [`OciError::NotRunning`]; as epoll_wait(2).
    pub fn watch(&self, interval: Duration, tell: &mut dyn FnMut(Event) -> bool) -> Result<(), OciError> {
        const END: u64 = 0;
        const MEMORY: u64 = 1;
        let init = self.init()?.ok_or(OciError::NotRunning)?;
        let mut epoll = Epoll::new().step("make", "epoll")?;
        epoll.add(&init, END, Interest::READ).step("watch", self.pid)?;
        // Without that controller there is nothing to be told.
        let group = self.group();
        let mut lack = group.as_ref().and_then(|group| {
            let mut kills = OomKills::of(group).ok()?;
            kills.watch(group).ok()?;
            Some(kills)
        });
        if let Some(kills) = &lack {
            let interest = Interest {
                read: !kills.is_priority(),
                write: false,
                priority: kills.is_priority(),
            };
            epoll.add(kills, MEMORY, interest).step("watch", "memory")?;
        }
        let mut ready = Vec::new();
        loop {
            ready.clear();
            epoll.wait(Some(interval), &mut ready).step("wait for", "events")?;
            if ready.iter().any(|one| one.token == END) {
                return Ok(());
            }
            let event = if ready.is_empty() {
                Event::Stats(self.cgroups.stats())
            } else {
                if lack.as_mut().is_some_and(|kills| kills.read().is_err())
                    && let Some(gone) = lack.take()
                {
                    // Its descriptor would stay ready.
                    epoll.delete(&gone).step("watch", "memory")?;
                    continue;
                }
                Event::Oom
            };
            if !tell(event) {
                return Ok(());
            }
        }
    }

    fn group(&self) -> Option<Group> {
        Hierarchies::detect().ok()?.group_of(self.pid).ok()
    }
}

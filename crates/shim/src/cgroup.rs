//! The container's cgroup: where it is, kept in a form that is small and survives the process.

use std::io;
use std::time::{Duration, Instant};

use berth_sys::cgroup::{Group, Hierarchies, OomKills};

/// How long killed processes may take to leave a group.
const DYING: Duration = Duration::from_millis(500);
/// A text that is longer is not kept; the name finds the group as well, where no hierarchy puts it elsewhere.
const MEMBERSHIP: usize = 8 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// As /proc/PID/cgroup shows it for the memory controller (v1) or the unified hierarchy (v2); "" if there is none.
    pub name: String,
    /// All of /proc/PID/cgroup: under v1 each hierarchy may have another name for it. "" = that is not known.
    pub membership: String,
}

impl Place {
    pub fn of(pid: u32) -> io::Result<Place> {
        let membership = berth_sys::file::read_text(format!("/proc/{pid}/cgroup"))?;
        let name = Hierarchies::usual()?.group_in(&membership).name().to_owned();
        let membership = if membership.len() > MEMBERSHIP {
            String::new()
        } else {
            membership
        };
        Ok(Place { name, membership })
    }

    pub fn named(name: &str) -> Place {
        Place {
            name: name.to_owned(),
            membership: String::new(),
        }
    }

    fn group_in(&self, machine: &Hierarchies) -> io::Result<Group> {
        if self.membership.is_empty() {
            machine.group_named(&self.name)
        } else {
            Ok(machine.group_in(&self.membership))
        }
    }

    pub fn group(&self) -> io::Result<Group> {
        self.group_in(&Hierarchies::usual()?)
    }

    /// Signals every process in it and below it, if it is a container's alone. For creators: there may be many.
    pub fn signal_all(&self, signal: i32) -> io::Result<usize> {
        let machine = Hierarchies::usual()?;
        self.group_in(&machine)?.signal_all(&machine, signal)
    }

    /// OOM kills so far; 0 if nothing counts them.
    pub fn oom_kills(&self) -> u64 {
        let kills = self.group().and_then(|group| OomKills::of(&group));
        kills.map_or(0, |kills| kills.last())
    }

    /// Removes what a runtime has left of it: whoever stays in it keeps it. For creators: it may take a while.
    pub fn remove(&self) {
        let _ = self.group().and_then(|group| group.remove_by(Instant::now() + DYING));
    }

    /// Likewise, of a group that may be another's too: only what is empty goes.
    pub fn remove_empty(&self) {
        let _ = self
            .group()
            .and_then(|group| group.remove_empty(Instant::now() + DYING));
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn each_hierarchy_has_its_own_name_for_it() {
        let (one, other) = ["one", "other"]
            .map(|name| format!("/shimtest-{}-{name}", std::process::id()))
            .into();
        let make = |controller: &str, group: &str| std::fs::create_dir(format!("/sys/fs/cgroup/{controller}{group}"));
        if let Err(error) = make("memory", &one).and_then(|()| make("pids", &other)) {
            return eprintln!("skipped: {error}");
        }
        let place = Place {
            name: one.clone(),
            membership: format!("5:memory:{one}\n4:pids:{other}\n"),
        };
        place.remove();
        assert!(make("memory", &one).is_ok(), "it was left");
        assert!(make("pids", &other).is_ok(), "it was left");
        place.remove_empty();
        assert!(make("pids", &other).is_ok(), "it was left");
        place.remove();
    }

    #[test]
    fn never_takes_the_hosts_group_for_a_containers() {
        for name in ["/", "", "/a/../../../etc"] {
            assert!(Place::named(name).signal_all(0).is_err(), "{name:?}");
        }
        assert!(Place::of(std::process::id()).unwrap().signal_all(0).is_err());
    }
}

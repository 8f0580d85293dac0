//! The options of a mount in config.json, told apart: flags of the mount, recursive flags, propagation, and what goes to
//! the file system itself. The names are those that runc accepts.

use berth_sys::newmount::{Attr, Propagation};

/// What the options of one mount ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub set: Attr,
    pub clear: Attr,
    pub set_recursive: Attr,
    pub clear_recursive: Attr,
    pub bind: bool,
    pub recursive_bind: bool,
    /// In the order given: several are applied one after the other.
    pub propagation: Vec<(Propagation, bool)>,
    pub tmpcopyup: bool,
    pub idmap: Option<Idmap>,
    /// For fsconfig(2).
    pub data: Vec<String>,
}

/// Whether an id-mapped mount takes the mounts below it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idmap {
    This,
    Recursive,
}

impl MountOptions {
    /// Parses the options in their order; a later one wins.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> MountOptions {
        let mut parsed = MountOptions::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if let Some((on, attr)) = flag(option) {
            self.change(on, attr, false);
            return;
        }
        if let Some((on, attr)) = option.strip_prefix('r').and_then(flag) {
            self.change(on, attr, true);
            return;
        }
        if let Some((_, propagation, recursive)) = PROPAGATIONS.iter().find(|(name, _, _)| *name == option) {
            self.propagation.push((*propagation, *recursive));
            return;
        }
        match option {
            // What is so anyway, and what only mount(2) of old knew.
            "defaults" | "async" | "nomand" | "loud" | "silent" | "iversion" | "noiversion" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive_bind) = (true, true),
            // A bind mount's flags are always set on the mount alone.
            "remount" if self.bind => {}
            "tmpcopyup" => self.tmpcopyup = true,
            "idmap" => self.idmap = Some(Idmap::This),
            "ridmap" => self.idmap = Some(Idmap::Recursive),
            // Flags of the super block travel as parameters of the file system.
            data => self.data.push(data.to_owned()),
        }
    }

    fn change(&mut self, on: bool, attr: Attr, recursive: bool) {
        let (set, clear) = if recursive {
            (&mut self.set_recursive, &mut self.clear_recursive)
        } else {
            (&mut self.set, &mut self.clear)
        };
        // The access-time modes exclude one another, and the kernel wants the whole mask cleared to set one.
        if !attr.without(Attr::ATIME_MASK).eq(&attr) || attr == Attr::RELATIME {
            *clear = clear.union(Attr::ATIME_MASK);
            *set = set.without(Attr::ATIME_MASK);
            if on {
                *set = set.union(attr);
            }
            return;
        }
        if on {
            *set = set.union(attr);
            *clear = clear.without(attr);
        } else {
            *clear = clear.union(attr);
            *set = set.without(attr);
        }
    }
}

/// Flags of a mount: the option, whether it sets or clears, and what. With an `r` before it, it is for all mounts below too.
const FLAGS: [(&str, bool, Attr); 18] = [
    ("ro", true, Attr::RDONLY),
    ("rw", false, Attr::RDONLY),
    ("nosuid", true, Attr::NOSUID),
    ("suid", false, Attr::NOSUID),
    ("nodev", true, Attr::NODEV),
    ("dev", false, Attr::NODEV),
    ("noexec", true, Attr::NOEXEC),
    ("exec", false, Attr::NOEXEC),
    ("noatime", true, Attr::NOATIME),
    ("atime", false, Attr::NOATIME),
    ("relatime", true, Attr::RELATIME),
    ("norelatime", false, Attr::RELATIME),
    ("strictatime", true, Attr::STRICTATIME),
    ("nostrictatime", false, Attr::STRICTATIME),
    ("nodiratime", true, Attr::NODIRATIME),
    ("diratime", false, Attr::NODIRATIME),
    ("nosymfollow", true, Attr::NOSYMFOLLOW),
    ("symfollow", false, Attr::NOSYMFOLLOW),
];

fn flag(option: &str) -> Option<(bool, Attr)> {
    let found = FLAGS.iter().find(|(name, _, _)| *name == option)?;
    Some((found.1, found.2))
}

const PROPAGATIONS: [(&str, Propagation, bool); 8] = [
    ("private", Propagation::Private, false),
    ("rprivate", Propagation::Private, true),
    ("shared", Propagation::Shared, false),
    ("rshared", Propagation::Shared, true),
    ("slave", Propagation::Slave, false),
    ("rslave", Propagation::Slave, true),
    ("unbindable", Propagation::Unbindable, false),
    ("runbindable", Propagation::Unbindable, true),
];

/// Flags of a file system, which a bind mount has from its source.
pub(crate) const IGNORED_BY_BIND: [&str; 6] = ["dirsync", "lazytime", "mand", "nolazytime", "remount", "sync"];

/// What else is known: no flag of the mount, and the same for every file system.
const OTHERS: [&str; 15] = [
    "async",
    "bind",
    "defaults",
    "dirsync",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noiversion",
    "nolazytime",
    "nomand",
    "rbind",
    "silent",
    "sync",
    "tmpcopyup",
];

/// Every option that does not go to a file system of its own, in order.
pub(crate) fn names() -> Vec<String> {
    let mut all: Vec<String> = OTHERS.iter().map(|name| (*name).to_owned()).collect();
    all.extend(PROPAGATIONS.iter().map(|(name, _, _)| (*name).to_owned()));
    all.extend(
        FLAGS
            .iter()
            .flat_map(|(name, _, _)| [(*name).to_owned(), format!("r{name}")]),
    );
    all.sort();
    all
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_later_option_wins() {
        let parsed = MountOptions::parse(["ro", "nosuid", "rw"]);
        assert_eq!(parsed.set, Attr::NOSUID);
        assert_eq!(parsed.clear, Attr::RDONLY);
    }

    #[test]
    fn recursive_flags_are_not_the_mounts_own() {
        let parsed = MountOptions::parse(["rbind", "rro", "rw"]);
        assert!(parsed.bind && parsed.recursive_bind);
        assert_eq!(parsed.set, Attr::empty());
        assert_eq!(parsed.set_recursive, Attr::RDONLY);
    }

    #[test]
    fn access_time_modes_exclude_one_another() {
        let parsed = MountOptions::parse(["noatime", "strictatime"]);
        assert_eq!(parsed.set, Attr::STRICTATIME);
        assert_eq!(parsed.clear, Attr::ATIME_MASK);
        let parsed = MountOptions::parse(["noatime", "relatime"]);
        assert_eq!((parsed.set, parsed.clear), (Attr::empty(), Attr::ATIME_MASK));
    }

    #[test]
    fn what_is_no_flag_goes_to_the_file_system() {
        let parsed = MountOptions::parse(["mode=755", "size=65536k", "tmpcopyup", "rslave"]);
        assert_eq!(parsed.data, ["mode=755", "size=65536k"]);
        assert!(parsed.tmpcopyup);
        assert_eq!(parsed.propagation, [(Propagation::Slave, true)]);
    }
}

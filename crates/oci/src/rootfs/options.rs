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
        match option {
            "defaults" | "async" | "nomand" | "loud" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive_bind) = (true, true),
            "private" => self.propagation.push((Propagation::Private, false)),
            "rprivate" => self.propagation.push((Propagation::Private, true)),
            "shared" => self.propagation.push((Propagation::Shared, false)),
            "rshared" => self.propagation.push((Propagation::Shared, true)),
            "slave" => self.propagation.push((Propagation::Slave, false)),
            "rslave" => self.propagation.push((Propagation::Slave, true)),
            "unbindable" => self.propagation.push((Propagation::Unbindable, false)),
            "runbindable" => self.propagation.push((Propagation::Unbindable, true)),
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

fn flag(option: &str) -> Option<(bool, Attr)> {
    Some(match option {
        "ro" => (true, Attr::RDONLY),
        "rw" => (false, Attr::RDONLY),
        "nosuid" => (true, Attr::NOSUID),
        "suid" => (false, Attr::NOSUID),
        "nodev" => (true, Attr::NODEV),
        "dev" => (false, Attr::NODEV),
        "noexec" => (true, Attr::NOEXEC),
        "exec" => (false, Attr::NOEXEC),
        "noatime" => (true, Attr::NOATIME),
        "atime" => (false, Attr::NOATIME),
        "relatime" | "norelatime" => (option == "relatime", Attr::RELATIME),
        "strictatime" => (true, Attr::STRICTATIME),
        "nostrictatime" => (false, Attr::STRICTATIME),
        "nodiratime" => (true, Attr::NODIRATIME),
        "diratime" => (false, Attr::NODIRATIME),
        "nosymfollow" => (true, Attr::NOSYMFOLLOW),
        "symfollow" => (false, Attr::NOSYMFOLLOW),
        _ => return None,
    })
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

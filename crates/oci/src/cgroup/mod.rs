//! The container's cgroups: where they are, what is written into them, and how they go away.
//!
//! Invariants: every path is below a controller's mount and has no `..`; a cgroup that existed before is used and not
//! removed by an undo; a limit that can't be set is an error and names the file and the value.

mod v1;
mod values;

pub(crate) use v1::V1;

use oci_spec::runtime::LinuxResources;

use crate::error::OciError;

/// The cgroups of one container under whichever hierarchy this machine has.
#[derive(Debug)]
pub enum Cgroups {
    V1(V1),
}

impl Cgroups {
    /// Makes the cgroups at `path` (config.json's cgroupsPath; empty = named `id` below the caller's own) and writes the limits.
    ///
    /// # Errors
    /// A path that leaves the hierarchy, a controller that is not mounted but needed, a limit that the kernel refuses.
    pub fn create(path: &str, id: &str, resources: Option<&LinuxResources>) -> Result<Cgroups, OciError> {
        let path = checked(path)?;
        Ok(Cgroups::V1(V1::create(&path, id, resources)?))
    }

    /// Puts a process into all of them.
    ///
    /// # Errors
    /// As a write to cgroup.procs.
    pub fn join(&self, pid: u32) -> Result<(), OciError> {
        match self {
            Cgroups::V1(groups) => groups.join(pid),
        }
    }

    /// Removes what [`Cgroups::create`] made.
    pub fn undo(&self) {
        match self {
            Cgroups::V1(groups) => groups.undo(),
        }
    }

    /// Folders by controller, for the state file.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, String)> {
        match self {
            Cgroups::V1(groups) => groups.paths(),
        }
    }
}

/// Normal components only: `..` would leave the hierarchy.
fn checked(path: &str) -> Result<String, OciError> {
    if path.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err(OciError::field(
            "linux.cgroupsPath",
            format!("{path:?}"),
            "a path without `..`",
        ));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let absolute = if path.starts_with('/') { "/" } else { "" };
    Ok(format!("{absolute}{}", parts.join("/")))
}

#[cfg(test)]
mod test {
    use super::checked;

    #[test]
    fn a_path_stays_in_the_hierarchy() {
        assert_eq!(checked("/a//b/./c/").expect("legal"), "/a/b/c");
        assert_eq!(checked("a/b").expect("legal"), "a/b");
        assert_eq!(checked("").expect("legal"), "");
        assert!(checked("/a/../../b").is_err());
        assert!(checked("a\0b").is_err());
    }
}

//! linux.intelRdt: the share of caches and memory bandwidth, by the kernel's resctrl file system.
//!
//! A group is a folder: its `schemata` say what it may use, its `tasks` who is in it. Without a closID the group is the container's
//! own, has its id, and goes with it; another is the caller's and stays. No machine of the project's tests has that hardware: the
//! tests use a tree of plain files, recorded from the kernel's documentation.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_sys::newmount;
use oci_spec::runtime::{LinuxIntelRdt, Spec};

use crate::error::{Context, OciError};

const ROOT: &str = "/sys/fs/resctrl";
const MAGIC: i64 = 0x0765_5821;

/// Refuses what can't be.
pub(crate) fn check(spec: &Spec) -> Result<(), OciError> {
    let Some(wanted) = wanted(spec) else { return Ok(()) };
    let clos = clos(wanted);
    if matches!(clos, "." | "..") || clos.contains('\0') || clos.len() > 1 && clos.contains('/') {
        return Err(OciError::field(
            "linux.intelRdt.closID",
            format!("{clos:?}"),
            "the name of a folder",
        ));
    }
    let there = File::open(ROOT).and_then(|root| newmount::filesystem_magic(root.as_fd()));
    if !matches!(there, Ok(MAGIC)) {
        return Err(OciError::Unsupported {
            what: format!("linux.intelRdt: {ROOT} (resctrl)"),
        });
    }
    Ok(())
}

fn wanted(spec: &Spec) -> Option<&LinuxIntelRdt> {
    spec.linux().as_ref()?.intel_rdt().as_ref()
}

fn clos(wanted: &LinuxIntelRdt) -> &str {
    wanted.clos_id().as_deref().unwrap_or_default()
}

/// The lines for `schemata`: those given as such, then the older fields.
fn schemata(wanted: &LinuxIntelRdt) -> Vec<&str> {
    let older = [wanted.l3_cache_schema(), wanted.mem_bw_schema()];
    let older = older.into_iter().flatten().flat_map(|text| text.lines());
    wanted
        .schemata()
        .iter()
        .flatten()
        .map(String::as_str)
        .chain(older)
        .collect()
}

/// Makes the container's group and puts the process into it.
pub(crate) fn join(spec: &Spec, id: &str, pid: u32) -> Result<(), OciError> {
    match wanted(spec) {
        Some(wanted) => join_below(Path::new(ROOT), wanted, id, pid),
        None => Ok(()),
    }
}

/// Removes what [`join`] made. Can be repeated.
pub(crate) fn remove(spec: &Spec, id: &str) -> Result<(), OciError> {
    match wanted(spec) {
        Some(wanted) => remove_below(Path::new(ROOT), wanted, id),
        None => Ok(()),
    }
}

fn group(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> PathBuf {
    match clos(wanted) {
        "" => root.join(id),
        // The default group.
        "/" => root.to_owned(),
        name => root.join(name),
    }
}

fn monitor(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> Option<PathBuf> {
    let asked = wanted.enable_monitoring().as_ref() == Some(&true);
    asked.then(|| group(root, wanted, id).join("mon_groups").join(id))
}

fn join_below(root: &Path, wanted: &LinuxIntelRdt, id: &str, pid: u32) -> Result<(), OciError> {
    let group = group(root, wanted, id);
    let lines = schemata(wanted);
    let prepared = !clos(wanted).is_empty() && lines.is_empty();
    if prepared && !group.is_dir() {
        let what = format!("linux.intelRdt.closID {:?} without a schema", clos(wanted));
        return Err(io::Error::from(io::ErrorKind::NotFound)).step("find", what);
    }
    make(&group)?;
    for line in lines {
        write(root, &group.join("schemata"), &format!("{line}\n"))?;
    }
    write(root, &group.join("tasks"), &pid.to_string())?;
    if let Some(monitor) = monitor(root, wanted, id) {
        make(&monitor)?;
        write(root, &monitor.join("tasks"), &pid.to_string())?;
    }
    Ok(())
}

fn remove_below(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> Result<(), OciError> {
    // Its monitor goes with it.
    let own = clos(wanted).is_empty().then(|| group(root, wanted, id));
    let Some(folder) = own.or_else(|| monitor(root, wanted, id)) else {
        return Ok(());
    };
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.step("remove", folder.display()),
    }
}

fn make(folder: &Path) -> Result<(), OciError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.step("make", folder.display()),
    }
}

/// One write(2) a line; what was wrong with it says another file.
fn write(root: &Path, file: &Path, text: &str) -> Result<(), OciError> {
    let mut opened = File::options().write(true).open(file).step("open", file.display())?;
    io::Write::write_all(&mut opened, text.as_bytes()).map_err(|source| {
        let said = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
        OciError::Step {
            step: "set",
            what: format!("{} to {:?} ({})", file.display(), text.trim_end(), said.trim_end()),
            source,
        }
    })
}

#[cfg(test)]
mod test {
    use super::*;

    /// A tree as the kernel's documentation shows it; a group's files are there at once, as resctrl makes them.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, groups: &[&str]) -> Tree {
            let root = std::env::temp_dir().join(format!("berth-oci-rdt-{}-{name}", std::process::id()));
            for group in groups {
                let folder = root.join(group);
                fs::create_dir_all(folder.join("mon_groups/c")).expect("a group");
                for file in ["schemata", "tasks", "mon_groups/c/tasks"] {
                    fs::write(folder.join(file), "").expect("a file");
                }
            }
            Tree(root)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).expect("a file")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rdt(text: &str) -> LinuxIntelRdt {
        serde_json::from_str(text).expect("legal")
    }

    #[test]
    fn a_container_has_a_group_of_its_own() {
        let tree = Tree::new("own", &["c"]);
        join_below(
            &tree.0,
            &rdt(r#"{"l3CacheSchema":"L3:0=ff","enableMonitoring":true}"#),
            "c",
            7,
        )
        .expect("joined");
        assert_eq!(tree.read("c/schemata"), "L3:0=ff\n");
        assert_eq!(
            (tree.read("c/tasks"), tree.read("c/mon_groups/c/tasks")),
            ("7".into(), "7".into())
        );
    }

    #[test]
    fn a_group_that_was_prepared_must_be_there_and_stays() {
        let tree = Tree::new("prepared", &["gold"]);
        let gold = rdt(r#"{"closID":"gold"}"#);
        join_below(&tree.0, &gold, "c", 7).expect("joined");
        assert_eq!(tree.read("gold/tasks"), "7");
        remove_below(&tree.0, &gold, "c").expect("nothing to do");
        assert_eq!(tree.read("gold/tasks"), "7");
        let told = join_below(&tree.0, &rdt(r#"{"closID":"lead"}"#), "c", 7).expect_err("not there");
        assert!(told.to_string().contains("closID \"lead\""), "{told}");
    }

    #[test]
    fn what_was_made_goes_and_can_be_gone() {
        let tree = Tree::new("made", &["x"]);
        fs::create_dir(tree.0.join("c")).expect("a group");
        let own = rdt(r#"{"memBwSchema":"MB:0=20"}"#);
        remove_below(&tree.0, &own, "c").expect("removed");
        assert!(!tree.0.join("c").exists());
        remove_below(&tree.0, &own, "c").expect("gone already");
    }
}

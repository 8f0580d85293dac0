//! What is known before the clock starts: one bundle's config.json as the arguments of system calls to come.

use std::fs;
use std::path::{Path, PathBuf};

use berth_oci::Filter;
use berth_oci::oci_spec::runtime::{LinuxNamespaceType, Spec};
use berth_sys::credentials::Capabilities;
use berth_sys::namespaces::Namespaces;

use crate::Result;

/// One container to be.
pub struct Plan {
    pub rootfs: PathBuf,
    pub hostname: String,
    pub namespaces: Namespaces,
    pub groups: Vec<Group>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub capabilities: Capabilities,
    pub seccomp: Option<Filter>,
    pub no_new_privs: bool,
    pub oom_score_adj: Option<i32>,
    pub args: Vec<String>,
    pub env: Vec<String>,
}

/// Its cgroup in one hierarchy.
pub struct Group {
    /// As /proc/PID/cgroup names it.
    pub controllers: String,
    pub name: String,
    pub folder: PathBuf,
    /// File and value, in order.
    pub writes: Vec<(&'static str, String)>,
}

const HIERARCHIES: &str = "/sys/fs/cgroup";

/// As every runtime: making nodes, the default devices, terminals.
const ALWAYS_ALLOWED: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:8 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:5 rwm",
    "c 1:9 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
];

impl Plan {
    pub fn read(bundle: &Path) -> Result<Plan> {
        let (spec, _) = berth_oci::load(bundle).map_err(|error| error.to_string())?;
        let linux = spec.linux().as_ref().ok_or("no linux")?;
        let process = spec.process().as_ref().ok_or("no process")?;
        let mut namespaces = Namespaces::empty();
        for namespace in linux.namespaces().iter().flatten() {
            namespaces = namespaces.union(match namespace.typ() {
                LinuxNamespaceType::Pid => Namespaces::PID,
                LinuxNamespaceType::Ipc => Namespaces::IPC,
                LinuxNamespaceType::Uts => Namespaces::UTS,
                LinuxNamespaceType::Mount => Namespaces::MOUNT,
                LinuxNamespaceType::Network => Namespaces::NET,
                other => return Err(format!("the floor makes no {other:?} namespace")),
            });
        }
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
        let seccomp = linux.seccomp().as_ref().map(Filter::compile).transpose();
        Ok(Plan {
            rootfs: spec.root().as_ref().ok_or("no root")?.path().clone(),
            hostname: spec.hostname().clone().unwrap_or_default(),
            namespaces,
            groups: groups(&spec)?,
            masked: paths(linux.masked_paths()),
            readonly: paths(linux.readonly_paths()),
            capabilities: berth_oci::capability_sets(process).map_err(|error| error.to_string())?,
            seccomp: seccomp.map_err(|error| error.to_string())?,
            no_new_privs: process.no_new_privileges() == Some(true),
            oom_score_adj: process.oom_score_adj(),
            args: process.args().clone().unwrap_or_default(),
            env: process.env().clone().unwrap_or_default(),
        })
    }
}

fn groups(spec: &Spec) -> Result<Vec<Group>> {
    let linux = spec.linux().as_ref().ok_or("no linux")?;
    let path = linux.cgroups_path().as_ref().ok_or("no linux.cgroupsPath")?;
    let path = path
        .strip_prefix("/")
        .map_err(|_| "linux.cgroupsPath must be absolute")?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let name = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" => "unified",
            name => name,
        };
        let hierarchy = Path::new(HIERARCHIES).join(name);
        if !hierarchy.is_dir() {
            continue;
        }
        let folder = hierarchy.join(path);
        let has = |wanted: &str| controllers.split(',').any(|name| name == wanted);
        let mut writes = Vec::new();
        if has("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(hierarchy.join(file)).map_err(|error| error.to_string())?;
                writes.push((file, value.trim().to_owned()));
            }
        }
        if has("devices") {
            writes.push(("devices.deny", "a".to_owned()));
            let rules = linux
                .resources()
                .as_ref()
                .and_then(|resources| resources.devices().as_ref());
            for rule in rules.into_iter().flatten().filter(|rule| rule.allow()) {
                let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
                writes.push((
                    "devices.allow",
                    format!("c {}:{} rwm", number(rule.major()), number(rule.minor())),
                ));
            }
            writes.extend(ALWAYS_ALLOWED.map(|rule| ("devices.allow", rule.to_owned())));
        }
        make_parents(&folder, has("cpuset"))?;
        groups.push(Group {
            controllers: controllers.to_owned(),
            name: name.to_owned(),
            folder,
            writes,
        });
    }
    Ok(groups)
}

/// The cgroups above the container's are not its own.
fn make_parents(folder: &Path, cpuset: bool) -> Result<()> {
    let parent = folder.parent().ok_or("no parent")?;
    if parent.is_dir() || parent == Path::new(HIERARCHIES) {
        return Ok(());
    }
    make_parents(parent, cpuset)?;
    match fs::create_dir(parent) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    if cpuset && let Some(above) = parent.parent() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let value = fs::read_to_string(above.join(file)).map_err(|error| error.to_string())?;
            fs::write(parent.join(file), value).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

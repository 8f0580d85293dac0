//! What has to be done for one spec, worked out before anything is made: namespaces new and old, what must wait for what.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::limits::{self, Scheduling};
use berth_sys::namespaces::{self, Namespaces};
use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxNamespaceType, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec,
};
use serde_json::{Value, json};

use crate::error::{Context, OciError};
use crate::seccomp::Filter;

/// The plan of one container.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces to make.
    pub new: Namespaces,
    /// Namespaces to join.
    pub join: Vec<(Namespaces, OwnedFd, PathBuf)>,
    /// A new user namespace: its maps are to be written.
    pub maps_users: bool,
    /// One by path.
    pub joins_users: bool,
    /// The creator makes bind mounts for it.
    pub sources: bool,
    pub setgroups: bool,
    /// The process must be in its cgroups before it mounts: it shows them, or has a namespace of them. Or it waits for another word
    /// of its creator, which comes after that one.
    pub join_first: bool,
    pub hooks_before_pivot: bool,
    pub seccomp: Option<Filter>,
    pub scheduling: SchedulingPlan,
    id: String,
    bundle: PathBuf,
    annotations: HashMap<String, String>,
    /// As timens_offsets takes them.
    time_offsets: String,
}

/// CPU and I/O scheduling of the process.
#[derive(Debug, Default)]
pub(crate) struct SchedulingPlan {
    cpu: Option<Scheduling>,
    io: Option<(u32, u32)>,
}

/// linux/sched.h.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// linux.memoryPolicy for the calling process and what it executes.
pub(crate) fn set_memory_policy(policy: &LinuxMemoryPolicy) -> Result<(), OciError> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    let text = policy.nodes().as_deref().unwrap_or_default();
    let nodes = number_list(text).unwrap_or_default();
    limits::set_memory_policy(mode | flags, &nodes).step("set", format!("linux.memoryPolicy {} {text}", policy.mode()))
}

impl SchedulingPlan {
    pub(crate) fn of(process: &Process) -> SchedulingPlan {
        let cpu = process.scheduler().as_ref().map(|wanted| Scheduling {
            policy: match wanted.policy() {
                LinuxSchedulerPolicy::SchedOther => 0,
                LinuxSchedulerPolicy::SchedFifo => 1,
                LinuxSchedulerPolicy::SchedRr => 2,
                LinuxSchedulerPolicy::SchedBatch => 3,
                LinuxSchedulerPolicy::SchedIso => 4,
                LinuxSchedulerPolicy::SchedIdle => 5,
                LinuxSchedulerPolicy::SchedDeadline => 6,
            },
            flags: wanted
                .flags()
                .iter()
                .flatten()
                .fold(0, |all, flag| all | scheduler_flag(*flag)),
            nice: wanted.nice().unwrap_or(0),
            priority: wanted
                .priority()
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or(0),
            runtime: wanted.runtime().unwrap_or(0),
            deadline: wanted.deadline().unwrap_or(0),
            period: wanted.period().unwrap_or(0),
        });
        let io = process.io_priority().as_ref().map(|wanted| {
            let class = match wanted.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            (class, u32::try_from(wanted.priority()).unwrap_or(0))
        });
        SchedulingPlan { cpu, io }
    }

    pub(crate) fn apply(&self) -> Result<(), OciError> {
        if let Some(cpu) = &self.cpu {
            limits::set_scheduling(cpu).step("set", "process.scheduler")?;
        }
        if let Some((class, level)) = self.io {
            limits::set_io_priority(class, level).step("set", "process.ioPriority")?;
        }
        Ok(())
    }
}

/// process.execCPUAffinity: where an exec'ed process runs before and after it is in the container's cgroups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    initial: Option<Vec<usize>>,
    last: Option<Vec<usize>>,
}

impl Affinity {
    pub(crate) fn of(process: &Process) -> Result<Affinity, OciError> {
        let Some(wanted) = process.exec_cpu_affinity() else {
            return Ok(Affinity::default());
        };
        let list = |field: &str, text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => number_list(text).map(Some).ok_or_else(|| {
                OciError::field(
                    format!("process.execCPUAffinity.{field}"),
                    format!("{text:?}"),
                    "numbers and ranges, such as 0-3,7",
                )
            }),
        };
        Ok(Affinity {
            initial: list("initial", wanted.initial())?,
            last: list("final", wanted.cpu_affinity_final())?,
        })
    }

    /// Whether config says anything: else a process may run wherever the cpuset lets it.
    pub(crate) fn decides(&self) -> bool {
        self.initial.is_some() || self.last.is_some()
    }

    pub(crate) fn apply_initial(&self) -> Result<(), OciError> {
        apply_affinity("initial", self.initial.as_deref())
    }

    pub(crate) fn apply_final(&self) -> Result<(), OciError> {
        apply_affinity("final", self.last.as_deref())
    }
}

fn apply_affinity(field: &str, cpus: Option<&[usize]>) -> Result<(), OciError> {
    let Some(cpus) = cpus else { return Ok(()) };
    berth_sys::process::set_affinity(cpus).step("set", format!("process.execCPUAffinity.{field} {cpus:?}"))
}

/// `0-3,7` as numbers; `None` for anything else, and for numbers that no machine has.
pub(crate) fn number_list(text: &str) -> Option<Vec<usize>> {
    const HIGHEST: usize = 1023;
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// What the caller comes back to: what it makes from then on, hooks above all, is the runtime's and not the container's.
#[derive(Debug)]
pub(crate) struct OwnNamespaces(Vec<(Namespaces, File)>);

impl OwnNamespaces {
    pub(crate) fn rejoin(self) -> Result<(), OciError> {
        for (kind, own) in self.0 {
            namespaces::join(own.as_fd(), kind).step("return to", format!("own {} namespace", file_name(kind)))?;
        }
        Ok(())
    }
}

impl Plan {
    /// Namespaces that a process gets at its making.
    pub(crate) const JOINED_BEFORE: Namespaces = Namespaces::PID.union(Namespaces::TIME);

    /// The process has other ids inside than outside, and lesser rights.
    pub(crate) fn own_users(&self) -> bool {
        self.maps_users || self.joins_users
    }

    /// The namespaces that the process is to be cloned in. A time namespace with offsets is made here: they can be written as long
    /// as no process is in it.
    pub(crate) fn at_clone(&self) -> Result<Namespaces, OciError> {
        // The cgroup namespace is made when the process is in its cgroups: its root is what it is in then.
        let new = self.new.without(Namespaces::CGROUP);
        if self.time_offsets.is_empty() {
            return Ok(new);
        }
        namespaces::unshare(Namespaces::TIME).step("make", "time namespace")?;
        let written = std::fs::write("/proc/self/timens_offsets", &self.time_offsets);
        written.step("set linux.timeOffsets", self.time_offsets.trim_end())?;
        Ok(new.without(Namespaces::TIME))
    }

    /// The caller's own namespaces of those `kinds` that it is about to leave, to make the init in the container's.
    pub(crate) fn own(&self, kinds: Namespaces) -> Result<OwnNamespaces, OciError> {
        let made = (!self.time_offsets.is_empty()).then_some(Namespaces::TIME);
        let joined = self.join.iter().map(|(kind, _, _)| *kind);
        let left = joined.filter(|kind| kinds.contains(*kind)).chain(made);
        let open = |kind| {
            let path = format!("/proc/self/ns/{}", file_name(kind));
            Ok((kind, File::open(&path).step("open", &path)?))
        };
        left.map(open).collect::<Result<_, _>>().map(OwnNamespaces)
    }

    /// The namespace of that kind that the container joins.
    pub(crate) fn joined(&self, wanted: Namespaces) -> Option<BorrowedFd<'_>> {
        let found = self.join.iter().find(|(kind, _, _)| *kind == wanted);
        found.map(|(_, namespace, _)| namespace.as_fd())
    }

    /// Joins those of the namespaces by path that are among `kinds`.
    pub(crate) fn join(&self, kinds: Namespaces) -> Result<(), OciError> {
        for (kind, namespace, path) in self.join.iter().filter(|(kind, _, _)| kinds.contains(*kind)) {
            namespaces::join(namespace.as_fd(), *kind).step("join namespace", path.display())?;
        }
        Ok(())
    }

    /// Reads the spec and opens the namespaces to join. `filters`: where compiled seccomp programs are kept.
    ///
    /// # Errors
    /// A field with a value that can't be, a namespace path that can't be opened.
    pub(crate) fn new(spec: &Spec, id: &str, bundle: &Path, filters: Option<&Path>) -> Result<Plan, OciError> {
        let linux = spec
            .linux()
            .as_ref()
            .ok_or_else(|| OciError::field("linux", "missing", "an object"))?;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| OciError::field("process", "missing", "an object"))?;
        let mut new = Namespaces::empty();
        let mut join = Vec::new();
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind(namespace.typ());
            let twice = new.contains(kind) || join.iter().any(|(known, _, _)| *known == kind);
            if twice {
                let value = format!("{:?} twice", namespace.typ());
                return Err(OciError::field("linux.namespaces", value, "each type at most once"));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    let opened = std::fs::File::open(path).step("open namespace", path.display())?;
                    join.push((kind, OwnedFd::from(opened), path.clone()));
                }
                _ => new = new.union(kind),
            }
        }
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let shows_cgroups = mounts
            .iter()
            .any(|mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")));
        let hooks = spec.hooks().as_ref();
        #[allow(deprecated, reason = "prestart hooks are still what container engines write")]
        let hooks_before_pivot = hooks.is_some_and(|hooks| {
            let some = |list: &Option<Vec<oci_spec::runtime::Hook>>| list.as_ref().is_some_and(|list| !list.is_empty());
            some(hooks.prestart()) || some(hooks.create_runtime()) || some(hooks.create_container())
        });
        let profile = linux.seccomp().as_ref();
        let seccomp = profile
            .map(|profile| Filter::compile_once(profile, filters))
            .transpose()?;
        let maps_users = new.contains(Namespaces::USER);
        let joins_users = join.iter().any(|(kind, _, _)| *kind == Namespaces::USER);
        Ok(Plan {
            new,
            join,
            maps_users,
            joins_users,
            sources: crate::sources::wanted(spec, maps_users || joins_users),
            setgroups: true,
            join_first: shows_cgroups
                || new.contains(Namespaces::CGROUP)
                || maps_users
                || joins_users
                || hooks_before_pivot
                || seccomp.as_ref().and_then(Filter::listener).is_some(),
            hooks_before_pivot,
            seccomp,
            scheduling: SchedulingPlan::of(process),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            annotations: spec.annotations().clone().unwrap_or_default(),
            time_offsets: linux
                .time_offsets()
                .iter()
                .flatten()
                .fold(String::new(), |text, (clock, offset)| {
                    let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
                    text + &format!("{clock} {secs} {nanosecs}\n")
                }),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The state that hooks read (OCI runtime specification, "State").
    pub(crate) fn state(&self, status: &str, pid: u32) -> Value {
        json!({
            "ociVersion": crate::SPEC_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }

    /// The same as text.
    pub(crate) fn state_json(&self, status: &str, pid: u32) -> String {
        self.state(status, pid).to_string()
    }
}

/// Every namespace that the container does not share with its caller.
pub(crate) fn kinds(spec: &Spec) -> Namespaces {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let kinds = all.into_iter().flatten().map(|one| kind(one.typ()));
    kinds.fold(Namespaces::empty(), Namespaces::union)
}

/// Below /proc/PID/ns.
fn file_name(kind: Namespaces) -> &'static str {
    match kind {
        Namespaces::MOUNT => "mnt",
        Namespaces::CGROUP => "cgroup",
        Namespaces::UTS => "uts",
        Namespaces::IPC => "ipc",
        Namespaces::USER => "user",
        Namespaces::PID => "pid",
        Namespaces::NET => "net",
        _ => "time",
    }
}

pub(crate) fn kind(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(number_list("0-2,7"), Some(vec![0, 1, 2, 7]));
        for wrong in ["", "a", "3-1", "-1", "1-", "99999", "0,,1"] {
            assert_eq!(number_list(wrong), None, "{wrong:?}");
        }
    }
}

//! One container in a straight line, and its end.
//!
//! Everything is here that the kernel has to do for the same container, in the order of the embedded runtime, and nothing
//! else: no file is read, nothing is parsed, looked up, checked or undone, no state is kept, nobody is asked to start.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::inroot::{self, FileKind, NodeKind};
use berth_sys::namespaces::{self, CloneOptions, Cloned};
use berth_sys::newmount::{self, Attr, Propagation, SetAttr};
use berth_sys::{credentials, execve, limits, pipe, process, signal};

use crate::plan::{Group, Plan};

/// A container that runs.
pub struct Container {
    pub pid: u32,
    pidfd: OwnedFd,
}

/// Makes the container's cgroups and its process, and waits for the execve.
pub fn start(plan: &Plan) -> io::Result<Container> {
    for group in &plan.groups {
        fs::create_dir(&group.folder)?;
        for (file, value) in &group.writes {
            write(&group.folder.join(file), value)?;
        }
    }
    let (ours, theirs) = pipe::pipe()?;
    let clone = CloneOptions {
        namespaces: plan.namespaces,
        ..CloneOptions::default()
    };
    match namespaces::clone_process(clone)? {
        Cloned::Child => {
            drop(ours);
            let error = match become_container(plan) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // Nobody to tell if the parent is gone.
            let _ = File::from(theirs).write_all(error.to_string().as_bytes());
            process::exit_now(1)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut said = String::new();
            File::from(ours).read_to_string(&mut said)?;
            if said.is_empty() {
                Ok(Container { pid, pidfd })
            } else {
                Err(io::Error::other(said))
            }
        }
    }
}

/// Ends the process and removes the cgroups.
pub fn delete(plan: &Plan, container: &Container) -> io::Result<()> {
    process::pidfd_send_signal(&container.pidfd, signal::SIGKILL)?;
    process::wait_until_ended(&container.pidfd, None)?;
    process::reap(container.pid)?;
    plan.groups.iter().try_for_each(remove)
}

fn remove(group: &Group) -> io::Result<()> {
    loop {
        match fs::remove_dir(&group.folder) {
            // The process counts until the kernel is done with it, and cgroup v1 tells nobody.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(file)?.write_all(value.as_bytes())
}

fn become_container(plan: &Plan) -> io::Result<std::convert::Infallible> {
    if let Some(score) = plan.oom_score_adj {
        write(Path::new("/proc/self/oom_score_adj"), &score.to_string())?;
    }
    for group in &plan.groups {
        write(&group.folder.join("cgroup.procs"), "0")?;
    }
    limits::close_on_exec_from(3)?;
    limits::set_umask(0);
    limits::new_session()?;
    let keyring = credentials::new_session_keyring("_ses.floor")?;
    credentials::allow_keyring_search(keyring, false)?;
    namespaces::loopback_up()?;

    newmount::set_root_propagation(Propagation::Slave, true)?;
    let place = inroot::open_host_dir(&plan.rootfs)?;
    let root = newmount::clone_tree(place.as_fd(), true)?;
    newmount::attach(root.as_fd(), place.as_fd())?;
    mounts(plan, root.as_fd())?;
    devices(root.as_fd())?;
    newmount::pivot_into(root.as_fd())?;
    namespaces::set_hostname(&plan.hostname)?;
    seal(plan, root.as_fd())?;

    limits::set_umask(0o022);
    if plan.no_new_privs {
        credentials::no_new_privs()?;
    }
    if !plan.no_new_privs {
        filter(plan)?;
    }
    let last = credentials::last_capability()?;
    credentials::drop_bounding(plan.capabilities.bounding, last)?;
    credentials::set_groups(0, &[])?;
    credentials::set_uid(0)?;
    credentials::set_capabilities(&plan.capabilities)?;
    if plan.no_new_privs {
        filter(plan)?;
    }
    let strings = |list: &[String]| {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    let path = CString::new(format!("/bin/{}", plan.args[0]))?;
    Err(execve::replace(&path, &strings(&plan.args)?, &strings(&plan.env)?))
}

fn filter(plan: &Plan) -> io::Result<()> {
    match &plan.seccomp {
        Some(filter) => credentials::install_seccomp(filter.program(), filter.flags()).map(drop),
        None => Ok(()),
    }
}

const CONFINED: Attr = Attr::NOSUID.union(Attr::NODEV).union(Attr::NOEXEC);

fn mounts(plan: &Plan, root: BorrowedFd<'_>) -> io::Result<()> {
    let mount = |kind: &str, options: &[&str], attr: Attr, at: &str| {
        let place = inroot::ensure_dir(root, Path::new(at))?;
        let fs = newmount::new_filesystem(kind, Some(kind), options, attr)?;
        newmount::attach(fs.as_fd(), place.as_fd())?;
        Ok::<OwnedFd, io::Error>(fs)
    };
    mount("proc", &[], CONFINED, "/proc")?;
    let strict = Attr::NOSUID.union(Attr::STRICTATIME);
    mount("tmpfs", &["mode=755", "size=65536k"], strict, "/dev")?;
    let terminals = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    mount("devpts", &terminals, Attr::NOSUID.union(Attr::NOEXEC), "/dev/pts")?;
    mount("sysfs", &["ro"], CONFINED.union(Attr::RDONLY), "/sys")?;
    let tmpfs = mount("tmpfs", &["mode=755"], CONFINED, "/sys/fs/cgroup")?;
    for group in &plan.groups {
        let place = inroot::ensure_dir(tmpfs.as_fd(), Path::new(&group.name))?;
        let own = inroot::open_host_path(&group.folder)?;
        let tree = newmount::clone_tree(own.as_fd(), false)?;
        newmount::set_attr(tree.as_fd(), set(CONFINED.union(Attr::RDONLY)))?;
        newmount::attach(tree.as_fd(), place.as_fd())?;
        for link in group
            .controllers
            .split(',')
            .filter(|link| *link != group.name && !link.contains('='))
        {
            // The unified hierarchy has no controllers here.
            if !link.is_empty() {
                inroot::make_link(tmpfs.as_fd(), link.as_ref(), &group.name)?;
            }
        }
    }
    newmount::set_attr(tmpfs.as_fd(), set(Attr::RDONLY))?;
    mount("mqueue", &[], CONFINED, "/dev/mqueue")?;
    mount("tmpfs", &["mode=1777", "size=65536k"], CONFINED, "/dev/shm")?;
    Ok(())
}

fn set(attr: Attr) -> SetAttr<'static> {
    SetAttr {
        set: attr,
        ..SetAttr::default()
    }
}

fn devices(root: BorrowedFd<'_>) -> io::Result<()> {
    let dev = inroot::open_path(root, Path::new("/dev"))?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        inroot::make_node(dev.as_fd(), name.as_ref(), NodeKind::Char(major, minor), 0o666)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ] {
        inroot::make_link(dev.as_fd(), name.as_ref(), target)?;
    }
    Ok(())
}

/// Masked and read-only paths. One that is not there is left out, as everywhere.
fn seal(plan: &Plan, root: BorrowedFd<'_>) -> io::Result<()> {
    for path in &plan.readonly {
        let Ok(place) = inroot::open_path(root, path) else {
            continue;
        };
        let tree = newmount::clone_tree(place.as_fd(), true)?;
        newmount::set_attr(tree.as_fd(), set(Attr::RDONLY))?;
        newmount::attach(tree.as_fd(), place.as_fd())?;
    }
    let options = ["ro", "nr_blocks=1", "nr_inodes=1"];
    let folder = newmount::new_filesystem("tmpfs", Some("tmpfs"), &options, Attr::RDONLY)?;
    let null = inroot::open_path(root, Path::new("/dev/null"))?;
    for path in &plan.masked {
        let Ok(place) = inroot::open_path(root, path) else {
            continue;
        };
        let cover = match inroot::kind_of(place.as_fd())? {
            FileKind::Folder => &folder,
            _ => &null,
        };
        let tree = newmount::clone_tree(cover.as_fd(), false)?;
        newmount::attach(tree.as_fd(), place.as_fd())?;
    }
    Ok(())
}

//! What a process becomes just before its execve: limits, session, identity, capabilities, working folder, command.
//!
//! Order, as runc's: what needs privilege first (limits, bounding set), then groups and ids with the permitted set kept,
//! then the capabilities, then the working folder as the new identity sees it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::credentials::{self, Capabilities};
use berth_sys::limits::{self, Limit};
use berth_sys::unguarded::without;
use oci_spec::runtime::{Capabilities as CapabilitySet, Process};

use crate::error::{Context, OciError};

/// The kernel's capability names by number (linux/capability.h).
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The sets of config.json as bits. What this kernel does not know, and what the caller does not hold itself, is left out, as runc does.
pub(crate) fn capability_bits(process: &Process, last: u8, held: u64) -> Capabilities {
    let bits = |set: &Option<CapabilitySet>| {
        set.iter().flatten().fold(0u64, |bits, capability| {
            let name = capability.to_string();
            let name = name.strip_prefix("CAP_").unwrap_or(&name);
            match NAMES.iter().position(|known| *known == name) {
                Some(number) if number <= usize::from(last) && held & (1 << number) != 0 => bits | 1 << number,
                _ => bits,
            }
        })
    };
    let Some(sets) = process.capabilities() else {
        return Capabilities::default();
    };
    let mut wanted = Capabilities {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        permitted: bits(sets.permitted()),
        inheritable: bits(sets.inheritable()),
        ambient: bits(sets.ambient()),
    };
    // The kernel refuses an ambient capability that is not permitted and inheritable; runc leaves it out with a warning.
    wanted.ambient &= wanted.permitted & wanted.inheritable;
    wanted
}

/// What a process made now would have: the sets of config.json within what the caller holds.
///
/// # Errors
/// /proc is not there.
pub fn capability_sets(process: &Process) -> Result<Capabilities, OciError> {
    let last = credentials::last_capability().step("read", "/proc/sys/kernel/cap_last_cap")?;
    let held = credentials::capabilities().step("read", "capabilities")?;
    Ok(capability_bits(process, last, held.permitted))
}

/// Becomes the user of `process` with its capabilities. `setgroups`: the user namespace allows it.
pub(crate) fn become_user(process: &Process, setgroups: bool) -> Result<(), OciError> {
    let last = credentials::last_capability().step("read", "/proc/sys/kernel/cap_last_cap")?;
    let held = credentials::capabilities().step("read", "capabilities")?;
    let wanted = capability_bits(process, last, held.permitted);
    let user = process.user();
    berth_sys::execve::give_stdio(user.uid()).step("give standard descriptors to user", user.uid())?;
    credentials::drop_bounding(wanted.bounding, last).step("set", "bounding capabilities")?;
    credentials::keep_capabilities(true).step("keep", "capabilities")?;
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    if setgroups {
        credentials::set_groups(user.gid(), additional).step("set groups", format!("{} {additional:?}", user.gid()))?;
    } else {
        credentials::set_gid(user.gid()).step("set group", user.gid())?;
    }
    credentials::set_uid(user.uid()).step("set user", user.uid())?;
    credentials::keep_capabilities(false).step("drop", "capabilities")?;
    // As runc: before and after, since either identity may be the one that can reach the folder.
    let early = enter_cwd(process.cwd());
    credentials::set_capabilities(&wanted).step("set", "capabilities")?;
    if early.is_err() {
        enter_cwd(process.cwd()).step("change to working folder", process.cwd().display())?;
    }
    Ok(())
}

fn enter_cwd(cwd: &Path) -> io::Result<()> {
    std::env::set_current_dir(if cwd.as_os_str().is_empty() {
        Path::new("/")
    } else {
        cwd
    })?;
    if without("cwd") {
        return Ok(());
    }
    // Outside of the root the kernel answers "(unreachable)/…": a folder of the host leaked in (CVE-2024-21626).
    let now = std::env::current_dir()?;
    if now.is_absolute() {
        Ok(())
    } else {
        Err(io::Error::other("the working folder is outside of the container"))
    }
}

/// Sets process.rlimits of a process, 0 = the caller.
pub(crate) fn set_limits(pid: u32, process: &Process) -> Result<(), OciError> {
    let all = process.rlimits().iter().flatten();
    let all: Vec<Limit> = all
        .map(|limit| Limit::new(&limit.typ().to_string(), limit.soft(), limit.hard()))
        .collect();
    limits::apply(pid, &all).map_err(|(what, source)| OciError::Step {
        step: "set limit",
        what,
        source,
    })
}

/// process.oomScoreAdj, by the maker of the process: in a user namespace it could not do it itself. Lowering it needs a right that
/// the caller may lack: then it is an error.
pub(crate) fn set_oom_score(pid: u32, score: Option<i32>) -> Result<(), OciError> {
    let Some(score) = score else { return Ok(()) };
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        .step("set", format!("process.oomScoreAdj to {score}"))
}

/// A command that is ready for execve.
pub(crate) struct Command {
    pub path: CString,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
}

impl Command {
    /// Finds the first of `args` as execvp(3) would in the container's own PATH, and sets HOME if it is missing.
    pub(crate) fn find(process: &Process) -> Result<Command, OciError> {
        let args = process.args().as_deref().unwrap_or_default();
        let name = args.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| OciError::field("process.args", "empty", "at least the command"))?;
        let c_string = |field: &str, text: &str| {
            CString::new(text).map_err(|_| OciError::field(field, format!("{text:?}"), "text without a NUL byte"))
        };
        let env = environment(process)?;
        let path = env
            .iter()
            .find_map(|variable| variable.strip_prefix("PATH="))
            .unwrap_or("");
        let found = look_up(name, path, process.cwd())?;
        Ok(Command {
            path: CString::new(found.as_os_str().as_bytes())
                .map_err(|_| OciError::CommandNotFound { command: name.clone() })?,
            args: args
                .iter()
                .map(|arg| c_string("process.args", arg))
                .collect::<Result<_, _>>()?,
            env: env
                .iter()
                .map(|variable| c_string("process.env", variable))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// process.env as the process gets it: of a name that comes twice the last counts, and there is a HOME.
fn environment(process: &Process) -> Result<Vec<String>, OciError> {
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for variable in process.env().iter().flatten().rev() {
        let name = variable
            .split_once('=')
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| OciError::field("process.env", format!("{variable:?}"), "NAME=VALUE"))?;
        let empty_home = variable == "HOME=";
        if names.insert(name) && !empty_home {
            all.push(variable.clone());
        }
    }
    all.reverse();
    if !all.iter().any(|variable| variable.starts_with("HOME=")) {
        all.push(format!("HOME={}", home_of(process.user().uid())));
    }
    Ok(all)
}

fn look_up(name: &str, path: &str, cwd: &Path) -> Result<PathBuf, OciError> {
    let refuse = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OciError::CommandNotFound {
            command: name.to_owned(),
        },
        // In the words of older runtimes too: docker before 23 knows no others.
        io::ErrorKind::IsADirectory => OciError::CommandNotExecutable {
            command: name.to_owned(),
            source: io::Error::new(io::ErrorKind::IsADirectory, "is a directory: permission denied"),
        },
        _ => OciError::CommandNotExecutable {
            command: name.to_owned(),
            source,
        },
    };
    if name.contains('/') {
        let full = cwd.join(name);
        executable(&full).map_err(refuse)?;
        return Ok(full);
    }
    let mut denied = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() {
            Path::new(".")
        } else {
            Path::new(folder)
        };
        let candidate = cwd.join(folder).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(refuse(denied.unwrap_or_else(|| io::ErrorKind::NotFound.into())))
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(21));
    }
    berth_sys::inroot::may_execute(path)
}

/// The user's home folder by the container's /etc/passwd, "/" where it has none. Reads a bounded part of the file.
fn home_of(uid: u32) -> String {
    use std::io::Read;
    use std::os::fd::AsFd;
    let bound = if without("bounded") { u64::MAX } else { 1 << 20 };
    let mut text = Vec::new();
    // A FIFO there must not hold us.
    let opened = berth_sys::inroot::open_host_dir(Path::new("/"))
        .and_then(|root| berth_sys::inroot::open_read(root.as_fd(), Path::new("/etc/passwd")));
    let read = opened.and_then(|fd| std::fs::File::from(fd).take(bound).read_to_end(&mut text));
    if read.is_err() {
        return "/".to_owned();
    }
    let line = text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let id = fields.nth(2)?;
        (std::str::from_utf8(id).ok()?.parse() == Ok(uid))
            .then(|| fields.nth(2))
            .flatten()
    });
    match line {
        Some(home) if !home.is_empty() => OsStr::from_bytes(home).to_string_lossy().into_owned(),
        _ => "/".to_owned(),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn with_capabilities(json: &str) -> Process {
        let text = format!(r#"{{"user":{{}},"cwd":"/","capabilities":{json}}}"#);
        serde_json::from_str(&text).expect("a process")
    }

    #[test]
    fn capabilities_become_the_kernels_bits() {
        let process = with_capabilities(r#"{"bounding":["CAP_CHOWN","CAP_BPF"],"permitted":["CAP_CHOWN"]}"#);
        let bits = capability_bits(&process, 40, u64::MAX);
        assert_eq!((bits.bounding, bits.permitted, bits.effective), (1 | 1 << 39, 1, 0));
        // An older kernel, and a caller that does not hold it.
        assert_eq!(capability_bits(&process, 38, u64::MAX).bounding, 1);
        assert_eq!(capability_bits(&process, 40, 1).bounding, 1);
    }

    #[test]
    fn of_a_variable_that_comes_twice_the_last_counts() {
        let process = |env: &str| -> Process {
            serde_json::from_str(&format!(r#"{{"user":{{}},"cwd":"/","env":{env}}}"#)).expect("a process")
        };
        let all = environment(&process(r#"["A=1","PATH=/a","B=","A=2","HOME=/h"]"#)).expect("legal");
        assert_eq!(all, ["PATH=/a", "B=", "A=2", "HOME=/h"]);
        let home = environment(&process(r#"["HOME=/h","HOME="]"#)).expect("legal");
        assert!(home.len() == 1 && home[0].starts_with("HOME=/"), "{home:?}");
        for wrong in [r#"["A"]"#, r#"["=1"]"#] {
            assert!(environment(&process(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ambient_capability_needs_the_other_two() {
        let process = with_capabilities(r#"{"permitted":["CAP_KILL"],"inheritable":[],"ambient":["CAP_KILL"]}"#);
        assert_eq!(capability_bits(&process, 40, u64::MAX).ambient, 0);
    }

    #[test]
    fn a_command_that_is_not_there_is_told_from_one_that_may_not_run() {
        assert_eq!(
            look_up("no-such-command", "/usr/bin:/bin", Path::new("/"))
                .expect_err("missing")
                .exit_code(),
            127
        );
        let folder = look_up("/etc", "", Path::new("/")).expect_err("a folder");
        assert_eq!(
            (folder.exit_code(), folder.to_string().as_str()),
            (126, "exec: \"/etc\": is a directory: permission denied")
        );
        assert_eq!(
            look_up("sh", "/nowhere:/bin", Path::new("/")).expect("found"),
            Path::new("/bin/sh")
        );
    }
}

//! Limits and attributes that a process sets on itself before its execve: resource limits, umask, scheduling, session,
//! which descriptors stay open.

use std::io;

use crate::check;

/// One resource limit by its name in config.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    name: String,
    soft: u64,
    hard: u64,
}

impl Limit {
    #[must_use]
    pub fn new(name: &str, soft: u64, hard: u64) -> Limit {
        Limit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    fn number(&self) -> Option<libc::__rlimit_resource_t> {
        Some(match self.name.strip_prefix("RLIMIT_").unwrap_or(&self.name) {
            "CPU" => libc::RLIMIT_CPU,
            "FSIZE" => libc::RLIMIT_FSIZE,
            "DATA" => libc::RLIMIT_DATA,
            "STACK" => libc::RLIMIT_STACK,
            "CORE" => libc::RLIMIT_CORE,
            "RSS" => libc::RLIMIT_RSS,
            "NPROC" => libc::RLIMIT_NPROC,
            "NOFILE" => libc::RLIMIT_NOFILE,
            "MEMLOCK" => libc::RLIMIT_MEMLOCK,
            "AS" => libc::RLIMIT_AS,
            "LOCKS" => libc::RLIMIT_LOCKS,
            "SIGPENDING" => libc::RLIMIT_SIGPENDING,
            "MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
            "NICE" => libc::RLIMIT_NICE,
            "RTPRIO" => libc::RLIMIT_RTPRIO,
            "RTTIME" => libc::RLIMIT_RTTIME,
            _ => return None,
        })
    }
}

/// Sets the limits of a process in order; 0 = the calling one.
///
/// # Errors
/// The limit that could not be set, as text, and why.
pub fn apply(pid: u32, limits: &[Limit]) -> Result<(), (String, io::Error)> {
    for limit in limits {
        let shown = || format!("{} to {}:{}", limit.name, limit.soft, limit.hard);
        let Some(number) = limit.number() else {
            return Err((shown(), io::ErrorKind::InvalidInput.into()));
        };
        let value = libc::rlimit64 {
            rlim_cur: limit.soft,
            rlim_max: limit.hard,
        };
        // SAFETY: `value` outlives the call; the old value is not asked for.
        check(unsafe { libc::prlimit64(pid as libc::pid_t, number, &raw const value, std::ptr::null_mut()) })
            .map_err(|source| (shown(), source))?;
    }
    Ok(())
}

/// Sets the umask.
pub fn set_umask(mask: u32) {
    // SAFETY: an integer; it can't fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// Becomes the leader of a new session.
///
/// # Errors
/// As setsid(2).
pub fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() })
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: integers only; nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) } as i32)
}

/// I/O priority of the calling process: class 1 real-time, 2 best effort, 3 idle; level 0 to 7.
///
/// # Errors
/// As ioprio_set(2).
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) } as i32)
}

/// Where the calling process gets its memory from: mode with flags, and the numbers of nodes below 1024.
///
/// # Errors
/// As set_mempolicy(2); ENOSYS on a kernel without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[usize]) -> io::Result<()> {
    const BITS: usize = 64;
    let mut mask = [0u64; 1024 / BITS];
    for node in nodes {
        *mask.get_mut(node / BITS).ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node % BITS);
    }
    // The kernel takes one less than it is told.
    let (mask, length) = match nodes {
        [] => (std::ptr::null(), 0),
        _ => (mask.as_ptr(), 1024 + 1),
    };
    // SAFETY: the mask has as many bits as is said, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, length) } as i32)
}

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets policy and parameters of the calling thread.
///
/// # Errors
/// As sched_setattr(2).
pub fn set_scheduling(wanted: &Scheduling) -> io::Result<()> {
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let raw = SchedAttr {
        size: std::mem::size_of::<SchedAttr>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: `raw` outlives the call and tells its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) } as i32)
}

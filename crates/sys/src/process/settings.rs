//! What a process sets about itself.

use std::ffi::CString;
use std::io;

use rustix::process::{Resource, Rlimit, Signal};

/// Orphans below this process become its children.
pub fn set_child_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// A new session, with this process as its leader and without a terminal.
pub fn setsid() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// A new process group with this process as its leader.
pub fn start_process_group() -> io::Result<()> {
    Ok(rustix::process::setpgid(None, None)?)
}

/// Sets the file mode mask and gives the old one.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

#[must_use]
pub fn getpid() -> u32 {
    std::process::id()
}

#[must_use]
pub fn getppid() -> u32 {
    std::os::unix::process::parent_id()
}

/// Closes every descriptor from this number on. For a child right after a fork, before it opens anything: whoever still holds an
/// `OwnedFd` of those numbers would close another's later.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: closes descriptors only; the caller's obligation is stated above.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The name in /proc/self/comm; cut to 15 bytes, and at the first NUL.
pub fn set_name(name: &str) -> io::Result<()> {
    let bytes: Vec<u8> = name.bytes().take(15).take_while(|byte| *byte != 0).collect();
    let name = CString::new(bytes).unwrap_or_default();
    Ok(rustix::thread::set_name(&name)?)
}

/// Writes over the arguments that this program was started with, so that `ps` shows `title`; cut to the room there is. For the
/// template and the shims forked from it. Nothing if the kernel does not say where they are.
pub fn set_title_area(title: &str) -> io::Result<()> {
    let stat = crate::file::read_page("/proc/self/stat")?;
    let Some(end) = stat.iter().rposition(|byte| *byte == b')') else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&stat[end + 1..]).into_owned();
    let field = |number: usize| {
        text.split_ascii_whitespace()
            .nth(number - 3)
            .and_then(|text| text.parse::<usize>().ok())
    };
    // arg_start and arg_end, fields 48 and 49 of proc(5).
    let (Some(start), Some(end)) = (field(48), field(49)) else {
        return Ok(());
    };
    if start == 0 || end <= start {
        return Ok(());
    }
    let mut bytes = vec![0u8; end - start];
    // The last byte stays NUL, or the kernel goes on reading into the environment.
    let len = title.len().min(bytes.len() - 1);
    bytes[..len].copy_from_slice(&title.as_bytes()[..len]);
    // Written through /proc/self/mem: a pointer made from a number needs no proof that way, the kernel checks it.
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    std::os::unix::fs::FileExt::write_all_at(&memory, &bytes, start as u64)
}

/// EPERM or EACCES where the value is lower than allowed.
pub fn set_oom_score_adj(value: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", value.to_string())
}

/// This process gets SIGKILL when the thread that made it ends. Call it in the child and compare [`getppid`] afterwards: the
/// parent may have ended before.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Soft and hard; `None` = unlimited.
pub type Limit = (Option<u64>, Option<u64>);

/// The limit on open descriptors.
#[must_use]
pub fn limit_nofile() -> Limit {
    limit(Resource::Nofile)
}

/// Raising the hard one needs CAP_SYS_RESOURCE.
pub fn set_limit_nofile(soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    set_limit(Resource::Nofile, soft, hard)
}

/// prlimit(2) on another process, which must not have been reaped.
pub fn set_limit_nofile_of(pid: u32, (soft, hard): Limit) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let limit = Rlimit {
        current: soft,
        maximum: hard,
    };
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit)?;
    Ok(())
}

#[must_use]
pub fn limit(resource: Resource) -> Limit {
    let limit = rustix::process::getrlimit(resource);
    (limit.current, limit.maximum)
}

pub fn set_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit {
            current: soft,
            maximum: hard,
        },
    )?)
}

/// May run on every CPU that the cpuset allows.
pub fn affinity_all() -> io::Result<()> {
    let mut all = rustix::thread::CpuSet::new();
    for cpu in 0..rustix::thread::CpuSet::MAX_CPU {
        all.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &all)?)
}

/// May run on these CPUs only.
pub fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus {
        if *cpu >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(*cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Forgets the environment. For single-threaded programs.
pub fn clear_environment() {
    // SAFETY: no other thread may read the environment at the same time; documented as single-threaded.
    unsafe { libc::clearenv() };
}

/// Gives the free memory of malloc's back to the kernel.
pub fn malloc_trim() {
    // SAFETY: takes a number, touches malloc's own state only, under its lock.
    unsafe { libc::malloc_trim(0) };
}

/// Keeps malloc small: one arena, little kept at the top, larger blocks by mmap so that they go back when freed.
pub fn malloc_tune(trim_threshold: i32, mmap_threshold: i32) {
    // SAFETY: mallopt takes numbers only.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim_threshold);
        libc::mallopt(libc::M_MMAP_THRESHOLD, mmap_threshold);
    }
}

/// Lets the standard library find out what this processor can do, which it does once: forks of this process know it then.
pub fn knows_processor() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// Ends the process without running destructors or flushing what it inherited: for the child of a fork.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and runs nothing of this program's.
    unsafe { libc::_exit(code) }
}

/// Ends the process as a program does.
pub fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// SIGKILL to this process itself: for fail points.
pub fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    exit_now(137)
}

//! bpf(2): the one kind of program that Berth loads, which decides what devices the processes of a cgroup (v2) may use.
//!
//! Instructions are the caller's; the kernel's verifier decides whether they may run.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// How many programs of one cgroup are looked at; others than ours and systemd's are not expected.
const MOST: usize = 64;

// No form has padding: the kernel refuses what it knows as other fields and finds set.
#[repr(C, align(8))]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
    zero: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    zero: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
    zero: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is one of the forms of union bpf_attr above, as long as the size says, and what it points to
    // outlives the call; the kernel takes what it does not get for zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE; an instruction is the kernel's struct bpf_insn as a number.
///
/// # Errors
/// As bpf(2) BPF_PROG_LOAD.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    load.name[..13].copy_from_slice(b"berth_devices");
    owned(bpf(PROG_LOAD, &mut load)?)
}

/// Makes `program` the one that decides for the cgroup (its folder, opened), in one step if one is there already.
///
/// # Errors
/// As bpf(2) BPF_PROG_ATTACH.
pub fn set_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target: number(cgroup),
        attach_type: CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    let there = ids.iter().take(query.count as usize);
    let old = there.map(|id| by_id(*id)).collect::<io::Result<Vec<_>>>()?;
    let mut attach = Attach {
        target: number(cgroup),
        program: number(program),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    if let [only] = old.as_slice() {
        use std::os::fd::AsFd;
        attach.flags |= REPLACE;
        attach.replaced = number(only.as_fd());
        match bpf(PROG_ATTACH, &mut attach) {
            Ok(_) => return Ok(()),
            // One that was attached without ALLOW_MULTI gives way only to another of its kind.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                (attach.flags, attach.replaced) = (0, 0);
                return bpf(PROG_ATTACH, &mut attach).map(drop);
            }
            Err(error) => return Err(error),
        }
    }
    // All of them must agree: nothing that was forbidden is allowed in between.
    bpf(PROG_ATTACH, &mut attach)?;
    for program in &old {
        use std::os::fd::AsFd;
        let mut detach = Attach {
            target: number(cgroup),
            program: number(program.as_fd()),
            attach_type: CGROUP_DEVICE,
            ..Attach::default()
        };
        bpf(PROG_DETACH, &mut detach)?;
    }
    Ok(())
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut wanted = ById { id, ..ById::default() };
    owned(bpf(PROG_GET_FD_BY_ID, &mut wanted)?)
}

#[cfg(test)]
mod test {
    use std::os::fd::AsFd;

    use super::*;

    /// On the unified hierarchy that there is, if this user may: one program replaces the other.
    #[test]
    fn a_program_takes_the_place_of_the_one_before() {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
        let Some(root) = roots
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists())
        else {
            return;
        };
        let folder = root.join(format!("berth-bpf-{}", std::process::id()));
        if std::fs::create_dir(&folder).is_err() {
            return;
        }
        let group = crate::dir::open(&folder).expect("just made");
        // r0 = answer; exit
        let program = |answer: u64| load_device_program(&[0xb7 | answer << 32, 0x95]);
        let done = program(0).and_then(|first| set_device_program(group.as_fd(), first.as_fd()));
        let again = program(1).and_then(|second| set_device_program(group.as_fd(), second.as_fd()));
        std::fs::remove_dir(&folder).expect("nobody is in it");
        match done {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
            done => done.expect("the first"),
        }
        again.expect("the second");
    }
}

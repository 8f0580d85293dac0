//! Who a process is and what it may do: ids, groups, capabilities, no_new_privs, keyring, seccomp, personality.
//!
//! Invariant: every function changes the calling thread or process only, and is meant for a single-threaded process
//! between its making and its execve.

use std::io;

use crate::check;

/// Highest capability number that this kernel knows.
///
/// # Errors
/// /proc is not there.
pub fn last_capability() -> io::Result<u8> {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?
        .trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// The five sets, a bit a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// Takes every capability that is not in `keep` from the bounding set.
///
/// # Errors
/// As prctl(2) PR_CAPBSET_DROP.
pub fn drop_bounding(keep: u64, last: u8) -> io::Result<()> {
    for capability in 0..=last {
        if keep & (1 << capability) == 0 {
            // SAFETY: PR_CAPBSET_DROP takes integers only.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0, 0, 0) })?;
        }
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Sets effective, permitted and inheritable, then the ambient set.
///
/// # Errors
/// As capset(2), prctl(2) PR_CAP_AMBIENT.
pub fn set_capabilities(wanted: &Capabilities) -> io::Result<()> {
    let half = |set: u64, index: usize| (set >> (32 * index)) as u32;
    let data: [CapData; 2] = std::array::from_fn(|index| CapData {
        effective: half(wanted.effective, index),
        permitted: half(wanted.permitted, index),
        inheritable: half(wanted.inheritable, index),
    });
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    // SAFETY: header and both data elements live through the call, as version 3 demands.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } as i32)?;
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    for capability in 0..64u64 {
        if wanted.ambient & (1 << capability) != 0 {
            // SAFETY: integers only.
            check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) })?;
        }
    }
    Ok(())
}

/// The calling thread's own sets.
///
/// # Errors
/// As capget(2).
pub fn capabilities() -> io::Result<Capabilities> {
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and both data elements live through the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } as i32)?;
    let join = |part: fn(&CapData) -> u32| u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32;
    Ok(Capabilities {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
        ..Capabilities::default()
    })
}

/// Keeps the permitted set over a change of uid (PR_SET_KEEPCAPS).
///
/// # Errors
/// As prctl(2).
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0, 0, 0) })
}

/// The last number means "unchanged" to the kernel: who asked for it would stay root.
fn valid(id: u32) -> io::Result<()> {
    if id == u32::MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "4294967295 is no id"));
    }
    Ok(())
}

/// Real, effective and saved group ids, then the supplementary groups.
///
/// # Errors
/// As setresgid(2), setgroups(2); `InvalidInput` for 4294967295.
pub fn set_groups(gid: u32, additional: &[u32]) -> io::Result<()> {
    valid(gid)?;
    // The raw system calls: the C library's wrappers signal other threads, of which there are none here.
    // SAFETY: the pointer and the length describe `additional`.
    check(unsafe { libc::syscall(libc::SYS_setgroups, additional.len(), additional.as_ptr()) } as i32)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } as i32)
}

/// Real and effective group ids without touching the supplementary groups (a user namespace with setgroups denied).
///
/// # Errors
/// As setresgid(2).
pub fn set_gid(gid: u32) -> io::Result<()> {
    valid(gid)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } as i32)
}

/// Real, effective and saved user ids.
///
/// # Errors
/// As setresuid(2); `InvalidInput` for 4294967295.
pub fn set_uid(uid: u32) -> io::Result<()> {
    valid(uid)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } as i32)
}

/// # Errors
/// As prctl(2) PR_SET_NO_NEW_PRIVS.
pub fn no_new_privs() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Whether /proc/self belongs to the caller's user or to root: off while a process stands between two identities.
///
/// # Errors
/// As prctl(2) PR_SET_DUMPABLE.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0, 0, 0) })
}

/// Joins a fresh session keyring of that name.
///
/// # Errors
/// As keyctl(2) KEYCTL_JOIN_SESSION_KEYRING; ENOSYS where the kernel has no keyrings.
pub fn new_session_keyring(name: &str) -> io::Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    let name = std::ffi::CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if serial < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(serial as i32)
    }
}

/// Gives more than its possessor the right to search a keyring, as runc does for the session keyring: its owner or, with `others`,
/// anybody; the user that a user namespace maps to root is the keyring's owner only by chance.
///
/// # Errors
/// As keyctl(2) KEYCTL_DESCRIBE, KEYCTL_SETPERM.
pub fn allow_keyring_search(serial: i32, others: bool) -> io::Result<()> {
    const OWNER_SEARCH: u32 = 0x0008_0000;
    const OTHERS_SEARCH: u32 = 0x0000_0008;
    const KEYCTL_SETPERM: libc::c_ulong = 5;
    const KEYCTL_DESCRIBE: libc::c_ulong = 6;
    let mut text = [0u8; 256];
    // SAFETY: the buffer and its length describe `text`.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            i64::from(serial),
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let described = String::from_utf8_lossy(&text[..(length as usize).min(text.len())]).into_owned();
    let permissions = described
        .split(';')
        .nth(3)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let permissions = permissions.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let permissions = permissions | if others { OTHERS_SEARCH } else { OWNER_SEARCH };
    // SAFETY: integers only.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SETPERM,
            i64::from(serial),
            u64::from(permissions),
        )
    } as i32)
}

/// Sets the execution domain, as personality(2).
///
/// # Errors
/// As personality(2).
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::personality(domain) })
}

/// Installs a seccomp filter: `program` is an array of `struct sock_filter` as bytes, 8 a piece. Answers the notify
/// listener if [`SECCOMP_NEW_LISTENER`] was asked for.
///
/// # Errors
/// `InvalidInput` for a length that is no array of instructions; else as seccomp(2).
pub fn install_seccomp(program: &[u8], flags: u64) -> io::Result<Option<std::os::fd::OwnedFd>> {
    use std::os::fd::FromRawFd;
    let count = program.len() / 8;
    if !program.len().is_multiple_of(8) || count == 0 || count > usize::from(u16::MAX) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|raw| libc::sock_filter {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect();
    let header = libc::sock_fprog {
        len: count as u16,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `header` points at `count` instructions that outlive the call; the kernel copies and checks them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const header,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with NEW_LISTENER the result is a new descriptor that nobody else owns.
    Ok((flags & SECCOMP_NEW_LISTENER != 0).then(|| unsafe { std::os::fd::OwnedFd::from_raw_fd(done as i32) }))
}

/// Flag of [`install_seccomp`]: answer the listener of SCMP_ACT_NOTIFY.
pub const SECCOMP_NEW_LISTENER: u64 = 8;

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_id_that_means_unchanged_is_refused() {
        assert!(set_uid(u32::MAX).is_err() && set_gid(u32::MAX).is_err() && set_groups(u32::MAX, &[]).is_err());
    }
}

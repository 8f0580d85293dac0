//! The words of linux.seccomp and what they mean to libseccomp and to the kernel.

use libseccomp::{ScmpAction, ScmpArch};
use oci_spec::runtime::{Arch, LinuxSeccompAction, LinuxSeccompFilterFlag};

use crate::error::OciError;

/// `action` of a rule, and `defaultAction`.
pub(crate) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// `op` of an argument.
pub(crate) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// `flags`, with their bits in linux/seccomp.h.
pub(crate) const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", TSYNC),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];

pub(super) const TSYNC: u64 = 1;
pub(super) const LOG: u64 = 2;
pub(super) const SPEC_ALLOW: u64 = 4;
pub(super) const WAIT_KILLABLE_RECV: u64 = 32;

/// `architectures`.
pub(crate) const ARCHITECTURES: [(&str, ScmpArch); 19] = [
    ("SCMP_ARCH_AARCH64", ScmpArch::Aarch64),
    ("SCMP_ARCH_ARM", ScmpArch::Arm),
    ("SCMP_ARCH_LOONGARCH64", ScmpArch::Loongarch64),
    ("SCMP_ARCH_MIPS", ScmpArch::Mips),
    ("SCMP_ARCH_MIPS64", ScmpArch::Mips64),
    ("SCMP_ARCH_MIPS64N32", ScmpArch::Mips64N32),
    ("SCMP_ARCH_MIPSEL", ScmpArch::Mipsel),
    ("SCMP_ARCH_MIPSEL64", ScmpArch::Mipsel64),
    ("SCMP_ARCH_MIPSEL64N32", ScmpArch::Mipsel64N32),
    ("SCMP_ARCH_NATIVE", ScmpArch::Native),
    ("SCMP_ARCH_PPC", ScmpArch::Ppc),
    ("SCMP_ARCH_PPC64", ScmpArch::Ppc64),
    ("SCMP_ARCH_PPC64LE", ScmpArch::Ppc64Le),
    ("SCMP_ARCH_RISCV64", ScmpArch::Riscv64),
    ("SCMP_ARCH_S390", ScmpArch::S390),
    ("SCMP_ARCH_S390X", ScmpArch::S390X),
    ("SCMP_ARCH_X32", ScmpArch::X32),
    ("SCMP_ARCH_X86", ScmpArch::X86),
    ("SCMP_ARCH_X86_64", ScmpArch::X8664),
];

pub(super) fn flag(flag: LinuxSeccompFilterFlag) -> u64 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    }
}

pub(super) fn architecture(arch: Arch) -> Result<ScmpArch, OciError> {
    let known = serde_json::to_value(arch).ok().and_then(|name| {
        let found = ARCHITECTURES.iter().find(|(known, _)| name == *known);
        found.map(|(_, arch)| *arch)
    });
    match known {
        Some(ScmpArch::Native) => Ok(ScmpArch::native()),
        Some(arch) => Ok(arch),
        None => Err(OciError::Unsupported {
            what: format!("linux.seccomp.architectures: {arch}"),
        }),
    }
}

/// What `action` with `errnoRet` is; EPERM is what a call answers where the profile names nothing.
pub(super) fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, OciError> {
    const EPERM: u32 = 1;
    let errno = errno.unwrap_or(EPERM);
    let refuse = || OciError::field("linux.seccomp errnoRet", errno, "0 to 4095");
    let number = u16::try_from(errno)
        .ok()
        .filter(|number| *number <= 4095)
        .ok_or_else(refuse)?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(i32::from(number)),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

//! linux.seccomp compiled to a filter program by libseccomp.
//!
//! Unknown names of system calls are left out, as runc does: a profile is written for many kernels. The program is made
//! in the creator, never in the container's own process.

use std::io::{self, Read, Seek};

use berth_sys::credentials;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};

use crate::error::{Context, OciError};

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<u8>,
    flags: u64,
}

impl Filter {
    /// # Errors
    /// A field that libseccomp refuses, by name.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, OciError> {
        let refuse = |what: String| {
            move |source: libseccomp::error::SeccompError| OciError::Step {
                step: "compile seccomp",
                what,
                source: io::Error::other(source.to_string()),
            }
        };
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let mut context = ScmpFilterContext::new(default).map_err(refuse("defaultAction".into()))?;
        for arch in profile.architectures().iter().flatten() {
            context
                .add_arch(architecture(*arch)?)
                .map_err(refuse(format!("architecture {arch:?}")))?;
        }
        let mut flags = 0;
        for flag in profile.flags().iter().flatten() {
            // linux/seccomp.h: SECCOMP_FILTER_FLAG_*.
            flags |= match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 32,
            };
        }
        for rule in profile.syscalls().iter().flatten() {
            let act = action(rule.action(), rule.errno_ret())?;
            // libseccomp refuses a rule that does what happens anyway.
            if act == default {
                continue;
            }
            let args = rule.args().as_deref().unwrap_or_default();
            for name in rule.names() {
                let Ok(call) = ScmpSyscall::from_name(name) else {
                    continue;
                };
                add(&mut context, act, call, args).map_err(refuse(name.clone()))?;
            }
        }
        let mut file = berth_sys::spawn::memory_file("seccomp").step("make", "memfd")?;
        context.export_bpf(&file).map_err(refuse("the program".into()))?;

        let mut program = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut program))
            .step("read", "seccomp program")?;
        Ok(Filter { program, flags })
    }

    /// The program: an array of `struct sock_filter`, 8 bytes a piece.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// SECCOMP_FILTER_FLAG_* to install it with.
    #[must_use]
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// Installs it on the calling thread, for ever.
    pub(crate) fn install(&self) -> Result<(), OciError> {
        credentials::install_seccomp(&self.program, self.flags)
            .step("install", "seccomp filter")
            .map(drop)
    }
}

/// A rule with several conditions on one argument becomes several rules, any of which is enough: so does runc.
fn add(
    context: &mut ScmpFilterContext,
    act: ScmpAction,
    call: ScmpSyscall,
    args: &[LinuxSeccompArg],
) -> Result<(), libseccomp::error::SeccompError> {
    if args.is_empty() {
        context.add_rule(act, call)?;
        return Ok(());
    }
    let repeated = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    if repeated {
        for arg in args {
            context.add_rule_conditional(act, call, &[compare(arg)])?;
        }
    } else {
        let all: Vec<ScmpArgCompare> = args.iter().map(compare).collect();
        context.add_rule_conditional(act, call, &all)?;
    }
    Ok(())
}

fn compare(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(arg.index() as u32, operator, value)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, OciError> {
    // EPERM is what runc answers where the profile names none.
    let errno = errno.unwrap_or(1);
    let number = i32::try_from(errno)
        .ok()
        .filter(|number| (0..=4095).contains(number))
        .ok_or_else(|| OciError::field("linux.seccomp errnoRet", errno, "0 to 4095"))?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number),
        LinuxSeccompAction::ScmpActNotify => {
            return Err(OciError::Unsupported {
                what: "SCMP_ACT_NOTIFY".into(),
            });
        }
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

fn architecture(arch: Arch) -> Result<ScmpArch, OciError> {
    Ok(match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        other => {
            return Err(OciError::Unsupported {
                what: format!("seccomp architecture {other:?}"),
            });
        }
    })
}

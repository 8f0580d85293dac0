//! linux.seccomp compiled to a filter program by libseccomp.
//!
//! Unknown names of system calls are left out, as runc does: a profile is written for many kernels. The program is made
//! in the creator, never in the container's own process.

mod cache;
mod listener;
mod names;
mod newer;

use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::credentials;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use crate::error::{Context, OciError};

pub(crate) use listener::Listener;
pub(crate) use names::{ACTIONS, FLAGS, OPERATORS};

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<u8>,
    flags: u64,
    listener: Option<Listener>,
}

impl Filter {
    /// # Errors
    /// A field that libseccomp refuses, by name.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, OciError> {
        Filter::compile_once(profile, None)
    }

    /// The same; its program is kept in a folder, if there is one, and taken from there the next time.
    pub(crate) fn compile_once(profile: &LinuxSeccomp, folder: Option<&Path>) -> Result<Filter, OciError> {
        let listener = Listener::of(profile)?;
        Ok(Filter {
            program: cache::program(folder, profile, || compile(profile))?,
            flags: flags(profile, listener.is_some()),
            listener,
        })
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

    /// Installs it on the calling thread, for ever. Answers the listener of SCMP_ACT_NOTIFY if it has one.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, OciError> {
        credentials::install_seccomp(&self.program, self.flags).step("install", "seccomp filter")
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }
}

fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, OciError> {
    let refuse = |what: String| {
        move |source: libseccomp::error::SeccompError| OciError::Step {
            step: "compile seccomp",
            what,
            source: io::Error::other(source.to_string()),
        }
    };
    let default = names::action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(refuse("defaultAction".into()))?;
    for arch in profile.architectures().iter().flatten() {
        context
            .add_arch(names::architecture(*arch)?)
            .map_err(refuse(format!("architecture {arch:?}")))?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let act = names::action(rule.action(), rule.errno_ret())?;
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

    let mut program = newer::program(profile, default)?;
    file.rewind()
        .and_then(|()| file.read_to_end(&mut program))
        .step("read", "seccomp program")?;
    Ok(program)
}

/// Without the field runc takes SPEC_ALLOW, which costs a container no mitigation that the host does without.
fn flags(profile: &LinuxSeccomp, listens: bool) -> u64 {
    let mut flags = match profile.flags() {
        None => names::SPEC_ALLOW,
        Some(given) => given.iter().fold(0, |all, flag| all | names::flag(*flag)),
    };
    if listens {
        // There is one thread, and the kernel takes only one of the two.
        flags = flags & !names::TSYNC | credentials::SECCOMP_NEW_LISTENER;
    } else {
        // Says how to wait for a listener's answer.
        flags &= !names::WAIT_KILLABLE_RECV;
    }
    flags
}

/// The architectures that the compiler knows: the youngest came late.
pub(crate) fn architectures() -> Vec<&'static str> {
    let known = |arch: ScmpArch| {
        let context = ScmpFilterContext::new(ScmpAction::Allow);
        context.is_ok_and(|mut context| context.add_arch(arch).is_ok())
    };
    let all = names::ARCHITECTURES.iter().filter(|(_, arch)| known(*arch));
    all.map(|(name, _)| *name).collect()
}

/// The version of the compiler that is linked in.
pub(crate) fn library_version() -> String {
    ScmpVersion::current().map_or_else(
        |_| String::new(),
        |version| format!("{}.{}.{}", version.major, version.minor, version.micro),
    )
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

/// Whether any rule asks a listener.
fn notifies(profile: &LinuxSeccomp) -> bool {
    let mut rules = profile.syscalls().iter().flatten();
    rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
}

#[cfg(test)]
mod test {
    use super::*;

    fn compiled(text: &str) -> Result<Filter, OciError> {
        Filter::compile(&serde_json::from_str(text).expect("a profile"))
    }

    #[test]
    fn every_action_and_flag_compiles() {
        let notify = names::ACTIONS.iter().filter(|action| **action != "SCMP_ACT_NOTIFY");
        for action in notify {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"syscalls":[{{"names":["uname"],"action":"{action}"}}]}}"#
            );
            assert_eq!(compiled(&text).expect(action).flags, names::LOG | names::TSYNC);
        }
        for arch in architectures() {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["{arch}"],
                    "syscalls":[{{"names":["read","from_a_later_kernel"],"action":"SCMP_ACT_ALLOW"}}]}}"#
            );
            compiled(&text).expect(arch);
        }
        assert!(architectures().contains(&"SCMP_ARCH_X86_64"));
    }

    #[test]
    fn the_default_flag_is_runcs() {
        let filter = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).expect("compiled");
        assert_eq!(filter.flags, names::SPEC_ALLOW);
        let filter = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#).expect("compiled");
        assert_eq!(filter.flags, 0);
    }
}

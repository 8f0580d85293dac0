//! ENOSYS for system calls that are newer than the profile.
//!
//! A profile that lists what is allowed would answer EPERM to a call that did not exist when it was written, and the C library
//! falls back to an older call on ENOSYS only. So, as runc does: a call whose number is above every number that the profile
//! names for that architecture answers ENOSYS, unless the default lets calls through anyway. The check is a few instructions
//! of BPF before libseccomp's program; jumps in BPF are relative, so that program stays as it is.

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;

use super::names;
use crate::error::OciError;

/// One `struct sock_filter`.
struct Instruction(u16, u8, u8, u32);

// linux/bpf_common.h.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

const ENOSYS: u32 = 0x0005_0000 | 38;
const AUDIT_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;

/// The highest number that the profile names for one architecture, by the kernel's number of it (linux/audit.h).
struct Last {
    audit: u32,
    plain: Option<u32>,
    /// x32 shares the kernel's number with x86-64; its calls carry a bit.
    x32: Option<u32>,
}

/// The check as a program, empty if the profile needs none.
pub(super) fn program(profile: &LinuxSeccomp, default: ScmpAction) -> Result<Vec<u8>, OciError> {
    // A tracer answers ENOSYS itself.
    if matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_)) {
        return Ok(Vec::new());
    }
    let blocks: Vec<Vec<Instruction>> = lasts(profile)?.iter().map(block).collect();
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = vec![Instruction(LOAD, 0, 0, ARCH)];
    let mut rest: usize = blocks.iter().map(Vec::len).sum();
    for block in blocks {
        rest -= block.len();
        for instruction in block {
            // A jump to the end of its block goes on behind all the others.
            let further = if instruction.0 == JUMP { rest as u32 } else { 0 };
            all.push(Instruction(
                instruction.0,
                instruction.1,
                instruction.2,
                instruction.3 + further,
            ));
        }
    }
    Ok(all.iter().flat_map(bytes).collect())
}

fn bytes(instruction: &Instruction) -> Vec<u8> {
    let Instruction(code, yes, no, k) = instruction;
    [&code.to_ne_bytes()[..], &[*yes, *no], &k.to_ne_bytes()[..]].concat()
}

fn lasts(profile: &LinuxSeccomp) -> Result<Vec<Last>, OciError> {
    let mut found: Vec<Last> = Vec::new();
    for arch in profile.architectures().iter().flatten() {
        let arch = names::architecture(*arch)?;
        let named = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let numbers = named.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
        // Below zero: known to libseccomp, but not there on this architecture.
        let Some(last) = numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max() else {
            continue;
        };
        let Some(audit) = audit_number(arch) else { continue };
        let at = match found.iter().position(|one| one.audit == audit) {
            Some(at) => at,
            None => {
                found.push(Last {
                    audit,
                    plain: None,
                    x32: None,
                });
                found.len() - 1
            }
        };
        let field = if arch == ScmpArch::X32 {
            &mut found[at].x32
        } else {
            &mut found[at].plain
        };
        *field = Some(last);
    }
    Ok(found)
}

/// From "is it this architecture" to the answer, or on to the end.
fn block(last: &Last) -> Vec<Instruction> {
    let check = |highest: Option<u32>, after: u32| match highest {
        Some(highest) => vec![
            Instruction(IF_ABOVE, 0, 1, highest),
            Instruction(RETURN, 0, 0, ENOSYS),
            Instruction(JUMP, 0, 0, after),
        ],
        None => vec![Instruction(JUMP, 0, 0, after)],
    };
    let plain = check(last.plain, 0);
    let mut body = vec![Instruction(LOAD, 0, 0, NUMBER)];
    if last.audit == AUDIT_X86_64 {
        let x32 = check(last.x32, plain.len() as u32);
        body.push(Instruction(IF_BIT, 0, x32.len() as u8, X32_BIT));
        body.extend(x32);
    }
    body.extend(plain);
    let mut all = vec![Instruction(IF_EQUAL, 0, body.len() as u8, last.audit)];
    all.extend(body);
    all
}

fn audit_number(arch: ScmpArch) -> Option<u32> {
    Some(match arch {
        ScmpArch::X8664 | ScmpArch::X32 => AUDIT_X86_64,
        ScmpArch::X86 => 0x4000_0003,
        ScmpArch::Arm => 0x4000_0028,
        ScmpArch::Aarch64 => 0xc000_00b7,
        ScmpArch::Loongarch64 => 0xc000_0102,
        ScmpArch::Mips => 0x0000_0008,
        ScmpArch::Mips64 => 0x8000_0008,
        ScmpArch::Mips64N32 => 0xa000_0008,
        ScmpArch::Mipsel => 0x4000_0008,
        ScmpArch::Mipsel64 => 0xc000_0008,
        ScmpArch::Mipsel64N32 => 0xe000_0008,
        ScmpArch::Ppc => 0x0000_0014,
        ScmpArch::Ppc64 => 0x8000_0015,
        ScmpArch::Ppc64Le => 0xc000_0015,
        ScmpArch::S390 => 0x0000_0016,
        ScmpArch::S390X => 0x8000_0016,
        ScmpArch::Riscv64 => 0xc000_00f3,
        _ => return None,
    })
}

#[cfg(test)]
mod test {
    use super::*;

    /// Runs the check on one call; `None` = it goes on to libseccomp's program.
    fn verdict(program: &[u8], arch: u32, number: u32) -> Option<u32> {
        let code: Vec<Instruction> = program
            .chunks_exact(8)
            .map(|raw| {
                Instruction(
                    u16::from_ne_bytes([raw[0], raw[1]]),
                    raw[2],
                    raw[3],
                    u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
                )
            })
            .collect();
        let (mut at, mut loaded) = (0, 0);
        while at < code.len() {
            let Instruction(op, yes, no, k) = code[at];
            at += 1;
            let jump = |condition: bool| usize::from(if condition { yes } else { no });
            match op {
                LOAD => loaded = if k == ARCH { arch } else { number },
                IF_EQUAL => at += jump(loaded == k),
                IF_ABOVE => at += jump(loaded > k),
                IF_BIT => at += jump(loaded & k != 0),
                JUMP => at += k as usize,
                RETURN => return Some(k),
                other => panic!("no such instruction: {other}"),
            }
        }
        assert_eq!(at, code.len(), "a jump past the end");
        None
    }

    fn profile(text: &str) -> LinuxSeccomp {
        serde_json::from_str(text).expect("a profile")
    }

    #[test]
    fn calls_above_the_highest_named_one_answer_enosys() {
        let profile = profile(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_AARCH64"],
                "syscalls":[{"names":["read","openat2","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#,
        );
        let check = program(&profile, ScmpAction::Errno(1)).expect("a program");
        // openat2 is 437 on all of them.
        for arch in [AUDIT_X86_64, 0x4000_0003, 0xc000_00b7] {
            assert_eq!(verdict(&check, arch, 437), None);
            assert_eq!(verdict(&check, arch, 438), Some(ENOSYS));
            assert_eq!(verdict(&check, arch, 0), None);
        }
        // An architecture that the profile does not name, and x32, are for libseccomp's program to refuse.
        assert_eq!(verdict(&check, 0x4000_0028, 438), None);
        assert_eq!(verdict(&check, AUDIT_X86_64, X32_BIT | 500), None);
    }

    #[test]
    fn x32_has_numbers_of_its_own() {
        let profile = profile(
            r#"{"defaultAction":"SCMP_ACT_KILL","architectures":["SCMP_ARCH_X32","SCMP_ARCH_X86_64"],
                "syscalls":[{"names":["read","execveat"],"action":"SCMP_ACT_ALLOW"}]}"#,
        );
        let check = program(&profile, ScmpAction::KillThread).expect("a program");
        // execveat: 322, and 545 with the bit.
        assert_eq!(verdict(&check, AUDIT_X86_64, 323), Some(ENOSYS));
        assert_eq!(verdict(&check, AUDIT_X86_64, X32_BIT | 545), None);
        assert_eq!(verdict(&check, AUDIT_X86_64, X32_BIT | 546), Some(ENOSYS));
    }

    #[test]
    fn what_lets_calls_through_needs_no_check() {
        let text = r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL"}]}"#;
        assert!(program(&profile(text), ScmpAction::Log).expect("none").is_empty());
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;
        assert!(program(&profile(text), ScmpAction::Errno(1)).expect("none").is_empty());
    }
}

//! Device rules as a BPF program (cgroup v2): from config.json's list to instructions.
//!
//! The last rule that says something about an access counts, as in cgroup v1's own list, so the program asks them from the
//! last to the first; what none allows is forbidden. An access of several kinds (read and write) may be allowed by several
//! rules together, and one that forbids any of them forbids it all.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// BPF_DEVCG_ACC_*.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;
/// BPF_DEVCG_DEV_*.
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// One rule; `None` = any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
    allow: bool,
}

const fn always(kind: u32, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule {
        kind: Some(kind),
        major,
        minor,
        access,
        allow: true,
    }
}

/// What every container may use, whatever its list says, as `values::ALWAYS_ALLOWED` of cgroup v1.
const ALWAYS_ALLOWED: [Rule; 10] = [
    always(CHAR, None, None, MKNOD),
    always(BLOCK, None, None, MKNOD),
    always(CHAR, Some(1), Some(3), ALL),
    always(CHAR, Some(1), Some(8), ALL),
    always(CHAR, Some(1), Some(7), ALL),
    always(CHAR, Some(5), Some(0), ALL),
    always(CHAR, Some(1), Some(5), ALL),
    always(CHAR, Some(1), Some(9), ALL),
    always(CHAR, Some(136), None, ALL),
    always(CHAR, Some(5), Some(2), ALL),
];

fn rule(rule: &LinuxDeviceCgroup) -> Rule {
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let letters = rule.access().as_deref().filter(|access| !access.is_empty());
    let access = letters.unwrap_or("rwm").chars().fold(0, |access, letter| {
        access
            | match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => 0,
            }
    });
    Rule {
        kind: match rule.typ() {
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
            _ => None,
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        access,
        allow: rule.allow(),
    }
}

/// The program for a container's list, deny by default, with [`ALWAYS_ALLOWED`] after it.
pub(super) fn program(rules: &[LinuxDeviceCgroup]) -> Vec<u64> {
    let all: Vec<Rule> = rules.iter().map(rule).chain(ALWAYS_ALLOWED).collect();
    compile(&all)
}

/// One instruction of the machine: operation, registers, jump, constant.
const fn instruction(code: u8, to: u8, from: u8, jump: i16, constant: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (jump.cast_unsigned() as u64) << 16
        | (constant.cast_unsigned() as u64) << 32
}

const LOAD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
/// The 32 bits differ.
const JUMP_UNEQUAL: u8 = 0x56;
const JUMP_EQUAL: u8 = 0x16;
const EXIT: u8 = 0x95;

/// Registers: 0 the answer, 1 the kernel's question, 2 the type, 3 the accesses that nobody has allowed yet, 4 major, 5 minor.
fn compile(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD, 2, 1, 0, 0),
        instruction(COPY, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD, 4, 1, 4, 0),
        instruction(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let any = rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
        if any && !rule.allow && rule.access == ALL {
            // Whatever comes before it has no say; the end forbids.
            break;
        }
        let answer = |allow| [instruction(SET, 0, 0, 0, allow), instruction(EXIT, 0, 0, 0, 0)];
        let access = rule.access.cast_signed();
        let verdict: Vec<u64> = if rule.allow {
            let rest = [
                instruction(AND, 3, 0, 0, !access),
                instruction(JUMP_UNEQUAL, 3, 0, 2, 0),
            ];
            rest.into_iter().chain(answer(1)).collect()
        } else {
            let hit = [
                instruction(COPY, 0, 3, 0, 0),
                instruction(AND, 0, 0, 0, access),
                instruction(JUMP_EQUAL, 0, 0, 2, 0),
            ];
            hit.into_iter().chain(answer(0)).collect()
        };
        let conditions = [(2, rule.kind), (4, rule.major), (5, rule.minor)];
        let conditions: Vec<(u8, u32)> = conditions
            .iter()
            .filter_map(|(at, value)| Some((*at, (*value)?)))
            .collect();
        for (index, (register, value)) in conditions.iter().enumerate() {
            let skipped = conditions.len() - index - 1 + verdict.len();
            // A handful of instructions: it always fits.
            let jump = i16::try_from(skipped).unwrap_or(i16::MAX);
            code.push(instruction(JUMP_UNEQUAL, *register, 0, jump, value.cast_signed()));
        }
        code.extend(verdict);
    }
    code.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

#[cfg(test)]
mod test {
    use super::*;

    /// Runs a program as the kernel would, on the few instructions that there are.
    fn run(code: &[u64], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let mut registers = [0u64; 16];
        let memory = [access << 16 | kind, major, minor];
        let mut at = 0;
        loop {
            let word = code[at];
            let (to, from) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let jump = (word >> 16) as u16 as usize;
            let constant = (word >> 32) as u32;
            let extended = i64::from(constant.cast_signed()).cast_unsigned();
            at += 1;
            match word as u8 {
                LOAD => registers[to] = memory[jump / 4].into(),
                COPY => registers[to] = registers[from],
                SHIFT_RIGHT => registers[to] >>= constant,
                AND => registers[to] &= extended,
                SET => registers[to] = extended,
                JUMP_UNEQUAL if registers[to] as u32 != constant => at += jump,
                JUMP_EQUAL if registers[to] as u32 == constant => at += jump,
                JUMP_UNEQUAL | JUMP_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:x}"),
            }
        }
    }

    fn of(json: &str) -> Vec<u64> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).expect("rules");
        program(&rules)
    }

    #[test]
    fn forbids_what_no_rule_allows() {
        let code = of("[]");
        assert!(run(&code, CHAR, 1, 3, READ | WRITE));
        assert!(run(&code, CHAR, 136, 7, READ | WRITE));
        assert!(run(&code, BLOCK, 8, 0, MKNOD));
        assert!(!run(&code, BLOCK, 8, 0, READ));
        assert!(!run(&code, CHAR, 10, 200, READ));
        // One of two is not enough.
        assert!(!run(&code, BLOCK, 8, 0, MKNOD | READ));
    }

    #[test]
    fn the_last_rule_counts() {
        let code = of(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
                {"allow":true,"type":"b","major":8,"access":"w"},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        );
        assert!(run(&code, BLOCK, 8, 0, READ | WRITE));
        assert!(run(&code, BLOCK, 8, 2, WRITE) && !run(&code, BLOCK, 8, 2, READ | WRITE));
        assert!(!run(&code, BLOCK, 8, 1, WRITE) && !run(&code, CHAR, 8, 0, READ));
        let open = of(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":-1}]"#);
        assert!(run(&open, BLOCK, 259, 3, ALL) && !run(&open, CHAR, 10, 5, READ));
    }

    /// Against cgroup v1's meaning, said in the plainest way: every single access by the last rule that names it.
    #[test]
    fn agrees_with_a_plain_reading_of_the_list() {
        let mut seed = 7u32;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..2000 {
            let rules: Vec<Rule> = (0..next(6))
                .map(|_| Rule {
                    kind: [None, Some(BLOCK), Some(CHAR)][next(3) as usize],
                    major: [None, Some(1), Some(2)][next(3) as usize],
                    minor: [None, Some(1), Some(2)][next(3) as usize],
                    access: 1 + next(7),
                    allow: next(2) == 0,
                })
                .collect();
            let code = compile(&rules);
            let (kind, major, minor, access) = (1 + next(2), 1 + next(2), 1 + next(2), 1 + next(7));
            let matches = |rule: &&Rule| {
                rule.kind.is_none_or(|is| is == kind)
                    && rule.major.is_none_or(|is| is == major)
                    && rule.minor.is_none_or(|is| is == minor)
            };
            let single = |bit: u32| {
                let last = rules.iter().filter(matches).rfind(|rule| rule.access & bit != 0);
                last.is_some_and(|rule| rule.allow)
            };
            let plain = [MKNOD, READ, WRITE]
                .into_iter()
                .filter(|bit| access & bit != 0)
                .all(single);
            assert_eq!(
                run(&code, kind, major, minor, access),
                plain,
                "{rules:?} {kind} {major}:{minor} {access}"
            );
        }
    }
}

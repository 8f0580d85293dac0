//! What happens in one run, as a list that a seed gives, that prints, and that can be shortened.

/// SplitMix64: the same numbers for the same seed in every release.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Containers are called by a small number, execs too; `request` 0 = without a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Run {
        id: u8,
        request: u8,
    },
    Create {
        id: u8,
        request: u8,
    },
    Start {
        id: u8,
        request: u8,
    },
    Exec {
        id: u8,
        exec: u8,
        request: u8,
    },
    Signal {
        id: u8,
        signal: u8,
    },
    Stop {
        id: u8,
    },
    Pause {
        id: u8,
    },
    Resume {
        id: u8,
    },
    Update {
        id: u8,
    },
    Resize {
        id: u8,
    },
    Attach {
        id: u8,
    },
    Delete {
        id: u8,
        force: bool,
    },
    DeleteExec {
        id: u8,
        exec: u8,
    },
    Wait {
        id: u8,
    },
    List,
    /// The newest call that waits is given up by its client.
    GiveUp,
    /// The init ends by itself.
    Ends {
        id: u8,
        code: u8,
    },
    ExecEnds {
        id: u8,
        exec: u8,
        code: u8,
    },
    OomKill {
        id: u8,
    },
    ShimKilled {
        id: u8,
    },
    HangUp {
        id: u8,
    },
    /// The shim answers nothing for a while.
    Mute {
        id: u8,
        on: bool,
    },
    /// The shim hears no acknowledgements.
    Deaf {
        id: u8,
        on: bool,
    },
    JournalFull(bool),
    /// The daemon dies now, and the next one comes so many milliseconds later.
    Crash {
        down: u64,
    },
    /// It dies at the nth fail point from now.
    CrashAtStage {
        stage: u8,
        down: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds after the step before it.
    pub gap: u64,
    pub op: Op,
    /// 0 = between the moments of the machine; otherwise at the next of them, so many tasks' turns into it.
    pub meets: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub steps: Vec<Step>,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 3 + random.below(14);
        let steps = (0..count)
            .map(|i| Step {
                gap: gap(&mut random),
                op: op(&mut random, i == 0),
                meets: meets(&mut random),
            })
            .collect();
        Self { seed, steps }
    }

    /// The shortest list found that still fails: steps are left out and gaps closed as long as that is so.
    #[must_use]
    pub fn shrink(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut best = self.clone();
        loop {
            let before = best.clone();
            let mut size = best.steps.len().div_ceil(2);
            while size > 0 {
                let mut at = 0;
                while at < best.steps.len() {
                    let mut shorter = best.clone();
                    let end = (at + size).min(shorter.steps.len());
                    shorter.steps.drain(at..end);
                    if fails(&shorter) {
                        best = shorter;
                    } else {
                        at += size;
                    }
                }
                size /= 2;
            }
            for at in 0..best.steps.len() {
                let mut closer = best.clone();
                closer.steps[at].gap = 0;
                if closer != best && fails(&closer) {
                    best = closer;
                }
                let mut apart = best.clone();
                apart.steps[at].meets = 0;
                if apart != best && fails(&apart) {
                    best = apart;
                }
            }
            if best == before {
                return best;
            }
        }
    }
}

fn gap(random: &mut Random) -> u64 {
    match random.below(20) {
        0..8 => random.below(12),
        8..17 => random.below(200),
        17..19 => 1000 + random.below(3000),
        _ => 8000 + random.below(70_000),
    }
}

fn meets(random: &mut Random) -> u8 {
    let turns = u8::try_from(random.below(16)).unwrap_or(0);
    if random.chance(30) { 1 + turns } else { 0 }
}

fn op(random: &mut Random, first: bool) -> Op {
    let id = [0, 0, 0, 0, 0, 0, 0, 1, 1, 2][usize::try_from(random.below(10)).unwrap_or(0)];
    let exec = u8::from(random.chance(30));
    let request = u8::try_from(random.below(3)).unwrap_or(0);
    let code = u8::try_from(random.below(200)).unwrap_or(0);
    let (on, force) = (random.chance(60), random.chance(60));
    let down = 4 + random.below(400);
    let pick = if first { random.below(20) } else { random.below(120) };
    match pick {
        0..12 => Op::Run { id, request },
        12..20 => Op::Create { id, request },
        20..30 => Op::Start { id, request },
        30..37 => Op::Exec { id, exec, request },
        37..43 => Op::Signal {
            id,
            signal: if on { 15 } else { 9 },
        },
        43..48 => Op::Stop { id },
        48..54 => Op::Pause { id },
        54..58 => Op::Resume { id },
        58..61 => Op::Update { id },
        61..63 => Op::Resize { id },
        63..65 => Op::Attach { id },
        65..76 => Op::Delete { id, force },
        76..79 => Op::DeleteExec { id, exec },
        79..81 => Op::Wait { id },
        81..82 => Op::List,
        82..85 => Op::GiveUp,
        85..91 => Op::Ends { id, code },
        91..94 => Op::ExecEnds { id, exec, code },
        94..96 => Op::OomKill { id },
        96..99 => Op::ShimKilled { id },
        99..102 => Op::HangUp { id },
        102..105 => Op::Mute { id, on },
        105..107 => Op::Deaf { id, on },
        107..109 => Op::JournalFull(on),
        109..112 => Op::Crash { down },
        _ => Op::CrashAtStage {
            stage: 1 + u8::try_from(random.below(24)).unwrap_or(0),
            down,
        },
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_failing_schedule_shrinks_to_what_fails() {
        let long = (0..).map(Schedule::new).find(|s| {
            let paused = s.steps.iter().any(|s| matches!(s.op, Op::Pause { .. }));
            paused && s.steps.iter().any(|s| matches!(s.op, Op::Crash { .. })) && s.steps.len() > 9
        });
        let fails = |s: &Schedule| {
            let at = s.steps.iter().position(|s| matches!(s.op, Op::Pause { .. }));
            at.is_some() && s.steps.iter().any(|s| matches!(s.op, Op::Crash { .. }))
        };
        let short = long.expect("there is one").shrink(fails);
        assert_eq!(short.steps.len(), 2);
        assert!(short.steps.iter().all(|step| step.gap == 0));
    }

    #[test]
    fn a_seed_is_one_schedule() {
        assert_eq!(Schedule::new(7), Schedule::new(7));
        assert_ne!(Schedule::new(7).steps, Schedule::new(8).steps);
    }
}

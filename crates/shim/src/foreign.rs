//! Notices that a start waits for something that does not use the machine (a hook, a FIFO, a hung runtime), so that its permit may
//! be given back: looked at every 50 ms while a create or start runs, told once.

use std::time::{Duration, Instant};

use berth_sys::process;

use crate::shim::Shim;

const EVERY: Duration = Duration::from_millis(50);
/// CPU time in one interval that counts as working, in nanoseconds.
const WORK: u64 = 500_000;

#[derive(Debug)]
pub struct Sampler {
    creator: u32,
    stage: &'static str,
    pub next: Instant,
    /// CPU time that the runtime's processes had used, in nanoseconds.
    last: Option<u64>,
}

impl Shim {
    pub fn watch_for_foreign_wait(&mut self, creator: u32, stage: &'static str, begun: Instant) {
        self.sampler = Some(Sampler {
            creator,
            stage,
            next: begun + EVERY,
            last: None,
        });
    }

    pub fn sample(&mut self, now: Instant) {
        let Some(sampler) = &mut self.sampler else { return };
        let used = Used::of(sampler.creator);
        let idle = !used.busy && sampler.last.is_some_and(|last| used.cpu.saturating_sub(last) < WORK);
        if idle {
            self.outbox.foreign_wait(sampler.stage);
            self.sampler = None;
        } else {
            sampler.last = Some(used.cpu);
            sampler.next = now + EVERY;
        }
    }
}

struct Used {
    cpu: u64,
    /// One is running, or waits for the disk or the kernel.
    busy: bool,
}

impl Used {
    fn of(creator: u32) -> Used {
        let mut used = Used { cpu: 0, busy: false };
        for pid in process::descendants(creator).unwrap_or_default() {
            let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            used.cpu += text
                .split(' ')
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
                .unwrap_or(0);
            used.busy |= process::stat(pid).is_ok_and(|stat| matches!(stat.state, 'R' | 'D'));
        }
        used
    }
}

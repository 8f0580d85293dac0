//! How inits and execs end, and what their shim says of it.

use berth_core::ExitStatus;
use berth_record::{ExecRecord, ExitRecord};
use berth_wire::rpc;
use berth_wire::shim::{self as wire, event::What};

use super::{Due, Machine};
use crate::schedule::Random;

impl Machine {
    /// Most containers end by themselves after a while.
    pub(super) fn may_end(&mut self, incarnation: &str) {
        let mut random = Random::new(self.seed ^ self.serial.wrapping_mul(77));
        if random.chance(40) {
            let delay = if random.chance(30) { 0 } else { random.below(3000) };
            let what = Due::InitEnds {
                incarnation: incarnation.to_owned(),
                code: u32::try_from(random.below(120)).unwrap_or(0),
                signal: 0,
            };
            self.after(delay, what);
        }
    }

    pub(super) fn init_ends(&mut self, incarnation: &str, code: u32, signal: u32) {
        let at = self.wall();
        let Some(init) = self.inits.get_mut(incarnation).filter(|i| i.alive) else {
            return;
        };
        // Of SIGKILL a frozen process ends under cgroup v2 alone.
        let v2 = self.seed & 1 == 1;
        if init.frozen && !(v2 && signal == 9) {
            init.doomed |= signal != 0;
            return;
        }
        init.alive = false;
        init.ended.come();
        let id = init.id.clone();
        self.trace(format_args!("init of {id} ends with {code}"));
        let Some(shim) = self.shim_of(incarnation) else { return };
        let execs: Vec<_> = self.shims[shim].execs.keys().cloned().collect();
        for exec in execs {
            self.exec_ends(shim, &exec, 137, 9);
        }
        let exit = wire::Exit {
            code,
            signal,
            oom: false,
            at,
        };
        let status = ExitStatus::ended(code, signal, false, at);
        let pid = 1000 + u32::try_from(shim).unwrap_or(0);
        // The record first: whoever hears of the end may look.
        let recorded = self.shims[shim]
            .folder
            .write_exit(&ExitRecord::new(incarnation, "", pid, &status));
        if let Err(error) = recorded {
            self.trace(format_args!("exit of {id} not recorded: {error}"));
        }
        self.books.ended(incarnation, "", exit);
        self.shims[shim].state = wire::State::Stopped;
        self.write_shim(shim);
        let exited = wire::ProcessExited {
            exec_id: String::new(),
            pid,
            exit: Some(exit),
        };
        self.tell(shim, What::Exited(exited));
    }

    pub(super) fn exec_ends(&mut self, shim: usize, exec: &str, code: u32, signal: u32) {
        let at = self.wall();
        let of = &mut self.shims[shim];
        let Some(entry) = of.execs.get_mut(exec).filter(|e| e.pid != 0 && e.exit.is_none()) else {
            return;
        };
        let exit = wire::Exit {
            code,
            signal,
            oom: false,
            at,
        };
        entry.exit = Some(exit);
        let (pid, incarnation) = (entry.pid, of.incarnation.clone());
        let status = ExitStatus::ended(code, signal, false, at);
        let record = ExecRecord {
            exec_id: exec.to_owned(),
            incarnation: incarnation.clone(),
            exit: Some(ExitRecord::new(&incarnation, exec, pid, &status)),
            ..ExecRecord::default()
        };
        let _ = of.folder.write_exec_exit(&record);
        self.books.ended(&incarnation, &format!("{exec} {pid}"), exit);
        let exited = wire::ProcessExited {
            exec_id: exec.to_owned(),
            pid,
            exit: Some(exit),
        };
        self.tell(shim, What::Exited(exited));
    }

    /// Into the outbox, and out to who listens.
    pub(super) fn tell(&mut self, shim: usize, what: What) {
        let of = &mut self.shims[shim];
        of.last += 1;
        let event = wire::Event {
            number: of.last,
            what: Some(what.clone()),
        };
        of.outbox.push(event);
        let number = of.last;
        self.send_event(shim, number, what);
    }

    pub(super) fn send_event(&mut self, shim: usize, number: u64, what: What) {
        let of = &self.shims[shim];
        let Some((conn, stream)) = of.events.filter(|_| !of.mute) else {
            return;
        };
        let event = wire::Event {
            number,
            what: Some(what),
        };
        if let Ok(frame) = rpc::data(stream, &event) {
            self.send(shim, conn, frame);
        }
    }
}

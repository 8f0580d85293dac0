//! Delete: what a container or an exec leaves behind is removed. Every step can be repeated, by this shim or by the next.
//!
//! The container's folder itself, with its exit record and the shim's own files, is the daemon's to remove, after Shutdown: until
//! then whoever finds the folder also finds this shim.

use berth_sys::file;
use berth_wire::shim::{DeleteRequest, DeleteResponse, State};

use crate::calls::ReplyTo;
use crate::child::Child;
use crate::creator::PROCESS_FILE;
use crate::error::Error;
use crate::shim::Shim;
use crate::stage::stage;
use crate::task::{Op, Outcome};

/// A delete whose runtime part is done and that waits for exits to be told.
#[derive(Debug)]
pub struct Deleting {
    to: Vec<ReplyTo>,
    left: Vec<String>,
}

impl Shim {
    pub fn delete(&mut self, to: ReplyTo, request: DeleteRequest) -> Result<(), Error> {
        if !request.exec_id.is_empty() {
            return self.delete_exec(to, &request);
        }
        stage!("delete.begin");
        if let Some(task) = self.tasks.iter_mut().find(|task| matches!(task.op, Op::Delete)) {
            task.to.push(to);
            return Ok(());
        }
        if let Some(deleting) = &mut self.deleting {
            deleting.to.push(to);
            return Ok(());
        }
        let works = self.makes_a_process() || self.has_exclusive_task();
        let busy = works || self.children.iter().any(Child::lives);
        if busy && !request.force {
            return Err(Error::State {
                operation: "delete",
                problem: "a process of the container lives".into(),
            });
        }
        if self.container.is_none() {
            self.answer(to, &DeleteResponse::default());
            return Ok(());
        }
        let thaw = self.state == State::Paused || self.earlier.is_some();
        let job = self.removal(thaw);
        self.cancel_tasks();
        self.kill_strays();
        self.launch(Op::Delete, vec![to], job, None)?;
        stage!("delete.forked");
        Ok(())
    }

    pub fn delete_ended(&mut self, to: Vec<ReplyTo>, outcome: Outcome) {
        stage!("delete.runtime_done");
        self.kill_strays();
        let mut left = outcome.left;
        match outcome.result {
            Ok(()) => {}
            Err(error) => left.push(error.to_string()),
        }
        self.deleting = Some(Deleting { to, left });
        // Its exits are told first, if it has any to tell.
        self.finish_delete();
    }

    pub fn finish_delete(&mut self) {
        let Some(deleting) = &self.deleting else { return };
        let untold = self.children.iter().any(|child| child.born.is_some() && !child.told);
        // What can't be killed is told as left; it is not waited for.
        if untold && deleting.left.is_empty() {
            return;
        }
        let Some(Deleting { to, mut left }) = self.deleting.take() else {
            return;
        };
        if left.is_empty() {
            left = self.remove_files();
        }
        if left.is_empty() {
            self.kill_writers();
            self.oom = None;
            self.earlier = None;
            self.container = None;
            self.state = State::Empty;
        }
        stage!("delete.files_gone");
        let answer = DeleteResponse { left };
        for to in to {
            self.answer(to, &answer);
        }
    }

    fn remove_files(&self) -> Vec<String> {
        let ids = self.records.exec_ids();
        let execs = ids
            .iter()
            .filter_map(|id| self.records.remove_exec(id).err())
            .map(|error| error.to_string());
        let mut left: Vec<String> = execs.collect();
        if let Err(error) = file::unlink_at(&self.folder, PROCESS_FILE) {
            left.push(format!("{PROCESS_FILE}: {error}"));
        }
        left
    }

    /// Their logs are being removed.
    pub fn kill_writers(&mut self) {
        for child in &mut self.children {
            child.stdio.kill_writer();
        }
    }

    fn delete_exec(&mut self, to: ReplyTo, request: &DeleteRequest) -> Result<(), Error> {
        let operation = "delete";
        if let Some(child) = self.child(&request.exec_id) {
            if request.force {
                let _ = child.signal(berth_sys::signal::SIGKILL);
            }
            if !child.told {
                return Err(Error::State {
                    operation,
                    problem: format!("exec {} has not ended", request.exec_id),
                });
            }
            let id = child.id;
            self.detach(id);
            self.children.retain(|child| child.id != id);
        }
        self.records.remove_exec(&request.exec_id)?;
        self.answer(to, &DeleteResponse::default());
        Ok(())
    }
}

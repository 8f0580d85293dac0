//! The process object, of a container or of an exec.

use oci_spec::runtime::{LinuxSchedulerPolicy, Process};

use super::{Checked, id, path, quoted, require, text, within};
use crate::error::OciError;
use crate::labels;
use crate::plan::Affinity;

/// `at`: what stands before the names of its fields.
pub(crate) fn process(at: &str, process: &Process) -> Checked {
    let at = |field: &str| format!("{at}{field}");
    path(&at("cwd"), process.cwd(), true)?;
    let args = process.args().as_deref().unwrap_or_default();
    let command = args.first().is_some_and(|name| !name.is_empty());
    require(at("args"), command, || "empty".into(), "at least the command")?;
    for arg in args {
        text(&at("args"), arg)?;
    }
    for variable in process.env().iter().flatten() {
        text(&at("env"), variable)?;
        let named = variable.split_once('=').is_some_and(|(name, _)| !name.is_empty());
        require(at("env"), named, || quoted(variable), "NAME=VALUE")?;
    }
    let user = process.user();
    id(at("user.uid"), Some(user.uid()))?;
    id(at("user.gid"), Some(user.gid()))?;
    for gid in user.additional_gids().iter().flatten() {
        id(at("user.additionalGids"), Some(*gid))?;
    }
    within(at("user.umask"), user.umask(), 0, 0o777)?;
    limits(&at("rlimits"), process)?;
    within(at("oomScoreAdj"), process.oom_score_adj(), -1000, 1000)?;
    if let Some(priority) = process.io_priority() {
        within(at("ioPriority.priority"), Some(priority.priority()), 0, 7)?;
    }
    scheduler(&at("scheduler"), process)?;
    Affinity::of(process)?;
    labels::check(&at(""), process)
}

fn limits(field: &str, process: &Process) -> Checked {
    let all = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in all.iter().enumerate() {
        let name = limit.typ().to_string();
        let again = all[..index].iter().any(|other| other.typ() == limit.typ());
        require(field, !again, || format!("{name} twice"), "each type once")?;
        let value = || format!("{name} {}:{}", limit.soft(), limit.hard());
        require(field, limit.soft() <= limit.hard(), value, "soft not above hard")?;
    }
    Ok(())
}

fn scheduler(field: &str, process: &Process) -> Checked {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let Some(wanted) = process.scheduler() else {
        return Ok(());
    };
    let policy = *wanted.policy();
    if matches!(policy, SchedOther | SchedBatch) {
        within(format!("{field}.nice"), *wanted.nice(), -20, 19)?;
    }
    let priority = wanted.priority().unwrap_or(0);
    let real_time = matches!(policy, SchedFifo | SchedRr);
    let allowed = if real_time {
        "1 to 99"
    } else {
        "0, but for SCHED_FIFO and SCHED_RR"
    };
    let right = if real_time {
        (1..=99).contains(&priority)
    } else {
        priority == 0
    };
    require(format!("{field}.priority"), right, || priority.to_string(), allowed)?;
    let times = [
        ("runtime", wanted.runtime()),
        ("deadline", wanted.deadline()),
        ("period", wanted.period()),
    ];
    for (name, time) in times {
        if let Some(time) = time.filter(|time| *time != 0 && policy != SchedDeadline) {
            return Err(OciError::field(
                format!("{field}.{name}"),
                time,
                "0, but for SCHED_DEADLINE",
            ));
        }
    }
    Ok(())
}

//! Processes: making, replacing, knowing, signalling and waiting for them.
//!
//! A process is held by its pidfd; a number alone is never signalled. A number that was stored carries boot id and start time
//! and is checked after `pidfd_open` ([`open_known`]).

mod child;
mod exec;
mod fork;
mod inherited;
mod pidfd;
mod settings;
mod signals;
mod stat;
#[cfg(test)]
mod test;
mod wait;

pub use child::{close_except, kill_group};
pub(crate) use exec::start;
pub use exec::{Exec, Program, exec, set_cloexec, spawn};
pub(crate) use fork::tid_address;
pub use fork::{Fork, ForkPidfd, fork, fork_pidfd, fork_sibling};
pub use inherited::{inherited_fd, replace_stdio};
pub use pidfd::{has_ended, open_known, pidfd_open, pidfd_send_signal, pidfd_take, wait_until_ended};
pub use settings::{
    Limit, affinity_all, clear_environment, close_from, die_with_parent, exit, exit_now, getpid, getppid, kill_self,
    knows_processor, limit, limit_nofile, malloc_trim, malloc_tune, set_affinity, set_child_subreaper, set_limit,
    set_limit_nofile, set_limit_nofile_of, set_name, set_oom_score_adj, set_title_area, setsid, start_process_group,
    umask,
};
pub use signals::{SignalFd, block_signals, ignore_signal, reset_signals};
pub use stat::{Stat, boot_id, children, descendants, parse_stat, start_time, stat};
pub use wait::{Ended, peek, peek_pid, reap, wait, wait_any};

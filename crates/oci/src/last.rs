//! The last steps before an execve, the same for a container's first process and for every other.
//!
//! Order, as runc's: what needs privilege first, then the identity, then the filter. Without no_new_privs a filter needs
//! CAP_SYS_ADMIN, which the identity takes away: so it goes before it; with it as late as can be, so that few calls follow.

use std::convert::Infallible;
use std::os::fd::AsRawFd;

use berth_sys::{credentials, execve, limits, process as proc};
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, Process};

use crate::channel::{Channel, Message};
use crate::error::{Context, OciError};
use crate::labels;
use crate::plan::SchedulingPlan;
use crate::process::{self, Command};
use crate::seccomp::Filter;

/// What these steps are about.
#[derive(Clone, Copy)]
pub(crate) struct LastSteps<'a> {
    pub process: &'a Process,
    pub scheduling: &'a SchedulingPlan,
    pub personality: Option<&'a LinuxPersonality>,
    pub memory_policy: Option<&'a LinuxMemoryPolicy>,
    pub seccomp: Option<&'a Filter>,
    /// The user namespace allows setgroups(2).
    pub setgroups: bool,
    /// The CPUs are decided already.
    pub keep_affinity: bool,
    /// In a user namespace a process can't raise its own limits: whoever is at the channel's other end sets them.
    pub limits_from_outside: bool,
}

impl LastSteps<'_> {
    fn no_new_privs(&self) -> bool {
        self.process.no_new_privileges() == Some(true)
    }

    /// Limits, scheduling, identity. What is left to do is [`LastSteps::execute`].
    pub(crate) fn prepare(&self, channel: &mut Channel) -> Result<Command, OciError> {
        if self.limits_from_outside {
            channel.send(&Message::Limits).step("ask for", "limits")?;
            channel.expect(&Message::Limited)?;
        } else {
            process::set_limits(0, self.process)?;
        }
        if !self.keep_affinity {
            // Whatever the caller was bound to; the cpuset is the bound that counts.
            let _ = proc::affinity_all();
        }
        self.scheduling.apply()?;
        if let Some(personality) = self.personality {
            let domain = match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            };
            credentials::set_personality(domain).step("set", "linux.personality")?;
        }
        if let Some(policy) = self.memory_policy {
            crate::plan::set_memory_policy(policy)?;
        }
        labels::apply(self.process)?;
        limits::set_umask(self.process.user().umask().unwrap_or(0o022));
        if self.no_new_privs() {
            credentials::no_new_privs().step("set", "no_new_privs")?;
        } else {
            self.confine(channel)?;
        }
        process::become_user(self.process, self.setgroups)?;
        Command::find(self.process)
    }

    /// Installs the filter; its listener is introduced by whoever is at the channel's other end.
    fn confine(&self, channel: &mut Channel) -> Result<(), OciError> {
        let Some(filter) = self.seccomp else { return Ok(()) };
        if let Some(listener) = filter.install()? {
            channel
                .send(&Message::Listener(listener.as_raw_fd()))
                .step("introduce", "seccomp listener")?;
            channel.expect(&Message::Introduced)?;
        }
        Ok(())
    }

    /// Becomes the command. Returns only if that failed.
    pub(crate) fn execute(&self, command: &Command, channel: &mut Channel) -> Result<Infallible, OciError> {
        if self.no_new_privs() {
            self.confine(channel)?;
        }
        let source = execve::replace(&command.path, &command.args, &command.env);
        let name = command.args.first();
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Err(OciError::CommandNotExecutable { command: name, source })
    }
}

//! What is legal in which state, and what follows: one table, `step`, and nothing else decides.
//!
//! ```text
//!              Permit          Created            Start            Started
//!   (Stopped ── Restart ──▶ Restarting ── Permit ──▶ Creating, where a restart policy says so)
//!
//!   Queued ───────────▶ Creating ─────▶ Created ─────▶ Starting ───────────▶ Running ◀──▶ Paused
//!      │                   │  └───────────────────────────────────────────────▲  │          │
//!      │ Abandoned         │ CreateFailed      Exited (from any that has a process)         │
//!      ▼                   ▼                                                     ▼          ▼
//!   Deleting ◀────────────────────────────────────────────────────────────── Stopped ◀──────┘
//! ```
//!
//! Inputs are facts (what happened; never refused, at most ignored) and wishes (what somebody asks for; refused with a
//! reason where they make no sense). A task gives the facts that it has before the wishes. `table.txt` beside this file
//! shows every cell; the test that compares it makes each change of a cell visible in a review.

#[cfg(test)]
mod test;

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for a permit to be created.
    Queued,
    /// A shim and a runtime make it.
    Creating,
    /// It waits before execve.
    Created,
    /// A start of a created container waits for its permit or is at work.
    Starting,
    Running,
    Paused,
    /// The init has ended; its record is kept.
    Stopped,
    /// It has ended, and waits for its restart.
    Restarting,
    /// On its way out; the id is free after it.
    Deleting,
}

/// The closed list of what can reach a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    // Facts.
    /// The gate admitted its start.
    Permit,
    /// Nobody waits any more for its start, which was still queued.
    Abandoned,
    Created,
    Started,
    /// Creating failed, and what was made is undone.
    CreateFailed,
    /// Starting the created container failed.
    StartFailed,
    /// The init has ended.
    Exited,
    /// The shim is gone, and the init with it or soon.
    ShimLost,
    Paused,
    Resumed,
    /// Nothing is left, or what is left was handed to the background.
    Removed,
    /// Its policy wants it started again.
    Restart,
    /// The pause before that is over.
    Due,
    /// The policy was taken back.
    RestartCancelled,
    /// It could not be made again; what was made is undone, its record is kept.
    RestartFailed,
    // Wishes.
    Start,
    Exec,
    Signal,
    /// SIGKILL: it must work on a frozen container.
    Kill,
    Stop,
    Pause,
    Resume,
    Update,
    /// Resize the terminal, close stdin.
    Terminal,
    Attach,
    Delete,
    DeleteForce,
}

/// What the supervisor is to do, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Join the start queue.
    Enqueue,
    /// Leave the start queue; the start's caller hears that it was cancelled.
    LeaveQueue,
    /// Fork the shim and have it create the container, and for Run start it.
    Launch,
    /// Give the launch up and undo it; it answers with `CreateFailed`, unless it is done already.
    AbortLaunch,
    /// Have the shim start the created container.
    SendStart,
    /// Write into the container's record how far it is: what is written was told before.
    Save,
    TellCreated,
    TellStarted,
    TellStartFailed,
    TellPaused,
    TellResumed,
    TellDeleted,
    /// Number the exit and answer who waits for it.
    TellExit,
    /// Keep the exit until it is known how the start ended: nobody hears of an end before the beginning.
    HoldExit,
    /// Give the exit that was held as an input now.
    ReleaseExit,
    /// Find out how the init ended without a shim, killing it if need be; answers with `Exited`.
    Bury,
    /// Kill the init.
    Kill,
    /// Hand the wish to the shim.
    Forward,
    /// Resume it, so that it can die.
    Thaw,
    /// Send the stop signal, and SIGKILL after the timeout; the caller waits for the exit.
    BeginStop,
    /// Answer with the exit that is known.
    AnswerExit,
    /// Kill what lives, remove everything; answers with `Removed`. Nothing if it is under way.
    Remove,
    /// The caller waits for the removal that is under way.
    JoinRemoval,
    /// Wait out the pause before the restart.
    BackOff,
    /// Join the start queue for the restart.
    Rejoin,
    /// Try that again later.
    Defer,
    /// Free the id and end the task.
    Forget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go to this state, then do this.
    To(State, &'static [Action]),
    /// A fact that changes nothing here: it came late or twice.
    Ignored,
    /// A wish that makes no sense here: "it `reason`".
    Refused(&'static str),
}

impl State {
    pub const ALL: [State; 9] = [
        Self::Queued,
        Self::Creating,
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopped,
        Self::Restarting,
        Self::Deleting,
    ];

    /// Whether a process of the container may exist that nobody was told the end of.
    pub fn has_init(self) -> bool {
        matches!(self, Self::Created | Self::Starting | Self::Running | Self::Paused)
    }
}

impl Input {
    pub const ALL: [Input; 27] = [
        Self::Permit,
        Self::Abandoned,
        Self::Created,
        Self::Started,
        Self::CreateFailed,
        Self::StartFailed,
        Self::Exited,
        Self::ShimLost,
        Self::Paused,
        Self::Resumed,
        Self::Removed,
        Self::Restart,
        Self::Due,
        Self::RestartCancelled,
        Self::RestartFailed,
        Self::Start,
        Self::Exec,
        Self::Signal,
        Self::Kill,
        Self::Stop,
        Self::Pause,
        Self::Resume,
        Self::Update,
        Self::Terminal,
        Self::Attach,
        Self::Delete,
        Self::DeleteForce,
    ];

    pub fn is_fact(self) -> bool {
        match self {
            Self::Permit
            | Self::Abandoned
            | Self::Created
            | Self::Started
            | Self::CreateFailed
            | Self::StartFailed
            | Self::Exited
            | Self::ShimLost
            | Self::Paused
            | Self::Resumed
            | Self::Removed
            | Self::Restart
            | Self::Due
            | Self::RestartCancelled
            | Self::RestartFailed => true,
            Self::Start
            | Self::Exec
            | Self::Signal
            | Self::Kill
            | Self::Stop
            | Self::Pause
            | Self::Resume
            | Self::Update
            | Self::Terminal
            | Self::Attach
            | Self::Delete
            | Self::DeleteForce => false,
        }
    }
}

/// The table.
pub fn step(state: State, input: Input) -> Verdict {
    use Action as A;
    use Input as I;
    use State as S;
    use Verdict::{Ignored, Refused, To};

    match state {
        S::Queued => match input {
            I::Restart | I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            I::Permit => To(S::Creating, &[A::Launch]),
            I::Abandoned => To(S::Deleting, &[A::Forget]),
            I::DeleteForce => To(S::Deleting, &[A::LeaveQueue, A::JoinRemoval, A::Forget]),
            I::Created | I::Started | I::CreateFailed | I::StartFailed | I::Exited | I::ShimLost => Ignored,
            I::Paused | I::Resumed | I::Removed => Ignored,
            I::Start => Refused("is already waiting for its start"),
            I::Delete | I::Stop => Refused("is still waiting for its start; cancel that call, or delete with force"),
            I::Exec | I::Signal | I::Kill | I::Pause | I::Resume | I::Update | I::Terminal | I::Attach => {
                Refused("is still waiting for its start")
            }
        },
        S::Creating => match input {
            I::RestartFailed => To(S::Stopped, &[A::TellStartFailed, A::TellExit]),
            I::Restart | I::Due | I::RestartCancelled => Ignored,
            I::Created => To(S::Created, &[A::TellCreated, A::Save, A::ReleaseExit]),
            I::Started => To(S::Running, &[A::TellCreated, A::TellStarted, A::Save, A::ReleaseExit]),
            I::CreateFailed => To(S::Deleting, &[A::TellStartFailed, A::Forget]),
            I::Exited => To(S::Creating, &[A::HoldExit]),
            I::DeleteForce => To(S::Deleting, &[A::AbortLaunch, A::JoinRemoval]),
            // A lost shim fails the launch, which says so itself.
            I::ShimLost => Ignored,
            I::Permit | I::Abandoned | I::StartFailed | I::Paused | I::Resumed | I::Removed => Ignored,
            I::Start => Refused("is already being created"),
            I::Delete | I::Stop => Refused("is still being created; wait for it, or delete with force"),
            I::Exec | I::Signal | I::Kill | I::Pause | I::Resume | I::Update | I::Terminal | I::Attach => {
                Refused("is still being created")
            }
        },
        S::Created => match input {
            I::Restart | I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            I::Exited => To(S::Stopped, &[A::TellExit]),
            I::ShimLost => To(S::Created, &[A::Bury]),
            I::Permit | I::Abandoned | I::Created | I::Started | I::CreateFailed | I::StartFailed => Ignored,
            I::Paused | I::Resumed | I::Removed => Ignored,
            I::Start => To(S::Starting, &[A::Enqueue]),
            I::Signal | I::Kill | I::Update | I::Terminal | I::Attach => To(S::Created, &[A::Forward]),
            I::Stop => To(S::Created, &[A::BeginStop]),
            I::DeleteForce => To(S::Deleting, &[A::Remove, A::JoinRemoval]),
            I::Delete => Refused("has not ended; stop it first, or delete with force"),
            I::Exec | I::Pause | I::Resume => Refused("was not started yet"),
        },
        S::Starting => match input {
            I::Restart | I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            I::Permit => To(S::Starting, &[A::SendStart]),
            I::Abandoned => To(S::Created, &[A::ReleaseExit]),
            I::Started => To(S::Running, &[A::TellStarted, A::Save, A::ReleaseExit]),
            // The init is of no use any more; its end makes the container Stopped.
            I::StartFailed => To(S::Created, &[A::TellStartFailed, A::Kill, A::ReleaseExit]),
            I::Exited => To(S::Starting, &[A::HoldExit]),
            I::ShimLost => To(S::Starting, &[A::Bury]),
            I::Created | I::CreateFailed | I::Paused | I::Resumed | I::Removed => Ignored,
            I::Start => Refused("is already being started"),
            I::Signal | I::Kill | I::Update | I::Terminal | I::Attach => To(S::Starting, &[A::Forward]),
            I::Stop => To(S::Starting, &[A::BeginStop]),
            I::DeleteForce => To(S::Deleting, &[A::LeaveQueue, A::ReleaseExit, A::Remove, A::JoinRemoval]),
            I::Delete => Refused("has not ended; stop it first, or delete with force"),
            I::Exec | I::Pause | I::Resume => Refused("is still being started"),
        },
        S::Running => match input {
            I::Restart | I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            I::Exited => To(S::Stopped, &[A::TellExit]),
            I::Paused => To(S::Paused, &[A::TellPaused, A::Save]),
            I::ShimLost => To(S::Running, &[A::Bury]),
            I::Permit | I::Abandoned | I::Created | I::Started | I::CreateFailed | I::StartFailed => Ignored,
            I::Resumed | I::Removed => Ignored,
            I::Exec | I::Signal | I::Kill | I::Pause | I::Update | I::Terminal | I::Attach => {
                To(S::Running, &[A::Forward])
            }
            I::Stop => To(S::Running, &[A::BeginStop]),
            I::DeleteForce => To(S::Deleting, &[A::Remove, A::JoinRemoval]),
            I::Delete => Refused("is running; stop it first, or delete with force"),
            I::Start => Refused("is already running"),
            I::Resume => Refused("is not paused"),
        },
        S::Paused => match input {
            I::Restart | I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            I::Exited => To(S::Stopped, &[A::TellExit]),
            I::Resumed => To(S::Running, &[A::TellResumed, A::Save]),
            I::ShimLost => To(S::Paused, &[A::Bury]),
            I::Permit | I::Abandoned | I::Created | I::Started | I::CreateFailed | I::StartFailed => Ignored,
            I::Paused | I::Removed => Ignored,
            I::Signal | I::Resume | I::Update | I::Terminal | I::Attach => To(S::Paused, &[A::Forward]),
            // A frozen process does not die, not even of SIGKILL on cgroup v1.
            I::Kill => To(S::Paused, &[A::Forward, A::Thaw]),
            I::Stop => To(S::Paused, &[A::BeginStop, A::Thaw]),
            I::DeleteForce => To(S::Deleting, &[A::Thaw, A::Remove, A::JoinRemoval]),
            I::Delete => Refused("is paused; resume and stop it first, or delete with force"),
            I::Start => Refused("is already running (and paused)"),
            I::Exec => Refused("is paused; resume it first"),
            I::Pause => Refused("is already paused"),
        },
        S::Stopped => match input {
            I::Restart => To(S::Restarting, &[A::BackOff]),
            I::Due | I::RestartCancelled | I::RestartFailed => Ignored,
            // Whoever deletes it cleans up without the shim.
            I::ShimLost => Ignored,
            I::Permit | I::Abandoned | I::Created | I::Started | I::CreateFailed | I::StartFailed => Ignored,
            I::Exited | I::Paused | I::Resumed | I::Removed => Ignored,
            I::Stop => To(S::Stopped, &[A::AnswerExit]),
            I::Delete | I::DeleteForce => To(S::Deleting, &[A::Remove, A::JoinRemoval]),
            // The window still holds the last output.
            I::Attach => To(S::Stopped, &[A::Forward]),
            I::Start | I::Exec | I::Signal | I::Kill | I::Pause | I::Resume | I::Update | I::Terminal => {
                Refused("has ended")
            }
        },
        S::Restarting => match input {
            I::Due => To(S::Restarting, &[A::Rejoin]),
            I::Permit => To(S::Creating, &[A::Launch]),
            I::Abandoned => To(S::Restarting, &[A::Defer]),
            I::RestartCancelled => To(S::Stopped, &[A::LeaveQueue]),
            I::Restart | I::RestartFailed | I::ShimLost => Ignored,
            I::Created | I::Started | I::CreateFailed | I::StartFailed => Ignored,
            I::Exited | I::Paused | I::Resumed | I::Removed => Ignored,
            I::Stop => To(S::Stopped, &[A::LeaveQueue, A::AnswerExit]),
            I::Delete | I::DeleteForce => To(S::Deleting, &[A::LeaveQueue, A::Remove, A::JoinRemoval]),
            I::Attach => To(S::Restarting, &[A::Forward]),
            I::Start | I::Exec | I::Signal | I::Kill | I::Pause | I::Resume | I::Update | I::Terminal => {
                Refused("has ended and waits for its restart; stop or delete it to end that")
            }
        },
        S::Deleting => match input {
            // Its record is kept in a folder that is to go, too.
            I::RestartFailed => To(S::Deleting, &[A::TellStartFailed, A::Remove]),
            I::Restart | I::Due | I::RestartCancelled => Ignored,
            I::Removed => To(S::Deleting, &[A::TellDeleted, A::Forget]),
            I::Exited => To(S::Deleting, &[A::TellExit]),
            // The launch was done before it could be aborted.
            I::Created => To(S::Deleting, &[A::TellCreated, A::ReleaseExit, A::Remove]),
            I::Started => To(S::Deleting, &[A::TellStarted, A::ReleaseExit, A::Remove]),
            I::CreateFailed => To(S::Deleting, &[A::TellStartFailed, A::Forget]),
            I::Permit | I::Abandoned | I::StartFailed | I::ShimLost | I::Paused | I::Resumed => Ignored,
            I::Delete | I::DeleteForce => To(S::Deleting, &[A::JoinRemoval]),
            I::Start | I::Exec | I::Signal | I::Kill | I::Stop | I::Pause | I::Resume | I::Update => {
                Refused("is being deleted")
            }
            I::Terminal | I::Attach => Refused("is being deleted"),
        },
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Deleting => "deleting",
        })
    }
}

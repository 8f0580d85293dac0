//! Which cells of core's table the supervisor can't come to, and why. All others are visited by the simulation.

use std::collections::HashSet;

use berth_core::state::{Input, State};

/// The reason, for a cell that no run comes to.
pub fn unreachable(state: State, input: Input) -> Option<&'static str> {
    use Input as I;
    use State as S;
    Some(match (state, input) {
        (S::Queued | S::Starting, I::Permit) => return None,
        (_, I::Permit) => "a permit that comes late is given back before the table is asked",
        (S::Queued | S::Starting | S::Deleting, I::Abandoned) => return None,
        (_, I::Abandoned) => "it does not wait in the queue",
        (S::Creating | S::Deleting, I::Created | I::CreateFailed | I::Started) => return None,
        (_, I::Created | I::CreateFailed) => "only a launch is answered so, and one goes on in Creating or Deleting",
        (S::Starting | S::Deleting, I::Started | I::StartFailed) => return None,
        (S::Creating, I::StartFailed) => "a launch that fails is CreateFailed",
        (_, I::Started | I::StartFailed) => {
            "an answer to a start finds it Starting or Deleting: an end is held until then"
        }
        (S::Queued, I::Exited) => "it has no process",
        (S::Stopped, I::Exited) => "an end is told once; what repeats it is acknowledged before the table is asked",
        (S::Queued | S::Creating, I::ShimLost) => "the loss of a shim before the launch is answered fails the launch",
        (S::Deleting, I::ShimLost) => "a removal takes no news of its shim",
        (S::Queued | S::Creating | S::Created | S::Starting, I::Paused | I::Resumed) => {
            "nothing is frozen before it runs"
        }
        (S::Paused, I::Paused) | (S::Running, I::Resumed) => "a shim that has done so refuses to do it again",
        (S::Deleting, I::Removed) => return None,
        (_, I::Removed) => "a removal begins with Deleting",
        _ => return None,
    })
}

/// Cells that were not visited and have no reason for it.
pub fn missing(visited: &HashSet<(State, Input)>) -> Vec<(State, Input)> {
    let all = State::ALL
        .into_iter()
        .flat_map(|s| Input::ALL.into_iter().map(move |i| (s, i)));
    all.filter(|cell| !visited.contains(cell) && unreachable(cell.0, cell.1).is_none())
        .collect()
}

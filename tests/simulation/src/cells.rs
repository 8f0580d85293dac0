//! Which cells of core's table the supervisor can't come to, and why. All others must be visited by the simulation.

use berth_core::state::{Input, State};

/// The reason, for a cell that no run comes to.
pub fn unreachable(state: State, input: Input) -> Option<&'static str> {
    let _ = (state, input);
    None
}

/// Cells that were not visited and have no reason for it.
pub fn missing(visited: &std::collections::HashSet<(State, Input)>) -> Vec<(State, Input)> {
    let all = State::ALL
        .into_iter()
        .flat_map(|s| Input::ALL.into_iter().map(move |i| (s, i)));
    all.filter(|cell| !visited.contains(cell) && unreachable(cell.0, cell.1).is_none())
        .collect()
}

//! The supervisor in a simulated world. The code under test is the real one, `berth_supervisor` with `berth_core` in it, over the real
//! records in a folder; simulated is what lies around it: shims, runtimes, processes, clients, both clocks, a journal that may be full, and
//! the daemon's own death, at any await and at every fail point. One seed decides all of it.
//!
//! ```text
//! schedule (seed) ──▶ life: a tokio runtime of one thread on paused time ──▶ supervisor ──▶ machine: shims and processes as values
//!                       └─ dropped = the daemon is killed; the machine goes on, the next life adopts what it finds
//! ```
//!
//! Invariants: nothing here reads a clock or a source of randomness but the seed; whatever waits, waits in simulated time. After each
//! run the books must balance (`books`). A schedule is a list of steps, so that a failing one can be shortened.
#![forbid(unsafe_code)]

mod books;
mod call;
pub mod cells;
mod crash;
mod machine;
mod place;
mod run;
pub mod schedule;
mod serve;

pub use run::{Report, run};

//! The shim on real runtimes: each test drives `berth-shim` as a daemon does, with runc and with crun where they are installed.

mod harness;
mod lifecycle;
mod starved;
mod stdio;
mod trouble;

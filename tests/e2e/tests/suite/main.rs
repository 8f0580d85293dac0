//! End-to-end tests, one module a theme. One binary: it links once and its tests share the machine's cores.
#![forbid(unsafe_code)]
mod api_matrix;
mod attach;
mod bad_bundle;
mod bad_disk;
mod bad_input;
mod bad_runtime;
mod cli;
mod clients;
mod conn;
mod daemon;
mod debian;
mod delete;
mod doctor;
mod events;
mod exec;
mod kill_points;
mod lifecycle;
mod logs;
mod oom;
mod pod;
mod policy;
mod queue;
mod restart;
mod size;
mod stdio;
mod stored;

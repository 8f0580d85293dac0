//! End-to-end tests, one module a theme. One binary: it links once and its tests share the machine's cores.
#![forbid(unsafe_code)]
mod attach;
mod exec;
mod lifecycle;
mod logs;
mod stdio;

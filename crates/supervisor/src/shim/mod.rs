//! Shims as the daemon sees them: a process that is forked or found, a connection with calls and events, an attachment.

pub(crate) mod attach;
mod client;
mod convert;
mod exec;
mod template;

pub(crate) use client::{CallError, Client, News};
pub(crate) use convert::*;
pub use template::Launcher;

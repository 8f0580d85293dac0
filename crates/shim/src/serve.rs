//! From a fresh process to a shim at work.

use std::os::fd::OwnedFd;

use berth_sys::process;
use berth_sys::{file, signal};

use crate::error::Error;
use crate::shim::Shim;

/// Serves one container until Shutdown. `name` is NAMESPACE/ID, `folder` the container's, `first` a socket to whoever asked.
pub fn serve(name: &str, folder: OwnedFd, first: OwnedFd) -> Result<(), Error> {
    settle(name)?;
    // Memory goes back to the kernel when the first call is answered.
    Shim::new(name, folder, first)?
        .run()
        .map_err(Error::io("serve", "epoll"))
}

/// What a shim is in the system, before it knows its container.
fn settle(name: &str) -> Result<(), Error> {
    let settle = || {
        process::set_child_subreaper()?;
        process::umask(0o077);
        // The template ignores SIGCHLD so that shims don't become its zombies; here an ignored SIGCHLD would lose every exit.
        process::reset_signals()?;
        for number in [signal::SIGPIPE, signal::SIGHUP, signal::SIGINT, signal::SIGTERM] {
            process::ignore_signal(number)?;
        }
        process::set_name("berth-shim")?;
        process::set_title_area(&format!("berth-shim {name}"))
    };
    settle().map_err(Error::io("serve", name))
}

/// The three standard fds are nobody's: what a shim has to say goes over its sockets.
pub fn silence() -> Result<(), Error> {
    let null = file::dev_null().map_err(Error::io("serve", "/dev/null"))?;
    process::replace_stdio(&null).map_err(Error::io("serve", "stdio"))
}

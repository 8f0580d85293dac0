//! berth-oci as engines call it: what a container sees, what is refused and how, and that nothing is left of what failed.
#![forbid(unsafe_code)]

mod network;
mod place;
mod process;
mod resources;
mod rootfs;
mod users;

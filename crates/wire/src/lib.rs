//! Protocols of Berth: the `.proto` files' messages, ttrpc frames and the daemon-shim handshake. Bytes in, bytes out: no sockets here.
#![forbid(unsafe_code)]

#[cfg(feature = "containerd")]
pub mod containerd;
pub mod hello;
pub mod rpc;
pub mod ttrpc;

/// Berth's own API, `berth.v1`.
#[allow(
    clippy::large_enum_variant,
    reason = "generated: the variants are the messages of the .proto"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/berth.v1.rs"));
}

/// What daemon and shim say to each other, `berth.shim.v1`.
#[allow(
    clippy::large_enum_variant,
    reason = "generated: the variants are the messages of the .proto"
)]
pub mod shim {
    include!(concat!(env!("OUT_DIR"), "/berth.shim.v1.rs"));
}

/// The compiled descriptors of both, for reflection and for the breaking-change test.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/berth.bin"));

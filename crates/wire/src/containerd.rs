//! containerd's API: its messages and stubs by their packages, and the type URLs of what travels in an `Any`.
//!
//! A type URL is the message's bare full name. Old clients look it up as it is: one with a prefix in front makes them drop the
//! message, so none is ever sent; on the way in it is forgiven. Documents (specifications, processes, resources) are JSON
//! under URLs of their own. Who stores an `Any` stores its bytes.

use prost::{DecodeError, Message, Name};
use prost_types::Any;

#[allow(clippy::all, rustdoc::all, reason = "generated: names and shapes are containerd's")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/containerd/mod.rs"));
}

pub use generated::containerd::runc::v1 as runc;
pub use generated::containerd::services;
pub use generated::containerd::v1::types as task;
pub use generated::containerd::{events, types};
pub use generated::google::rpc;
pub use generated::io::containerd::cgroups;
pub use generated::runtimeoptions::v1 as runtimeoptions;

/// Documents that travel as JSON.
pub mod json {
    pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
    pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    pub const LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
}

const PREFIX: &str = "type.googleapis.com/";

/// What a type URL names, whether or not somebody put the usual prefix in front.
pub fn type_name(url: &str) -> &str {
    let url = url.strip_prefix('/').unwrap_or(url);
    url.strip_prefix(PREFIX).unwrap_or(url)
}

/// A message as an `Any` under its bare name.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

/// The message in an `Any`; `None` if it is another.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Option<Result<M, DecodeError>> {
    (type_name(&any.type_url) == M::full_name()).then(|| M::decode(any.value.as_slice()))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn type_urls_are_bare_and_prefixes_forgiven() {
        let exit = events::TaskExit {
            container_id: "a".into(),
            exit_status: 137,
            ..Default::default()
        };
        let mut any = pack(&exit);
        assert_eq!(any.type_url, "containerd.events.TaskExit");
        for url in [
            "containerd.events.TaskExit",
            "type.googleapis.com/containerd.events.TaskExit",
        ] {
            any.type_url = url.into();
            assert_eq!(unpack::<events::TaskExit>(&any), Some(Ok(exit.clone())), "{url}");
        }
        assert_eq!(unpack::<events::TaskStart>(&any), None);
        assert_eq!(
            pack(&services::images::v1::ImageCreate::default()).type_url,
            "containerd.services.images.v1.ImageCreate"
        );
        assert_eq!(pack(&runc::Options::default()).type_url, "containerd.runc.v1.Options");
        assert_eq!(
            pack(&cgroups::v1::Metrics::default()).type_url,
            "io.containerd.cgroups.v1.Metrics"
        );
    }
}

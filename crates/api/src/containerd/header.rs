//! What containerd's clients say beside the message: the namespace, and the lease under which to put what is made.

use berth_core::Namespace;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

const NAMESPACE: &str = "containerd-namespace";
const LEASE: &str = "containerd-lease";

/// The namespace of a request. The first value counts, as everywhere in containerd.
pub fn namespace(metadata: &MetadataMap) -> Result<Namespace, Status> {
    let value = text(metadata, NAMESPACE)?.unwrap_or_default();
    if value.is_empty() {
        return Err(Status::new(
            Code::FailedPrecondition,
            "namespace is required: failed precondition",
        ));
    }
    Namespace::new(value).map_err(|error| Status::invalid_argument(format!("{error}: invalid argument")))
}

/// The lease of a request.
pub fn lease(metadata: &MetadataMap) -> Result<Option<String>, Status> {
    Ok(text(metadata, LEASE)?.filter(|id| !id.is_empty()).map(str::to_owned))
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Status> {
    metadata
        .get(key)
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| Status::invalid_argument(format!("{key} is not text: invalid argument")))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn namespaces_are_checked() {
        let of = |values: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append(NAMESPACE, value.parse().expect("ascii"));
            }
            namespace(&metadata)
        };
        assert_eq!(of(&["moby", "other"]).expect("the first counts").as_str(), "moby");
        for empty in [&[][..], &[""]] {
            let status = of(empty).expect_err("required");
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().contains("namespace is required"));
        }
        for wrong in ["a/b", "-a", "a..b"] {
            assert_eq!(
                of(&[wrong]).expect_err("invalid").code(),
                Code::InvalidArgument,
                "{wrong}"
            );
        }
    }
}

//! Between containerd's messages and `meta`: its errors as statuses, values in an `Any`, field masks.

use berth_core::Namespace;
use berth_meta::{Error, LabelChange, Labels};
use prost_types::FieldMask;
use tonic::Status;

use super::time;

pub fn invalid(message: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{message}: invalid argument"))
}

pub fn status(error: Error) -> Status {
    let text = error.to_string();
    match error {
        Error::NotFound { .. } => Status::not_found(text),
        Error::AlreadyExists { .. } => Status::already_exists(text),
        Error::Invalid(_) => Status::invalid_argument(text),
        Error::Precondition(_) => Status::failed_precondition(text),
        Error::Database { .. } | Error::Io { .. } => Status::internal(text),
        Error::Closed => Status::unavailable(text),
    }
}

/// A namespace that a request names itself.
pub fn namespace(name: &str) -> Result<Namespace, Status> {
    Namespace::new(name).map_err(invalid)
}

pub fn any_in(any: prost_types::Any) -> berth_meta::Any {
    berth_meta::Any {
        type_url: any.type_url,
        value: any.value,
    }
}

pub fn any_out(any: berth_meta::Any) -> prost_types::Any {
    prost_types::Any {
        type_url: any.type_url,
        value: any.value,
    }
}

/// Now, as `meta` keeps it.
pub fn now() -> i64 {
    let now = time::now();
    now.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(now.nanos.into())
}

/// The paths of a mask; `None` = no mask, which means everything.
pub fn paths(mask: Option<FieldMask>) -> Option<Vec<String>> {
    mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty())
}

/// The change of a path such as `labels` or `labels.K`; `None` if it is another.
pub fn label_change(path: &str, field: &str, labels: &Labels) -> Option<LabelChange> {
    if path == field {
        return Some(LabelChange::All(labels.clone()));
    }
    let key = path.strip_prefix(field)?.strip_prefix('.')?;
    Some(LabelChange::One(
        key.to_owned(),
        labels.get(key).cloned().unwrap_or_default(),
    ))
}

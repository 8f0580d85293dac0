//! What meets the bytes of containerd's clients first, for the fuzz targets. Nothing is asked of anybody.

use std::borrow::Cow;

use crate::containerd::{Filter, rehearse_request as request};

/// As the filters of a request, one a line; each is held against a record in which every field has its own path as its value.
pub fn rehearse_filters(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let filters: Vec<&str> = text.lines().collect();
    if let Ok(filter) = Filter::parse(&filters) {
        filter.matches(|path| Some(Cow::Owned(path.join("."))));
    }
}

/// As a request that leads to a start: a byte that names the message, then the message.
pub fn rehearse_request(bytes: &[u8]) {
    request(bytes);
}

//! A look at a bundle before anything is made for it, so that the commonest mistakes get a plain answer. The spec itself is read once,
//! by the creator.

use std::io;
use std::path::Path;

use berth_core::{ContainerKey, ErrorCode};

use crate::Error;

/// Far above any real spec; a larger file is a mistake.
const MAX_SPEC: u64 = 16 << 20;

/// May take as long as the disk likes.
pub(crate) fn check(operation: &'static str, key: &ContainerKey, bundle: &Path) -> Result<(), Error> {
    let error = |code, message: String| Err(Error::new(code, operation, key, message));
    let shown = bundle.display();
    if bundle.as_os_str().is_empty() {
        return error(
            ErrorCode::InvalidArgument,
            "no bundle given: it is the absolute path of a folder with config.json".into(),
        );
    }
    if !bundle.is_absolute() {
        return error(
            ErrorCode::InvalidArgument,
            format!("bundle {shown} is not an absolute path"),
        );
    }
    match std::fs::metadata(bundle) {
        Ok(meta) if !meta.is_dir() => return error(ErrorCode::Bundle, format!("bundle {shown} is not a folder")),
        Ok(_) => {}
        Err(e) => return error(ErrorCode::Bundle, format!("bundle {shown}: {e}")),
    }
    let config = bundle.join("config.json");
    let shown = config.display();
    match std::fs::metadata(&config) {
        Ok(meta) if !meta.is_file() => error(ErrorCode::Bundle, format!("{shown} is not a regular file")),
        Ok(meta) if meta.len() > MAX_SPEC => error(
            ErrorCode::Bundle,
            format!("{shown} is {} bytes long; at most {MAX_SPEC} are read", meta.len()),
        ),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => error(
            ErrorCode::Bundle,
            format!("{shown} does not exist; `berth spec` writes one"),
        ),
        Err(e) => error(ErrorCode::Bundle, format!("{shown}: {e}")),
    }
}

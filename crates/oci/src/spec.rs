//! Reading config.json: a bounded read, the version, and what must be there whatever follows.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::OciError;

/// Larger than any honest config.json, small enough to be read into memory.
const LIMIT: u64 = 16 << 20;

/// Reads and checks the config.json of a bundle; answers it with its text.
///
/// # Errors
/// No bundle, no config.json, too large, not JSON, a version that this runtime does not know, a missing field.
pub fn load(bundle: &Path) -> Result<(Spec, Vec<u8>), OciError> {
    let path: PathBuf = bundle.join("config.json");
    let refuse = |source| OciError::Bundle {
        path: path.display().to_string(),
        source,
    };
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text))
        .map_err(refuse)?;
    if text.len() as u64 > LIMIT {
        return Err(OciError::field(
            path.display().to_string(),
            "too large",
            format!("at most {LIMIT} bytes"),
        ));
    }
    let spec: Spec = serde_json::from_slice(&text).map_err(|source| OciError::Json {
        path: path.display().to_string(),
        source,
    })?;
    check(&spec)?;
    Ok((spec, text))
}

fn check(spec: &Spec) -> Result<(), OciError> {
    let major = spec.version().split('.').next().unwrap_or_default();
    if major != "1" {
        return Err(OciError::field("ociVersion", format!("{:?}", spec.version()), "1.x"));
    }
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| OciError::field("process", "missing", "an object"))?;
    if !process.cwd().is_absolute() {
        return Err(OciError::field(
            "process.cwd",
            process.cwd().display(),
            "an absolute path",
        ));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(OciError::field("process.args", "empty", "at least the command"));
    }
    if spec.root().is_none() {
        return Err(OciError::field("root", "missing", "an object with `path`"));
    }
    if spec.linux().is_none() {
        return Err(OciError::field("linux", "missing", "an object"));
    }
    for mount in spec.mounts().iter().flatten() {
        if mount
            .destination()
            .components()
            .any(|part| part == std::path::Component::ParentDir)
        {
            return Err(OciError::field(
                "mounts.destination",
                mount.destination().display(),
                "a path without `..`",
            ));
        }
    }
    Ok(())
}

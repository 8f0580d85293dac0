//! Reading config.json: a bounded read, then all that can be wrong in it ([`crate::check`]).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use crate::error::OciError;
use crate::parse::parse;

/// Larger than any honest config.json, small enough to be read into memory.
const LIMIT: u64 = 16 << 20;

/// Reads and checks the config.json of a bundle; answers it with its text.
///
/// # Errors
/// No bundle, no config.json, too large, not JSON, a version that this runtime does not know, a missing field.
pub fn load(bundle: &Path) -> Result<(Spec, Vec<u8>), OciError> {
    load_telling(bundle, &mut |_| {})
}

/// As [`load`], of a config.json that was read before.
///
/// # Errors
/// As [`load`].
pub fn load_text(bundle: &Path, text: &[u8]) -> Result<Spec, OciError> {
    check(bundle, text, &mut |_| {})
}

fn check(bundle: &Path, text: &[u8], warn: &mut dyn FnMut(&str)) -> Result<Spec, OciError> {
    let spec: Spec = parse(text, &bundle.join("config.json").display().to_string(), warn)?;
    crate::check::spec(&spec)?;
    Ok(spec)
}

/// The process that is to be executed in a container.
///
/// # Errors
/// As [`load`].
pub fn read_process(text: &[u8], path: &str, warn: &mut dyn FnMut(&str)) -> Result<Process, OciError> {
    parse(text, path, warn)
}

/// As [`load`]; `warn` is told what was left out.
///
/// # Errors
/// As [`load`].
pub fn load_telling(bundle: &Path, warn: &mut dyn FnMut(&str)) -> Result<(Spec, Vec<u8>), OciError> {
    let path: PathBuf = bundle.join("config.json");
    let refuse = |source| OciError::Bundle {
        path: path.display().to_string(),
        source,
    };
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| {
            text.reserve(usize::try_from(file.metadata()?.len().min(LIMIT)).unwrap_or(0) + 32);
            file.take(LIMIT + 1).read_to_end(&mut text)
        })
        .map_err(refuse)?;
    if text.len() as u64 > LIMIT {
        return Err(OciError::field(
            path.display().to_string(),
            "too large",
            format!("at most {LIMIT} bytes"),
        ));
    }
    Ok((check(bundle, &text, warn)?, text))
}

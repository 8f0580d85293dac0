//! Around every `*.json` record: one line that tells kind, version, checksum and length, then JSON that people can read.
//!
//! ```text
//! berth-record 1 crc32=89abcdef len=123\n
//! {
//!   "namespace": "default",
//!   …
//! ```
//!
//! Fields are only ever added to a version; a reader ignores what it does not know and has defaults for what is missing.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version that this build writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// No record is longer.
pub const MAX_LEN: u64 = 1 << 20;

const MAGIC: &str = "berth-record ";
/// The longest first line that can be one.
const MAX_HEADER: usize = 80;

#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is empty")]
    Empty,
    #[error("it does not begin with a record's first line")]
    Magic,
    #[error("version {0} is unknown to this build, which reads version {VERSION}")]
    Version(u32),
    #[error("it is cut: {got} of {expected} bytes")]
    Length { got: usize, expected: usize },
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its content does not fit: {0}")]
    Content(serde_json::Error),
}

/// A record's bytes.
pub fn encode(record: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = serde_json::to_vec_pretty(record)?;
    json.push(b'\n');
    let crc = crc32fast::hash(&json);
    let mut bytes = format!("{MAGIC}{VERSION} crc32={crc:08x} len={}\n", json.len()).into_bytes();
    bytes.append(&mut json);
    Ok(bytes)
}

/// The record in these bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    serde_json::from_slice(body(bytes)?).map_err(EnvelopeError::Content)
}

/// The checked JSON in these bytes.
fn body(bytes: &[u8]) -> Result<&[u8], EnvelopeError> {
    if bytes.is_empty() {
        return Err(EnvelopeError::Empty);
    }
    let end = bytes
        .iter()
        .take(MAX_HEADER)
        .position(|byte| *byte == b'\n')
        .ok_or(EnvelopeError::Magic)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| EnvelopeError::Magic)?;
    let rest = line.strip_prefix(MAGIC).ok_or(EnvelopeError::Magic)?;
    let mut fields = rest.split(' ');
    let version: u32 = fields
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or(EnvelopeError::Magic)?;
    // Before anything else: another version may have another first line.
    if version != VERSION {
        return Err(EnvelopeError::Version(version));
    }
    let field = |field: Option<&'_ str>, name: &str| field.and_then(|text| text.strip_prefix(name)).map(str::to_owned);
    let crc = field(fields.next(), "crc32=").and_then(|text| u32::from_str_radix(&text, 16).ok());
    let len = field(fields.next(), "len=").and_then(|text| text.parse::<usize>().ok());
    let (Some(crc), Some(expected), None) = (crc, len, fields.next()) else {
        return Err(EnvelopeError::Magic);
    };
    let body = &bytes[end + 1..];
    if body.len() != expected {
        return Err(EnvelopeError::Length {
            got: body.len(),
            expected,
        });
    }
    if crc32fast::hash(body) != crc {
        return Err(EnvelopeError::Checksum);
    }
    Ok(body)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    type Map = std::collections::BTreeMap<String, String>;

    #[test]
    fn golden_text() {
        let bytes = encode(&Map::from([("a".into(), "b".into())])).unwrap();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "berth-record 1 crc32=351f3ca1 len=15\n{\n  \"a\": \"b\"\n}\n"
        );
    }

    #[test]
    fn another_version_is_named() {
        let error = decode::<Map>(b"berth-record 7 something else\n{}").unwrap_err();
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_cleanly(bytes: Vec<u8>) {
            let _ = decode::<Map>(&bytes);
            let _ = decode::<Map>(&[b"berth-record 1 ", bytes.as_slice()].concat());
        }

        #[test]
        fn a_changed_or_cut_record_is_told(map: Map, at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index) {
            let bytes = encode(&map).unwrap();
            prop_assert_eq!(decode::<Map>(&bytes).unwrap(), map.clone());
            prop_assert!(decode::<Map>(&bytes[..cut.index(bytes.len())]).is_err());
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= flip;
            // A change is refused, or was one of letter case in the checksum.
            prop_assert!(decode::<Map>(&changed).map_or(true, |got| got == map));
        }
    }
}

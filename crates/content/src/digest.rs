//! Digests as text: algorithm, colon, lower-case hexadecimal. A parsed one is safe as a path.

use std::fmt;

use crate::error::Error;

const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let known = text.split_once(':').is_some_and(|(algorithm, hex)| {
            ALGORITHMS.contains(&(algorithm, hex.len())) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        match known {
            true => Ok(Digest(text.to_owned())),
            false => Err(Error::BadDigest(text.chars().take(160).collect())),
        }
    }

    pub(crate) fn sha256(hash: sha2::Sha256) -> Self {
        Digest(format!("sha256:{:x}", sha2::Digest::finalize(hash)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

//! One ingest: what is known of it, and the one who writes it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_core::Namespace;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::Error;
use crate::store::Lock;

/// What a caller may know of an ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    pub namespace: Namespace,
    pub name: String,
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that are expected; 0 = not known.
    pub total: u64,
    pub expected: Option<Digest>,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub updated_at: i64,
}

/// The file beside the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    namespace: String,
    name: String,
    #[serde(default)]
    total: u64,
    #[serde(default)]
    expected: String,
    started_at: i64,
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `None` for a folder that holds none: its maker was killed half-way.
pub(crate) fn read(folder: &Path) -> Option<Ingest> {
    let about: About = serde_json::from_slice(&fs::read(folder.join("about")).ok()?).ok()?;
    let data = fs::metadata(folder.join("data")).ok()?;
    Some(Ingest {
        namespace: Namespace::new(&about.namespace).ok()?,
        name: about.name,
        offset: data.len(),
        total: about.total,
        expected: Digest::parse(&about.expected).ok(),
        started_at: about.started_at,
        updated_at: data.modified().map_or(about.started_at, nanoseconds),
    })
}

/// Writes one ingest. Dropped without a commit, what it has written stays.
pub struct Writer {
    folder: PathBuf,
    about: Ingest,
    file: File,
    hash: Sha256,
    _lock: Lock,
}

impl Writer {
    /// Goes on where another has ended, or begins.
    pub(crate) fn open(
        folder: PathBuf,
        namespace: &Namespace,
        name: &str,
        total: u64,
        expected: Option<&Digest>,
        lock: Lock,
    ) -> Result<Self, Error> {
        let data = folder.join("data");
        let about = match read(&folder) {
            Some(about) => about,
            None => {
                fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
                let started_at = nanoseconds(SystemTime::now());
                let about = About {
                    namespace: namespace.to_string(),
                    name: name.to_owned(),
                    total,
                    expected: expected.map(Digest::to_string).unwrap_or_default(),
                    started_at,
                };
                let path = folder.join("about");
                let text = serde_json::to_vec(&about).map_err(|e| Error::io("write", &path)(e.into()))?;
                File::create(&data).map_err(Error::io("make", &data))?;
                fs::write(&path, text).map_err(Error::io("write", &path))?;
                Ingest {
                    namespace: namespace.clone(),
                    name: name.to_owned(),
                    offset: 0,
                    total,
                    expected: expected.cloned(),
                    started_at,
                    updated_at: started_at,
                }
            }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .open(&data)
            .map_err(Error::io("open", &data))?;
        let (hash, offset) = hash_of(&mut file).map_err(Error::io("read", &data))?;
        Ok(Writer {
            folder,
            about: Ingest { offset, ..about },
            file,
            hash,
            _lock: lock,
        })
    }

    pub fn about(&self) -> &Ingest {
        &self.about
    }

    /// Of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest::sha256(self.hash.clone())
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::io("write", &self.folder.join("data")))?;
        self.hash.update(bytes);
        self.about.offset += bytes.len() as u64;
        self.about.updated_at = nanoseconds(SystemTime::now());
        Ok(())
    }

    /// Forgets what there is.
    pub fn restart(&mut self) -> Result<(), Error> {
        let path = self.folder.join("data");
        self.file.set_len(0).map_err(Error::io("truncate", &path))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(Error::io("seek in", &path))?;
        self.hash = Sha256::new();
        self.about.offset = 0;
        Ok(())
    }

    /// Checks it against what is expected (size 0 = nothing) and puts it on the disk.
    pub fn seal(&mut self, size: u64, expected: Option<&Digest>) -> Result<Digest, Error> {
        if size > 0 && size != self.about.offset {
            return Err(Error::Size {
                actual: self.about.offset,
                expected: size,
            });
        }
        let actual = self.digest();
        if let Some(expected) = expected.filter(|expected| **expected != actual) {
            return Err(Error::Mismatch {
                actual,
                expected: expected.clone(),
            });
        }
        let synced = self.file.sync_all();
        synced.map_err(Error::io("sync", &self.folder.join("data")))?;
        Ok(actual)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn hash_of(file: &mut File) -> std::io::Result<(Sha256, u64)> {
    let (mut hash, mut offset) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, offset)),
            n => {
                hash.update(&buffer[..n]);
                offset += n as u64;
            }
        }
    }
}

//! The folders: which blobs and ingests there are.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_core::Namespace;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::Error;
use crate::ingest::{Ingest, Writer, read};

/// Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// Ingests that are written just now.
    locked: Mutex<BTreeSet<String>>,
}

/// The right to write one ingest.
pub(crate) struct Lock {
    store: Store,
    hash: String,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.store.locked(|locked| locked.remove(&self.hash));
    }
}

impl Store {
    pub fn open(root: &Path) -> Result<Self, Error> {
        for folder in [root.join("blobs/sha256"), root.join("ingests")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(Error::io("make", &folder))?;
        }
        Ok(Store(Arc::new(Inner {
            root: root.to_owned(),
            locked: Mutex::default(),
        })))
    }

    fn locked<T>(&self, work: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        work(&mut self.0.locked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.0.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Bytes of a blob; `None` = it is not there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob(digest)).ok().map(|file| file.len())
    }

    pub fn read(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob(digest);
        File::open(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NoBlob(digest.clone()),
            _ => Error::io("open", &path)(error),
        })
    }

    /// All that there are.
    pub fn blobs(&self) -> Result<Vec<Digest>, Error> {
        let folder = self.0.root.join("blobs/sha256");
        let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        let names = entries
            .flatten()
            .map(|entry| format!("sha256:{}", entry.file_name().to_string_lossy()));
        Ok(names.filter_map(|name| Digest::parse(&name).ok()).collect())
    }

    /// One that is not there is removed too.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.blob(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn hash(namespace: &Namespace, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(namespace.as_str());
        hash.update([0]);
        hash.update(name);
        format!("{:x}", hash.finalize())
    }

    fn folder(&self, hash: &str) -> PathBuf {
        self.0.root.join("ingests").join(hash)
    }

    /// The writer of an ingest, which may have begun before.
    pub fn writer(
        &self,
        namespace: &Namespace,
        name: &str,
        total: u64,
        expected: Option<&Digest>,
    ) -> Result<Writer, Error> {
        let lock = self.lock(namespace, name)?;
        Writer::open(self.folder(&lock.hash), namespace, name, total, expected, lock)
    }

    fn lock(&self, namespace: &Namespace, name: &str) -> Result<Lock, Error> {
        let hash = Self::hash(namespace, name);
        match self.locked(|locked| locked.insert(hash.clone())) {
            true => Ok(Lock {
                store: self.clone(),
                hash,
            }),
            false => Err(Error::Locked { name: name.to_owned() }),
        }
    }

    /// Makes a sealed ingest a blob. It is one rename, for a caller that must not be overtaken; `finish` comes after it.
    pub fn publish(&self, writer: &Writer, digest: &Digest) -> Result<(), Error> {
        let to = self.blob(digest);
        fs::rename(writer.data(), &to).map_err(Error::io("publish", &to))
    }

    /// The rest of publishing: the blob's name on the disk, the ingest away.
    pub fn finish(&self, writer: Writer, digest: &Digest) -> Result<(), Error> {
        let folder = self.blob(digest);
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::io("sync", folder))?;
        remove_folder(writer.folder())
    }

    pub fn ingest(&self, namespace: &Namespace, name: &str) -> Result<Ingest, Error> {
        read(&self.folder(&Self::hash(namespace, name))).ok_or_else(|| Error::NoIngest(name.to_owned()))
    }

    /// Of all namespaces.
    pub fn ingests(&self) -> Result<Vec<Ingest>, Error> {
        let folder = self.0.root.join("ingests");
        let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        Ok(entries.flatten().filter_map(|entry| read(&entry.path())).collect())
    }

    /// Forgets an ingest, whoever writes it: that one fails at its commit.
    pub fn abort(&self, namespace: &Namespace, name: &str) -> Result<(), Error> {
        let folder = self.folder(&Self::hash(namespace, name));
        match folder.join("about").exists() {
            true => remove_folder(&folder),
            false => Err(Error::NoIngest(name.to_owned())),
        }
    }

    /// Removes the ingests that nobody writes and that `dead` says so of.
    pub fn expire(&self, dead: impl Fn(&Ingest) -> bool) -> Result<(), Error> {
        for ingest in self.ingests()?.into_iter().filter(dead) {
            if let Ok(lock) = self.lock(&ingest.namespace, &ingest.name) {
                remove_folder(&self.folder(&lock.hash))?;
            }
        }
        Ok(())
    }
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

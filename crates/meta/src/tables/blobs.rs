//! Which namespace knows which blob. The bytes are elsewhere, once for all namespaces.

use berth_core::Namespace;

use super::Tables;
use super::labels::{Kind, LabelChange, Labels};
use crate::error::{Error, What};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub digest: String,
    pub size: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub labels: Labels,
}

fn blob(row: &rusqlite::Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        digest: row.get(0)?,
        size: row.get(1)?,
        created_at: row.get(2)?,
        updated_at: row.get(3)?,
        labels: Labels::new(),
    })
}

impl Tables<'_> {
    pub fn blob(&self, namespace: &Namespace, digest: &str) -> Result<Blob, Error> {
        let found = self.one(
            "SELECT digest, size, created_at, updated_at FROM blob WHERE namespace = ?1 AND digest = ?2",
            (namespace.as_str(), digest),
            blob,
        )?;
        let mut found = found.ok_or_else(|| Error::not_found(What::Blob, digest))?;
        found.labels = self.labels(Kind::Blob, namespace, digest)?;
        Ok(found)
    }

    pub fn blobs(&self, namespace: &Namespace) -> Result<Vec<Blob>, Error> {
        let mut labels = self.all_labels(Kind::Blob, namespace)?;
        let mut blobs = self.all(
            "SELECT digest, size, created_at, updated_at FROM blob WHERE namespace = ?1 ORDER BY digest",
            [namespace.as_str()],
            blob,
        )?;
        for blob in &mut blobs {
            blob.labels = labels.remove(&blob.digest).unwrap_or_default();
        }
        Ok(blobs)
    }

    /// Whether any namespace knows it.
    pub fn has_blob(&self, digest: &str) -> Result<bool, Error> {
        self.has("SELECT 1 FROM blob WHERE digest = ?1", [digest])
    }

    pub fn add_blob(&self, namespace: &Namespace, blob: &Blob) -> Result<(), Error> {
        let names = (namespace.as_str(), blob.digest.as_str());
        if self.has("SELECT 1 FROM blob WHERE namespace = ?1 AND digest = ?2", names)? {
            return Err(Error::already_exists(What::Blob, &blob.digest));
        }
        self.need_namespace(namespace)?;
        self.execute(
            "INSERT INTO blob VALUES (?1, ?2, ?3, ?4, ?5)",
            (names.0, names.1, blob.size, blob.created_at, blob.updated_at),
        )?;
        self.put_labels(Kind::Blob, namespace, &blob.digest, &blob.labels)
    }

    pub fn update_blob(
        &self,
        namespace: &Namespace,
        digest: &str,
        changes: &[LabelChange],
        now: i64,
    ) -> Result<Blob, Error> {
        let touched = self.execute(
            "UPDATE blob SET updated_at = ?3 WHERE namespace = ?1 AND digest = ?2",
            (namespace.as_str(), digest, now),
        )?;
        if touched == 0 {
            return Err(Error::not_found(What::Blob, digest));
        }
        for change in changes {
            self.change_labels(Kind::Blob, namespace, digest, change)?;
        }
        self.blob(namespace, digest)
    }

    pub fn delete_blob(&self, namespace: &Namespace, digest: &str) -> Result<(), Error> {
        let names = (namespace.as_str(), digest);
        if self.execute("DELETE FROM blob WHERE namespace = ?1 AND digest = ?2", names)? == 0 {
            return Err(Error::not_found(What::Blob, digest));
        }
        self.remove_labels(Kind::Blob, namespace, digest)
    }
}

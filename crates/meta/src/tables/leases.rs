//! Leases, and what they hold.

use berth_core::Namespace;

use super::Tables;
use super::labels::{Kind, Labels, check};
use crate::error::{Error, What};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: String,
    pub created_at: i64,
    pub labels: Labels,
}

/// Something by its type (`content`, `ingests`, `images`, `snapshots/NAME`) and name. It need not be there yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    pub kind: String,
    pub id: String,
}

impl Tables<'_> {
    pub fn create_lease(&self, namespace: &Namespace, lease: &Lease) -> Result<(), Error> {
        check(&lease.labels)?;
        if self.has_lease(namespace, &lease.id)? {
            return Err(Error::already_exists(What::Lease, &lease.id));
        }
        self.need_namespace(namespace)?;
        self.execute(
            "INSERT INTO lease VALUES (?1, ?2, ?3)",
            (namespace.as_str(), &lease.id, lease.created_at),
        )?;
        self.put_labels(Kind::Lease, namespace, &lease.id, &lease.labels)
    }

    pub fn leases(&self, namespace: &Namespace) -> Result<Vec<Lease>, Error> {
        let mut labels = self.all_labels(Kind::Lease, namespace)?;
        let rows = self.all(
            "SELECT id, created_at FROM lease WHERE namespace = ?1 ORDER BY id",
            [namespace.as_str()],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        )?;
        let leases = rows.into_iter().map(|(id, created_at)| Lease {
            labels: labels.remove(&id).unwrap_or_default(),
            id,
            created_at,
        });
        Ok(leases.collect())
    }

    /// Whether it held anything.
    pub fn delete_lease(&self, namespace: &Namespace, id: &str) -> Result<bool, Error> {
        let names = (namespace.as_str(), id);
        if self.execute("DELETE FROM lease WHERE namespace = ?1 AND id = ?2", names)? == 0 {
            return Err(Error::not_found(What::Lease, id));
        }
        self.remove_labels(Kind::Lease, namespace, id)?;
        Ok(self.execute("DELETE FROM resource WHERE namespace = ?1 AND lease = ?2", names)? > 0)
    }

    /// Refuses a lease that is not there.
    pub fn need_lease(&self, namespace: &Namespace, id: &str) -> Result<(), Error> {
        match self.has_lease(namespace, id)? {
            true => Ok(()),
            false => Err(Error::not_found(What::Lease, id)),
        }
    }

    pub fn add_resource(&self, namespace: &Namespace, lease: &str, resource: &Resource) -> Result<(), Error> {
        self.need_lease(namespace, lease)?;
        self.execute(
            "INSERT OR IGNORE INTO resource VALUES (?1, ?2, ?3, ?4)",
            (namespace.as_str(), lease, &resource.kind, &resource.id),
        )?;
        Ok(())
    }

    pub fn delete_resource(&self, namespace: &Namespace, lease: &str, resource: &Resource) -> Result<(), Error> {
        self.need_lease(namespace, lease)?;
        self.execute(
            "DELETE FROM resource WHERE namespace = ?1 AND lease = ?2 AND type = ?3 AND id = ?4",
            (namespace.as_str(), lease, &resource.kind, &resource.id),
        )?;
        Ok(())
    }

    pub fn resources(&self, namespace: &Namespace, lease: &str) -> Result<Vec<Resource>, Error> {
        self.need_lease(namespace, lease)?;
        self.all(
            "SELECT type, id FROM resource WHERE namespace = ?1 AND lease = ?2",
            (namespace.as_str(), lease),
            |row| {
                Ok(Resource {
                    kind: row.get(0)?,
                    id: row.get(1)?,
                })
            },
        )
    }

    fn has_lease(&self, namespace: &Namespace, id: &str) -> Result<bool, Error> {
        self.has(
            "SELECT 1 FROM lease WHERE namespace = ?1 AND id = ?2",
            (namespace.as_str(), id),
        )
    }
}

//! Namespaces. One is there as soon as something is put into it.

use berth_core::Namespace;

use super::Tables;
use super::labels::{Kind, LabelChange, Labels};
use crate::error::{Error, What};

impl Tables<'_> {
    /// Makes it if it is not there.
    pub(crate) fn need_namespace(&self, namespace: &Namespace) -> Result<(), Error> {
        self.execute("INSERT OR IGNORE INTO namespace VALUES (?1)", [namespace.as_str()])?;
        Ok(())
    }

    /// None for one that is not there.
    pub fn namespace_labels(&self, namespace: &Namespace) -> Result<Labels, Error> {
        self.labels(Kind::Namespace, namespace, "")
    }

    pub fn namespaces(&self) -> Result<Vec<(Namespace, Labels)>, Error> {
        let names = self.all("SELECT name FROM namespace ORDER BY name", [], |row| {
            row.get::<_, String>(0)
        })?;
        let names = names.iter().filter_map(|name| Namespace::new(name).ok());
        names
            .map(|name| Ok((name.clone(), self.namespace_labels(&name)?)))
            .collect()
    }

    pub fn create_namespace(&self, namespace: &Namespace, labels: &Labels) -> Result<(), Error> {
        if self.has("SELECT 1 FROM namespace WHERE name = ?1", [namespace.as_str()])? {
            return Err(Error::already_exists(What::Namespace, namespace.as_str()));
        }
        self.need_namespace(namespace)?;
        self.put_labels(Kind::Namespace, namespace, "", labels)
    }

    /// Clients set labels before they make anything: so it is made too.
    pub fn update_namespace(&self, namespace: &Namespace, changes: &[LabelChange]) -> Result<Labels, Error> {
        self.need_namespace(namespace)?;
        for change in changes {
            self.change_labels(Kind::Namespace, namespace, "", change)?;
        }
        self.namespace_labels(namespace)
    }

    /// Leases go with it; what else is in it keeps it.
    pub fn delete_namespace(&self, namespace: &Namespace) -> Result<(), Error> {
        for (what, sql) in [
            ("images", "SELECT 1 FROM image WHERE namespace = ?1"),
            ("blobs", "SELECT 1 FROM blob WHERE namespace = ?1"),
            ("containers", "SELECT 1 FROM container WHERE namespace = ?1"),
        ] {
            if self.has(sql, [namespace.as_str()])? {
                let message = format!(
                    "namespace {:?} must be empty, but it still has {what}",
                    namespace.as_str()
                );
                return Err(Error::Precondition(message));
            }
        }
        if self.execute("DELETE FROM namespace WHERE name = ?1", [namespace.as_str()])? == 0 {
            return Err(Error::not_found(What::Namespace, namespace.as_str()));
        }
        for lease in self.leases(namespace)? {
            self.delete_lease(namespace, &lease.id)?;
        }
        self.remove_labels(Kind::Namespace, namespace, "")
    }
}

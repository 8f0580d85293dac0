//! Labels of everything, in one table. A label with an empty value is none: so it is removed.

use std::collections::BTreeMap;

use berth_core::Namespace;

use super::Tables;
use crate::error::Error;

pub type Labels = BTreeMap<String, String>;

/// Bytes of a key and its value.
pub const MAX_LABEL: usize = 4096;

/// What an update says about labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelChange {
    /// These and no others.
    All(Labels),
    /// One; empty = removed.
    One(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Namespace,
    Lease,
    Image,
    Annotation,
    Blob,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Namespace => "namespace",
            Kind::Lease => "lease",
            Kind::Image => "image",
            Kind::Annotation => "annotation",
            Kind::Blob => "blob",
        }
    }
}

pub(crate) fn check(labels: &Labels) -> Result<(), Error> {
    for (key, value) in labels {
        if key.len() + value.len() > MAX_LABEL {
            let key: String = key.chars().take(64).collect();
            return Err(Error::Invalid(format!(
                "label key and value length is over the maximum size ({MAX_LABEL} bytes), key: {key}"
            )));
        }
    }
    Ok(())
}

impl Tables<'_> {
    pub(crate) fn labels(&self, kind: Kind, namespace: &Namespace, id: &str) -> Result<Labels, Error> {
        let rows = self.all(
            "SELECT key, value FROM label WHERE kind = ?1 AND namespace = ?2 AND id = ?3",
            (kind.name(), namespace.as_str(), id),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(rows.into_iter().collect())
    }

    /// Of all of a kind in a namespace, by id.
    pub(crate) fn all_labels(&self, kind: Kind, namespace: &Namespace) -> Result<BTreeMap<String, Labels>, Error> {
        let rows: Vec<(String, String, String)> = self.all(
            "SELECT id, key, value FROM label WHERE kind = ?1 AND namespace = ?2",
            (kind.name(), namespace.as_str()),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let mut all = BTreeMap::<String, Labels>::new();
        for (id, key, value) in rows {
            all.entry(id).or_default().insert(key, value);
        }
        Ok(all)
    }

    pub(crate) fn change_labels(
        &self,
        kind: Kind,
        namespace: &Namespace,
        id: &str,
        change: &LabelChange,
    ) -> Result<(), Error> {
        match change {
            LabelChange::All(labels) => self.put_labels(kind, namespace, id, labels),
            LabelChange::One(key, value) => {
                let one = Labels::from([(key.clone(), value.clone())]);
                check(&one)?;
                self.insert_label(kind, namespace, id, key, value)
            }
        }
    }

    /// Replaces all.
    pub(crate) fn put_labels(&self, kind: Kind, namespace: &Namespace, id: &str, labels: &Labels) -> Result<(), Error> {
        // Annotations are a client's own business.
        if kind != Kind::Annotation {
            check(labels)?;
        }
        self.remove_labels(kind, namespace, id)?;
        labels
            .iter()
            .try_for_each(|(key, value)| self.insert_label(kind, namespace, id, key, value))
    }

    pub(crate) fn remove_labels(&self, kind: Kind, namespace: &Namespace, id: &str) -> Result<(), Error> {
        self.execute(
            "DELETE FROM label WHERE kind = ?1 AND namespace = ?2 AND id = ?3",
            (kind.name(), namespace.as_str(), id),
        )?;
        Ok(())
    }

    fn insert_label(&self, kind: Kind, namespace: &Namespace, id: &str, key: &str, value: &str) -> Result<(), Error> {
        if value.is_empty() && kind != Kind::Annotation {
            self.execute(
                "DELETE FROM label WHERE kind = ?1 AND namespace = ?2 AND id = ?3 AND key = ?4",
                (kind.name(), namespace.as_str(), id, key),
            )?;
        } else {
            self.execute(
                "INSERT OR REPLACE INTO label VALUES (?1, ?2, ?3, ?4, ?5)",
                (kind.name(), namespace.as_str(), id, key, value),
            )?;
        }
        Ok(())
    }
}

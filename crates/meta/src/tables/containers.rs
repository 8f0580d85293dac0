//! Containers: what to run.

use std::collections::BTreeMap;

use berth_core::{ContainerKey, Namespace};

use super::labels::{Kind, LabelChange, Labels, check};
use super::{Any, Tables};
use crate::error::{Error, What};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub key: ContainerKey,
    pub labels: Labels,
    pub image: String,
    pub runtime: String,
    pub options: Option<Any>,
    pub spec: Option<Any>,
    pub snapshotter: String,
    pub snapshot_key: String,
    pub sandbox: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub updated_at: i64,
    pub extensions: BTreeMap<String, Any>,
}

/// What may change of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerChange {
    Labels(LabelChange),
    Image(String),
    Spec(Option<Any>),
    SnapshotKey(String),
    Extensions(BTreeMap<String, Any>),
    Extension(String, Option<Any>),
}

const COLUMNS: &str = "id, image, runtime, options_type, options, spec_type, spec, snapshotter, snapshot_key, sandbox, created_at, updated_at";

/// `None` for an id that none of ours has written.
fn container(namespace: &Namespace, row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Container>> {
    let Ok(key) = ContainerKey::parse(namespace.as_str(), &row.get::<_, String>(0)?) else {
        return Ok(None);
    };
    Ok(Some(Container {
        key,
        labels: Labels::new(),
        image: row.get(1)?,
        runtime: row.get(2)?,
        options: Any::of(row.get(3)?, row.get(4)?),
        spec: Any::of(row.get(5)?, row.get(6)?),
        snapshotter: row.get(7)?,
        snapshot_key: row.get(8)?,
        sandbox: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
        extensions: BTreeMap::new(),
    }))
}

impl Tables<'_> {
    pub fn container(&self, key: &ContainerKey) -> Result<Container, Error> {
        let sql = format!("SELECT {COLUMNS} FROM container WHERE namespace = ?1 AND id = ?2");
        let names = (key.namespace.as_str(), key.id.as_str());
        let found = self.one(&sql, names, |row| container(&key.namespace, row))?.flatten();
        let mut found = found.ok_or_else(|| Error::not_found(What::Container, key.id.as_str()))?;
        found.labels = self.labels(Kind::Container, &key.namespace, key.id.as_str())?;
        let extensions = self.all(
            "SELECT name, type, value FROM extension WHERE namespace = ?1 AND container = ?2",
            names,
            |row| {
                let any = Any {
                    type_url: row.get(1)?,
                    value: row.get(2)?,
                };
                Ok((row.get(0)?, any))
            },
        )?;
        found.extensions = extensions.into_iter().collect();
        Ok(found)
    }

    pub fn containers(&self, namespace: &Namespace) -> Result<Vec<Container>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM container WHERE namespace = ?1 ORDER BY id");
        let mut labels = self.all_labels(Kind::Container, namespace)?;
        let mut extensions = BTreeMap::<String, BTreeMap<String, Any>>::new();
        let rows: Vec<(String, String, Any)> = self.all(
            "SELECT container, name, type, value FROM extension WHERE namespace = ?1",
            [namespace.as_str()],
            |row| {
                let any = Any {
                    type_url: row.get(2)?,
                    value: row.get(3)?,
                };
                Ok((row.get(0)?, row.get(1)?, any))
            },
        )?;
        for (id, name, any) in rows {
            extensions.entry(id).or_default().insert(name, any);
        }
        let found = self.all(&sql, [namespace.as_str()], |row| container(namespace, row))?;
        let found = found.into_iter().flatten().map(|mut container| {
            let id = container.key.id.as_str();
            container.labels = labels.remove(id).unwrap_or_default();
            container.extensions = extensions.remove(id).unwrap_or_default();
            container
        });
        Ok(found.collect())
    }

    pub fn create_container(&self, container: &Container) -> Result<(), Error> {
        let key = &container.key;
        check(&container.labels)?;
        let names = (key.namespace.as_str(), key.id.as_str());
        if self.has("SELECT 1 FROM container WHERE namespace = ?1 AND id = ?2", names)? {
            return Err(Error::already_exists(What::Container, key.id.as_str()));
        }
        self.need_namespace(&key.namespace)?;
        let (options_type, options) = Any::columns(container.options.as_ref());
        let (spec_type, spec) = Any::columns(container.spec.as_ref());
        self.execute(
            "INSERT INTO container VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            rusqlite::params![
                key.namespace.as_str(),
                key.id.as_str(),
                container.image,
                container.runtime,
                options_type,
                options,
                spec_type,
                spec,
                container.snapshotter,
                container.snapshot_key,
                container.sandbox,
                container.created_at,
                container.updated_at,
            ],
        )?;
        self.put_labels(Kind::Container, &key.namespace, key.id.as_str(), &container.labels)?;
        self.put_extensions(key, &container.extensions)
    }

    pub fn update_container(
        &self,
        key: &ContainerKey,
        changes: &[ContainerChange],
        now: i64,
    ) -> Result<Container, Error> {
        let names = (key.namespace.as_str(), key.id.as_str());
        let set = |column: &str, value: rusqlite::types::Value| {
            let sql = format!("UPDATE container SET {column} = ?3 WHERE namespace = ?1 AND id = ?2");
            self.execute(&sql, (names.0, names.1, value))
        };
        if set("updated_at", now.into())? == 0 {
            return Err(Error::not_found(What::Container, key.id.as_str()));
        }
        for change in changes {
            match change {
                ContainerChange::Labels(change) => {
                    self.change_labels(Kind::Container, &key.namespace, key.id.as_str(), change)?;
                }
                ContainerChange::Image(image) => drop(set("image", image.clone().into())?),
                ContainerChange::SnapshotKey(snapshot) => drop(set("snapshot_key", snapshot.clone().into())?),
                ContainerChange::Spec(spec) => {
                    let (type_url, value) = Any::columns(spec.as_ref());
                    set("spec_type", type_url)?;
                    set("spec", value)?;
                }
                ContainerChange::Extensions(extensions) => self.put_extensions(key, extensions)?,
                ContainerChange::Extension(name, any) => self.put_extension(key, name, any.as_ref())?,
            }
        }
        self.container(key)
    }

    pub fn delete_container(&self, key: &ContainerKey) -> Result<(), Error> {
        let names = (key.namespace.as_str(), key.id.as_str());
        if self.execute("DELETE FROM container WHERE namespace = ?1 AND id = ?2", names)? == 0 {
            return Err(Error::not_found(What::Container, key.id.as_str()));
        }
        self.execute("DELETE FROM extension WHERE namespace = ?1 AND container = ?2", names)?;
        self.remove_labels(Kind::Container, &key.namespace, key.id.as_str())
    }

    fn put_extensions(&self, key: &ContainerKey, extensions: &BTreeMap<String, Any>) -> Result<(), Error> {
        let names = (key.namespace.as_str(), key.id.as_str());
        self.execute("DELETE FROM extension WHERE namespace = ?1 AND container = ?2", names)?;
        extensions
            .iter()
            .try_for_each(|(name, any)| self.put_extension(key, name, Some(any)))
    }

    fn put_extension(&self, key: &ContainerKey, name: &str, any: Option<&Any>) -> Result<(), Error> {
        let (namespace, id) = (key.namespace.as_str(), key.id.as_str());
        match any {
            Some(any) => self.execute(
                "INSERT OR REPLACE INTO extension VALUES (?1, ?2, ?3, ?4, ?5)",
                (namespace, id, name, &any.type_url, &any.value),
            )?,
            None => self.execute(
                "DELETE FROM extension WHERE namespace = ?1 AND container = ?2 AND name = ?3",
                (namespace, id, name),
            )?,
        };
        Ok(())
    }
}

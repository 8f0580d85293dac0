//! Images: names for descriptors.

use berth_core::Namespace;

use super::Tables;
use super::labels::{Kind, LabelChange, Labels, check};
use crate::error::{Error, What};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    pub annotations: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub labels: Labels,
    pub target: Descriptor,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChange {
    Labels(LabelChange),
    Annotations(LabelChange),
    Target(Descriptor),
}

impl Tables<'_> {
    pub fn image(&self, namespace: &Namespace, name: &str) -> Result<Image, Error> {
        let found = self.one(
            "SELECT name, media_type, digest, size, created_at, updated_at FROM image WHERE namespace = ?1 AND name = ?2",
            (namespace.as_str(), name),
            image,
        )?;
        self.dressed(namespace, found.ok_or_else(|| Error::not_found(What::Image, name))?)
    }

    pub fn images(&self, namespace: &Namespace) -> Result<Vec<Image>, Error> {
        let found = self.all(
            "SELECT name, media_type, digest, size, created_at, updated_at FROM image WHERE namespace = ?1 ORDER BY name",
            [namespace.as_str()],
            image,
        )?;
        found.into_iter().map(|image| self.dressed(namespace, image)).collect()
    }

    fn dressed(&self, namespace: &Namespace, mut image: Image) -> Result<Image, Error> {
        image.labels = self.labels(Kind::Image, namespace, &image.name)?;
        image.target.annotations = self.labels(Kind::Annotation, namespace, &image.name)?;
        Ok(image)
    }

    pub fn create_image(&self, namespace: &Namespace, image: &Image) -> Result<(), Error> {
        check(&image.labels)?;
        let names = (namespace.as_str(), image.name.as_str());
        if self.has("SELECT 1 FROM image WHERE namespace = ?1 AND name = ?2", names)? {
            return Err(Error::already_exists(What::Image, &image.name));
        }
        self.need_namespace(namespace)?;
        let target = &image.target;
        self.execute(
            "INSERT INTO image VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                names.0,
                names.1,
                &target.media_type,
                &target.digest,
                target.size,
                image.created_at,
                image.updated_at,
            ),
        )?;
        self.put_labels(Kind::Image, namespace, &image.name, &image.labels)?;
        self.put_labels(Kind::Annotation, namespace, &image.name, &target.annotations)
    }

    pub fn update_image(
        &self,
        namespace: &Namespace,
        name: &str,
        changes: &[ImageChange],
        now: i64,
    ) -> Result<Image, Error> {
        let touched = self.execute(
            "UPDATE image SET updated_at = ?3 WHERE namespace = ?1 AND name = ?2",
            (namespace.as_str(), name, now),
        )?;
        if touched == 0 {
            return Err(Error::not_found(What::Image, name));
        }
        for change in changes {
            match change {
                ImageChange::Labels(change) => self.change_labels(Kind::Image, namespace, name, change)?,
                ImageChange::Annotations(change) => self.change_labels(Kind::Annotation, namespace, name, change)?,
                ImageChange::Target(target) => {
                    self.execute(
                        "UPDATE image SET media_type = ?3, digest = ?4, size = ?5 WHERE namespace = ?1 AND name = ?2",
                        (
                            namespace.as_str(),
                            name,
                            &target.media_type,
                            &target.digest,
                            target.size,
                        ),
                    )?;
                    self.put_labels(Kind::Annotation, namespace, name, &target.annotations)?;
                }
            }
        }
        self.image(namespace, name)
    }

    /// With a digest, only if it is still this one.
    pub fn delete_image(&self, namespace: &Namespace, name: &str, digest: Option<&str>) -> Result<(), Error> {
        let deleted = self.execute(
            "DELETE FROM image WHERE namespace = ?1 AND name = ?2 AND digest = coalesce(?3, digest)",
            (namespace.as_str(), name, digest),
        )?;
        if deleted == 0 {
            return Err(Error::not_found(What::Image, name));
        }
        self.remove_labels(Kind::Image, namespace, name)?;
        self.remove_labels(Kind::Annotation, namespace, name)
    }
}

fn image(row: &rusqlite::Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        name: row.get(0)?,
        labels: Labels::new(),
        target: Descriptor {
            media_type: row.get(1)?,
            digest: row.get(2)?,
            size: row.get(3)?,
            annotations: Labels::new(),
        },
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}

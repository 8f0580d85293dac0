//! What outlives a reboot, opened: the metadata and the content, both in the root folder.

use std::path::Path;

use berth_content::Store;
use berth_core::ContainerKey;
use berth_meta::Meta;
use berth_supervisor::{BoxFuture, Keep};

use crate::error::Error;

/// Running containers do not wait for it, and a database that is of no use does not stop it.
pub async fn open(root: &Path) -> Result<(Meta, Store), Error> {
    let root = root.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let content = Store::open(&root.join("content"))?;
        let path = root.join("meta.db");
        let opened = berth_meta::open(&path).map_err(|source| Error::Meta {
            path: path.clone(),
            source,
        })?;
        if let Some(aside) = opened.set_aside {
            tracing::error!(
                database = %path.display(),
                set_aside = %aside.to.display(),
                why = aside.why,
                "THE METADATA COULD NOT BE USED and was set aside; a new database is begun. Containers that run go on; records of \
                 containers, images and leases are missing until their clients make them again"
            );
        }
        Ok((opened.meta, content))
    });
    opened.await.map_err(|error| Error::Serve(error.to_string()))?
}

/// Containers with a restart policy, kept in the database.
pub struct Kept(pub Meta);

impl Keep for Kept {
    fn load(&self) -> BoxFuture<'_, Vec<(ContainerKey, Vec<u8>)>> {
        Box::pin(async {
            let kept = self.0.call(|tables| tables.kept()).await;
            kept.unwrap_or_else(|error| {
                tracing::error!(%error, "what is to be restarted can't be read");
                Vec::new()
            })
        })
    }

    fn write(&self, changes: Vec<(ContainerKey, Option<Vec<u8>>)>) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let work = move |tables: &berth_meta::Tables<'_>| {
                changes
                    .iter()
                    .try_for_each(|(key, record)| tables.keep(key, record.as_deref()))
            };
            let done = self.0.call(work).await;
            // The database's thread logs why.
            done.is_ok()
        })
    }
}

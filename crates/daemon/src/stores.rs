//! What outlives a reboot, opened: the metadata and the content, both in the root folder.

use std::path::Path;

use berth_content::Store;
use berth_meta::Meta;

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

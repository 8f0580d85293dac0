//! The root file system of a bundle whose caller gave mounts in place of a folder. The same for every driver.

use std::path::Path;

pub use berth_oci::RootfsMount;

use crate::Error;

/// Mounts them at `rootfs` in the bundle. Whoever made the bundle unmounts what is there, also after a failure.
pub fn mount_rootfs(bundle: &Path, mounts: &[RootfsMount]) -> Result<(), Error> {
    berth_oci::mount_rootfs(&bundle.join("rootfs"), mounts).map_err(|error| Error::Bundle {
        path: bundle.to_owned(),
        problem: error.to_string(),
    })
}

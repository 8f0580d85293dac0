//! Masked and read-only paths, set inside the new root.
//!
//! Invariants (CVE-2025-31133): what covers a masked file is proved to be the null device by its number, and covered
//! paths are opened once, without magic links, and covered by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::inroot::{self, FileKind};
use berth_sys::newmount::{self, Attr, SetAttr};
use berth_sys::unguarded::without;
use oci_spec::runtime::Spec;

use crate::error::{Context, OciError};

/// Covers linux.maskedPaths and makes linux.readonlyPaths read-only. The caller's root is the container's.
pub(crate) fn seal(spec: &Spec, root: &OwnedFd) -> Result<(), OciError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().iter().flatten() {
        read_only(root, Path::new(path)).step("make read-only", path)?;
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    if masked.is_empty() {
        return Ok(());
    }
    let mut covers = Covers::default();
    for path in masked {
        mask(root, Path::new(path), &mut covers).step("mask", path)?;
    }
    Ok(())
}

/// A path that is not there needs no cover: kernels differ in what /proc and /sys have.
fn existing(root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    match inroot::open_path(root.as_fd(), path) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_only(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let Some(place) = existing(root, path)? else {
        return Ok(());
    };
    let tree = newmount::clone_tree(place.as_fd(), true)?;
    newmount::set_attr(
        tree.as_fd(),
        SetAttr {
            set: Attr::RDONLY,
            ..SetAttr::default()
        },
    )?;
    newmount::attach(tree.as_fd(), place.as_fd())
}

/// One empty read-only tmpfs and the null device serve all masked paths: their mounts are cloned. The tmpfs is the one that covers
/// the first of them: kernels before 6.15 clone no mount that is not attached.
#[derive(Default)]
struct Covers {
    folder: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

fn mask(root: &OwnedFd, path: &Path, covers: &mut Covers) -> io::Result<()> {
    let Some(place) = existing(root, path)? else {
        return Ok(());
    };
    let cover = if inroot::kind_of(place.as_fd())? == FileKind::Folder {
        let Some(folder) = &covers.folder else {
            let options = ["ro", "nr_blocks=1", "nr_inodes=1"];
            let first = newmount::new_filesystem("tmpfs", Some("tmpfs"), &options, Attr::RDONLY)?;
            newmount::attach(first.as_fd(), place.as_fd())?;
            covers.folder = Some(first);
            return Ok(());
        };
        Some(folder)
    } else {
        if covers.null.is_none() {
            let null = inroot::open_path(root.as_fd(), Path::new("/dev/null"))?;
            if !without("mask-null") && inroot::kind_of(null.as_fd())? != FileKind::Char(1, 3) {
                return Err(io::Error::other("/dev/null in the container is not the null device"));
            }
            covers.null = Some(null);
        }
        covers.null.as_ref()
    };
    let Some(cover) = cover else { return Ok(()) };
    let tree = newmount::clone_tree(cover.as_fd(), false)?;
    newmount::attach(tree.as_fd(), place.as_fd())
}

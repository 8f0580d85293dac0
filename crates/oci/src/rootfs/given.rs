//! The mounts that make a root file system, where the caller hands over mounts in place of a folder.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use berth_sys::inroot::{self, FileKind};
use berth_sys::newmount;

use super::mounts::{place, set_flags, set_propagation};
use super::options::MountOptions;
use crate::error::{Context, OciError};

/// One of them, as mount(8) takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsMount {
    pub kind: String,
    pub source: String,
    /// Below the root file system; empty = the root file system itself.
    pub target: String,
    pub options: Vec<String>,
}

/// Mounts them in their order on `root`, a folder of the host's. Whoever made the folder unmounts what is there, also after a failure.
pub fn mount_rootfs(root: &Path, mounts: &[RootfsMount]) -> Result<(), OciError> {
    for mount in mounts {
        // Opened anew each time: the last mount may have covered it.
        let folder = inroot::open_host_dir(root).step("open root filesystem", root.display())?;
        mount_one(folder.as_fd(), mount)?;
    }
    Ok(())
}

fn mount_one(root: BorrowedFd<'_>, mount: &RootfsMount) -> Result<(), OciError> {
    let what = || format!("{} ({}) as root filesystem", mount.source, mount.kind);
    let options = MountOptions::parse(mount.options.iter().map(String::as_str));
    let bind = options.bind || mount.kind == "bind";
    let (tree, folder) = if bind {
        let source = inroot::open_host_path(Path::new(&mount.source)).step("mount", what())?;
        let folder = inroot::kind_of(source.as_fd()).step("mount", what())? == FileKind::Folder;
        let tree = newmount::clone_tree(source.as_fd(), options.recursive_bind).step("mount", what())?;
        set_flags(tree.as_fd(), &options).step("set mount flags of", what())?;
        (tree, folder)
    } else {
        let data: Vec<&str> = options.data.iter().map(String::as_str).collect();
        let tree = newmount::new_filesystem(&mount.kind, Some(&mount.source), &data, options.set);
        (tree.step("mount", what())?, true)
    };
    let target = place(root, Path::new(&mount.target), folder).step("make mount target", &mount.target)?;
    newmount::attach(tree.as_fd(), target.as_fd()).step("mount", what())?;
    set_propagation(tree.as_fd(), &options).step("set propagation of", what())
}

//! The half of a copy that works inside the container: one process for one copy, started by the other half.
//!
//! Invariants: everything of ours that it needs is opened before it joins; afterwards its root is the container's, what it opens goes
//! through no magic link (a container that sees the host's processes has those of our root), and nobody inside may look into it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rustix::process::DumpableBehavior;
use rustix::thread::LinkNameSpaceType;

use super::pack::{self, Source};
use super::unpack::{self, Target};
use crate::out::complain;

#[derive(Debug, Args)]
pub struct InsideArgs {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    mount: Option<PathBuf>,
    #[arg(long)]
    user: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// To stdout
    Pack {
        #[arg(long)]
        follow_link: bool,
        /// With its own name at the top
        #[arg(long)]
        named: bool,
        path: PathBuf,
    },
    /// From stdin
    Unpack {
        #[arg(long)]
        archive: bool,
        /// It is what the other half packed, not a stream of somebody's
        #[arg(long)]
        copied: bool,
        /// The source's
        #[arg(long)]
        name: Option<OsString>,
        path: PathBuf,
    },
}

pub fn run(args: &InsideArgs) -> u8 {
    let done = join(args).and_then(|()| match &args.what {
        What::Pack {
            follow_link,
            named,
            path,
        } => {
            let source = Source::inside(path, *follow_link)?;
            let top = match source.name() {
                Some(name) if *named => Path::new(name),
                _ if *named => Path::new("."),
                _ => Path::new(pack::TOP),
            };
            pack::pack(&source, top, io::stdout().lock())
        }
        What::Unpack {
            archive,
            copied,
            name,
            path,
        } => {
            let target = copied.then(|| Target {
                path: path.clone(),
                name: name.clone(),
            });
            unpack::inside(io::stdin().lock(), path, target.as_ref(), *archive)
        }
    });
    let path = match &args.what {
        What::Pack { path, .. } | What::Unpack { path, .. } => path.display(),
    };
    match done {
        Ok(()) => 0,
        // Whoever took the stream has gone, and says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 1,
        Err(error) => {
            complain(&format!("cp: {path} in the container: {error}"));
            1
        }
    }
}

fn join(args: &InsideArgs) -> io::Result<()> {
    let open = |path: &Option<PathBuf>| path.as_ref().map(File::open).transpose();
    let (root, mount, user) = (File::open(&args.root)?, open(&args.mount)?, open(&args.user)?);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if let Some(user) = user {
        rustix::thread::move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_gid(rustix::thread::Gid::ROOT)?;
        rustix::thread::set_thread_uid(rustix::thread::Uid::ROOT)?;
    }
    if let Some(mount) = mount {
        rustix::thread::move_into_link_name_space(mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
    }
    rustix::process::fchdir(&root)?;
    std::os::unix::fs::chroot(".")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

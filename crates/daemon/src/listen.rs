//! Sockets of the daemon's own: handed over by systemd, or made with the mode we want whatever the umask.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket};

use crate::error::Error;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Who can open it is root; a group may be given that by chgrp.
const SOCKET_MODE: u32 = 0o660;

/// Of a folder that is made for the socket: anybody may go through, nobody may look.
const FOLDER_MODE: u32 = 0o711;

/// A socket and, if it is ours to remove, its path.
pub struct Listening {
    pub listener: UnixListener,
    pub address: PathBuf,
    ours: bool,
}

impl Listening {
    /// What `systemd.socket` handed over, `None` if nothing.
    pub fn inherited() -> Result<Option<Self>, Error> {
        let failed = |source| Error::Io {
            operation: "take over",
            what: "systemd's socket".into(),
            source,
        };
        let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0).map_err(failed)? else {
            return Ok(None);
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener
            .local_addr()
            .map_err(failed)?
            .as_pathname()
            .unwrap_or(Path::new(""))
            .to_owned();
        Ok(Some(Listening {
            listener: UnixListener::from_std(listener).map_err(failed)?,
            address,
            ours: false,
        }))
    }

    /// Makes the socket. The caller holds the lock of the state folder, so a socket that nobody answers on is a dead daemon's.
    pub fn bind(address: &Path) -> Result<Self, Error> {
        let failed = |operation| {
            move |source| Error::Io {
                operation,
                what: format!("the socket {}", address.display()),
                source,
            }
        };
        if let Some(folder) = address.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)
                .map_err(failed("make a folder for"))?;
        }
        remove_stale(address)?;
        let listener = bind(address).map_err(failed("listen on"))?;
        Ok(Listening {
            listener,
            address: address.to_owned(),
            ours: true,
        })
    }
}

/// The second socket. Nothing of ours needs it: what is wrong with it is told and no more.
pub fn beside(address: &Path) -> Option<UnixListener> {
    match Listening::bind(address) {
        Ok(listening) => Some(listening.listener),
        Err(error) => {
            tracing::warn!(%error, "no socket for the events of others' shims");
            None
        }
    }
}

/// For a socket that is not served any more. Before the state folder's lock is given up: the next daemon makes its own.
pub fn remove(address: &Path, ours: bool) {
    if ours && let Err(error) = std::fs::remove_file(address) {
        tracing::warn!(%error, address = %address.display(), "the socket can't be removed");
    }
}

impl Listening {
    pub fn is_ours(&self) -> bool {
        self.ours
    }
}

fn remove_stale(address: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        operation: "remove",
        what: format!("the old socket {}", address.display()),
        source,
    };
    match std::fs::symlink_metadata(address) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NotASocket(address.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(address) {
        Ok(_) => Err(Error::AddressInUse(address.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(address).map_err(failed),
        // Full is alive too.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::AddressInUse(address.to_owned())),
        Err(e) => Err(failed(e)),
    }
}

fn bind(address: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // The mode of the socket is that of its file, less the umask: never more than we want, not even for a moment.
    File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(Permissions::from_mode(SOCKET_MODE))?;
    socket.bind(address)?;
    std::fs::set_permissions(address, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod test {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("berthd-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a folder");
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn modes_do_not_depend_on_the_umask() {
        let dir = Dir::new("modes");
        let path = dir.0.join("made/here/s.sock");
        let listening = Listening::bind(&path).expect("bound");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().expect("a folder")), 0o711);
        assert!(listening.is_ours());
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_removed() {
        let dir = Dir::new("stale");
        let path = dir.0.join("s.sock");
        let first = Listening::bind(&path).expect("bound");
        assert!(matches!(Listening::bind(&path), Err(Error::AddressInUse(_))));
        drop(first);
        drop(Listening::bind(&path).expect("a dead one is replaced"));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "data").expect("written");
        assert!(matches!(Listening::bind(&path), Err(Error::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("still there"), b"data");
    }
}

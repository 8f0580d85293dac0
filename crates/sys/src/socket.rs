//! Unix sockets: pairs, listening and connecting below a folder's descriptor, descriptors by SCM_RIGHTS.
//!
//! Invariants: no abstract names; everything is close-on-exec; nothing raises SIGPIPE. A path is reached as /proc/self/fd/N/NAME, so
//! that its length never matters.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Most descriptors in one message.
pub const MAX_FDS: usize = 8;

fn pair(kind: SocketType, nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, nonblocking);
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// A stream in both directions.
pub fn stream_pair(nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM, nonblocking)
}

/// Messages in both directions, in order, with an end of file.
pub fn seqpacket_pair(nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET, nonblocking)
}

fn address(folder: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    if name.is_empty() || name.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(SocketAddrUnix::new(format!(
        "/proc/self/fd/{}/{name}",
        folder.as_raw_fd()
    ))?)
}

fn new_stream(nonblocking: bool) -> io::Result<OwnedFd> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, nonblocking);
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Listens (non-blocking) on a socket file in this folder, with this mode whatever the umask allows in addition. One that is left
/// over is replaced.
pub fn listen_at(folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let address = address(folder, name)?;
    let socket = new_stream(true)?;
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // The file gets the socket's own mode at bind, so it is never open wider than this.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Connects to the socket file in this folder. Non-blocking: WouldBlock if the listener's queue is full.
pub fn connect_at(folder: BorrowedFd<'_>, name: &str, nonblocking: bool) -> io::Result<OwnedFd> {
    let address = address(folder, name)?;
    let socket = new_stream(nonblocking)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Connects to the socket file at this path; the kernel gives up after this time if the listener's queue stays full, with WouldBlock.
pub fn connect_within(path: &std::path::Path, limit: std::time::Duration) -> io::Result<OwnedFd> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    let address = SocketAddrUnix::new(path)?;
    let socket = new_stream(false)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The next waiting connection (non-blocking), if there is one.
pub fn accept(listener: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Ok(Some(socket)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// SO_PEERCRED: as it was when the peer connected.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    // SAFETY: all-zero is a valid ucred. By hand, because a pid of 0 (a peer of another pid namespace) does not fit rustix's type.
    let mut cred: libc::ucred = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` has room for `len` bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        pid: cred.pid.unsigned_abs(),
        uid: cred.uid,
        gid: cred.gid,
    })
}

/// Sends bytes; `None` if the socket is full.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match rustix::io::retry_on_intr(|| rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL)) {
        Ok(sent) => Ok(Some(sent)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends bytes and copies of at most [`MAX_FDS`] descriptors; WouldBlock if the socket is full.
pub fn send_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The space may hold one more, by its alignment; the receiver's then would not.
    if fds.len() > MAX_FDS || !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let iov = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &iov, &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// What came in one message.
#[derive(Debug)]
pub struct Received {
    /// 0 = end of file (on a stream or after the peer of a SEQPACKET pair is gone).
    pub len: usize,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The message or its descriptors did not fit.
    pub truncated: bool,
}

/// Receives bytes and descriptors; WouldBlock if there is nothing.
pub fn recv_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(buffer)];
    let message =
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(&socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let truncated = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received {
        len: message.bytes,
        fds,
        truncated,
    })
}

#[cfg(test)]
mod test {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_listener_that_accepts_nothing_is_given_up() {
        let path = std::env::temp_dir().join(format!("berth-full-{}", std::process::id()));
        let listener = new_stream(false).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let limit = std::time::Duration::from_millis(50);
        // The queue takes one more than its length.
        let first = connect_within(&path, limit);
        let second = connect_within(&path, limit);
        std::fs::remove_file(&path).unwrap();
        assert!(first.is_ok());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn descriptors_pass_with_their_bytes() {
        let (a, b) = seqpacket_pair(false).unwrap();
        let (reader, writer) = crate::pipe::pipe().unwrap();
        assert_eq!(send_fds(&a, b"two", &[reader.as_fd(), writer.as_fd()]).unwrap(), 3);
        drop((reader, writer));
        let mut buffer = [0; 16];
        let got = recv_fds(&b, &mut buffer).unwrap();
        assert_eq!((got.len, got.fds.len(), got.truncated), (3, 2, false));
        for fd in &got.fds {
            assert!(
                rustix::io::fcntl_getfd(fd)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
        rustix::io::write(&got.fds[1], b"x").unwrap();
        assert_eq!(crate::file::read_some(&got.fds[0], &mut buffer).unwrap(), Some(1));
        drop(a);
        let end = recv_fds(&b, &mut buffer).unwrap();
        assert_eq!((end.len, end.fds.len()), (0, 0));
        assert_eq!(send(&b, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_that_does_not_fit_is_told() {
        let (a, b) = seqpacket_pair(true).unwrap();
        assert_eq!(recv_fds(&b, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send_fds(&a, b"more than four", &[]).unwrap();
        assert!(recv_fds(&b, &mut [0; 4]).unwrap().truncated);
        let many = vec![a.as_fd(); MAX_FDS + 1];
        assert_eq!(
            send_fds(&a, b"x", &many).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_socket_below_a_path_longer_than_an_address() {
        let top = std::env::temp_dir().join(format!("berth-socket-{}", std::process::id()));
        let path = top.join("x".repeat(200));
        let folder = crate::dir::make_all(&path, 0o700).unwrap();
        for _ in 0..2 {
            let listener = listen_at(folder.as_fd(), "s", 0o600).unwrap();
            assert_eq!(
                std::fs::metadata(path.join("s")).unwrap().permissions().mode() & 0o777,
                0o600
            );
            assert!(accept(&listener).unwrap().is_none());
            let client = connect_at(folder.as_fd(), "s", false).unwrap();
            let server = accept(&listener).unwrap().unwrap();
            assert_eq!(peer(&server).unwrap().pid, std::process::id());
            send(&client, b"hi").unwrap();
            let mut buffer = [0; 4];
            assert_eq!(crate::file::read_some(&server, &mut buffer).unwrap(), Some(2));
            assert_eq!(crate::file::read_some(&server, &mut buffer).unwrap(), None);
        }
        assert_eq!(
            connect_at(folder.as_fd(), "s", false).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(
            connect_at(folder.as_fd(), "../s", false).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        std::fs::remove_dir_all(top).unwrap();
    }
}

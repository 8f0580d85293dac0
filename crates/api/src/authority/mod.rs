//! Serves clients that name the socket in `:authority`, whatever their language.
//!
//! An HTTP/2 request says whom it is for. Over a unix socket there is no good answer, and clients give different ones: `localhost`
//! (Rust, today's Go), the path as it is (Docker until 20.10, Java), the path percent-encoded (whatever is built on grpc's core:
//! Python, Ruby, PHP, C++). The HTTP/2 implementation under tonic resets a stream whose authority is no authority of RFC 3986, and
//! so refuses the last two. [`Lenient`] lies between the socket and it, and replaces that one value.
//!
//! Invariants: a byte is changed only inside a header block that holds a refused authority; all else goes through as it came, bad
//! frames and cut ones too, for the real parser to judge. The replacement has as many bytes as the original, so that both ends'
//! HPACK tables stay in step. At most [`frames::MAX_HELD`] bytes are held. After a first request without fault the layer is gone.

mod block;
mod fields;
mod frames;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use frames::Rewriter;

/// Read at once while the layer is at work.
const CHUNK: usize = 8 << 10;

/// A connection whose requests may name anything as their authority.
pub(crate) struct Lenient<S> {
    inner: S,
    /// `None` once there is nothing to do on this connection any more.
    work: Option<Box<Work>>,
}

struct Work {
    rewriter: Rewriter,
    /// What the reader has not got yet: `ready[given..]`.
    ready: Vec<u8>,
    given: usize,
    /// Nothing will be added to `ready`.
    last: bool,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Lenient {
            inner,
            work: Some(Box::new(Work {
                rewriter: Rewriter::new(),
                ready: Vec::new(),
                given: 0,
                last: false,
            })),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let Some(work) = &mut this.work else {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            };
            if work.given < work.ready.len() {
                let count = buf.remaining().min(work.ready.len() - work.given);
                buf.put_slice(&work.ready[work.given..work.given + count]);
                work.given += count;
                return Poll::Ready(Ok(()));
            }
            if work.last {
                this.work = None;
                continue;
            }
            work.ready.clear();
            work.given = 0;
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                work.rewriter.finish(&mut work.ready);
            } else {
                work.rewriter.feed(chunk.filled(), &mut work.ready);
            }
            work.last = work.rewriter.is_done();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod test;

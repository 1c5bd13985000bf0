//! The answer to the upgrade in one piece, however small the pieces are in which it comes.
//!
//! The WebSocket library takes a head that comes in more than 64 small pieces for an attack and gives the connection
//! up, every time anew: a line that only is bad would never be connected. Here the head is put together first, within
//! a size; the time is limited by whoever opens the connection. Afterwards bytes pass as they come.
//!
//! Called by [`super::dial`], above TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest head that is put together; what is longer goes on as it comes, and the library has limits of its own.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// What is read at once of it.
const PIECE_BYTES: usize = 1024;
/// Where a head ends.
const END: &[u8] = b"\r\n\r\n";

/// A stream whose first bytes up to an empty line come in one piece.
#[derive(Debug)]
pub(super) struct WholeHead<S> {
    inner: S,
    /// The head, and what came with its last piece. Emptied when it is handed on.
    head: Vec<u8>,
    given: usize,
    is_whole: bool,
}

impl<S> WholeHead<S> {
    pub(super) fn new(inner: S) -> WholeHead<S> {
        WholeHead {
            inner,
            head: Vec::new(),
            given: 0,
            is_whole: false,
        }
    }
}

impl<S: AsyncRead + Unpin> WholeHead<S> {
    /// Reads on until the head is whole, or there is no more of it. What came so far survives a `Pending`.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_whole {
            let mut piece = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
            let fresh = piece.filled();
            // The end may lie across two pieces.
            let from = self.head.len().saturating_sub(END.len() - 1);
            self.head.extend_from_slice(fresh);
            let has_end = self.head[from..].windows(END.len()).any(|part| part == END);
            self.is_whole = has_end || fresh.is_empty() || self.head.len() >= HEAD_BYTES_MAX;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WholeHead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_head(context))?;
        if this.given < this.head.len() {
            let left = &this.head[this.given..];
            let now = left.len().min(into.remaining());
            into.put_slice(&left[..now]);
            this.given += now;
            if this.given == this.head.len() {
                (this.head, this.given) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WholeHead<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What a reader with `room` bytes gets of `bytes` that come one by one: the size of each piece, and all of it.
    async fn read(bytes: &'static [u8], room: usize) -> (Vec<usize>, Vec<u8>) {
        let (mut far, near) = duplex(1);
        let (mut near, mut sizes, mut all) = (WholeHead::new(near), Vec::new(), Vec::new());
        let send = async move { far.write_all(bytes).await.expect("sent") };
        let receive = async {
            let mut piece = vec![0; room];
            loop {
                let count = near.read(&mut piece).await.expect("read");
                if count == 0 {
                    break;
                }
                sizes.push(count);
                all.extend_from_slice(&piece[..count]);
            }
        };
        tokio::join!(send, receive);
        (sizes, all)
    }

    #[tokio::test]
    async fn the_head_comes_in_one_piece_and_what_follows_as_it_comes() {
        let (sizes, all) = read(b"HTTP/1.1 101 X\r\nA: b\r\n\r\nxyz", 100).await;
        assert_eq!(sizes, [24, 1, 1, 1]);
        assert_eq!(all, b"HTTP/1.1 101 X\r\nA: b\r\n\r\nxyz");
        let (sizes, all) = read(b"A: b\r\n\r\nxyz", 5).await;
        assert_eq!(sizes, [5, 3, 1, 1, 1], "a small reader gets all of it, too");
        assert_eq!(all, b"A: b\r\n\r\nxyz");
    }

    #[tokio::test]
    async fn a_head_that_breaks_off_or_never_ends_is_handed_on_as_far_as_it_came() {
        assert_eq!(read(b"HTTP/1.1 1", 100).await, (vec![10], b"HTTP/1.1 1".to_vec()));
        static ENDLESS: [u8; HEAD_BYTES_MAX + 2] = [b'a'; HEAD_BYTES_MAX + 2];
        let (sizes, all) = read(&ENDLESS, HEAD_BYTES_MAX * 2).await;
        assert_eq!(sizes, [HEAD_BYTES_MAX, 1, 1]);
        assert_eq!(all.len(), ENDLESS.len());
    }
}

//! A stream whose reader must take what is written: who takes too little in a given time is cut off.
//!
//! Reading is not limited here: heads are by the server, bodies and WebSockets by who reads them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What must be taken in one step, in bytes, unless less is left.
pub(super) const STEP_BYTES: usize = 16 * 1024;

/// A stream and how far its reader is behind.
pub(super) struct Paced<S> {
    inner: S,
    step: Duration,
    /// Runs since something could not be written at once.
    wait: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since then.
    taken: usize,
}

impl<S> Paced<S> {
    pub fn new(inner: S, step: Duration) -> Paced<S> {
        Paced {
            inner,
            step,
            wait: None,
            taken: 0,
        }
    }

    fn caught_up(&mut self) {
        self.wait = None;
        self.taken = 0;
    }

    fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= STEP_BYTES {
            self.caught_up();
        }
    }

    /// Waits for the reader, no longer than a step.
    fn behind<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let step = self.step;
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(step)));
        ready!(wait.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "what is written is not read",
        )))
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.behind(context),
            Poll::Ready(done) => {
                self.took(done.as_ref().copied().unwrap_or_default());
                Poll::Ready(done)
            }
        }
    }

    fn flushed(&mut self, context: &mut Context<'_>, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if flushed.is_pending() {
            return self.behind(context);
        }
        self.caught_up();
        flushed
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.flushed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(context);
        self.flushed(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const STEP: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_cut_off_after_one_step() {
        let (ours, mut theirs) = duplex(1024);
        let mut paced = Paced::new(ours, STEP);
        let began = Instant::now();
        let reading = async {
            // A reader that wants to hold the answer for ever.
            loop {
                sleep(Duration::from_secs(1)).await;
                if theirs.read_u8().await.is_err() {
                    return;
                }
            }
        };
        let answer = vec![0u8; 1024 * 1024];
        tokio::select! {
            written = paced.write_all(&answer) => {
                assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = reading => panic!("the stream ended by itself"),
        }
        assert!(
            began.elapsed() >= STEP && began.elapsed() < 2 * STEP,
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_that_takes_its_steps_gets_everything() {
        let (ours, mut theirs) = duplex(1024);
        let mut paced = Paced::new(ours, STEP);
        let answer = vec![7u8; 40 * STEP_BYTES];
        let reading = async {
            let mut got = 0;
            let mut part = vec![0u8; 1024];
            while got < answer.len() {
                // Just above a step in its time: 1 KiB each 1.5 s.
                sleep(Duration::from_millis(1500)).await;
                got += theirs.read(&mut part).await.unwrap();
            }
        };
        let writing = async {
            paced.write_all(&answer).await.unwrap();
            paced.flush().await.unwrap();
        };
        tokio::join!(writing, reading);
        // Whoever has everything may be silent as long as he likes, and the next answer begins anew.
        sleep(10 * STEP).await;
        paced.write_all(b"more").await.unwrap();
    }
}

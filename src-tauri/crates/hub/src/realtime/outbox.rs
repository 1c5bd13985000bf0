//! What waits to be written to one socket: bounded in frames and in bytes.
//!
//! Never waits and never grows: a frame that finds no room marks the socket, which is then closed. Filled by
//! `registry`, emptied by `socket`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::codec::Frame;

/// Frames that may wait for one socket.
pub(crate) const FRAMES_MAX: usize = 1024;
/// Bytes that may wait for one socket, whoever else waits for the same frames.
pub(crate) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The end that is filled.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Frame>,
    bytes: Arc<AtomicUsize>,
    overflow: CancellationToken,
}

/// The end that is emptied.
#[derive(Debug)]
pub(crate) struct Waiting {
    queue: mpsc::Receiver<Frame>,
    bytes: Arc<AtomicUsize>,
    /// Cancelled when a frame found no room.
    pub overflow: CancellationToken,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> (Outbox, Waiting) {
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let overflow = CancellationToken::new();
        let outbox = Outbox {
            queue: sender,
            bytes: bytes.clone(),
            overflow: overflow.clone(),
        };
        let waiting = Waiting {
            queue: receiver,
            bytes,
            overflow,
        };
        (outbox, waiting)
    }

    /// Adds a frame, or marks the socket as too slow.
    pub fn push(&self, frame: Frame) {
        if self.reserve(frame.len()) {
            self.push_reserved(frame);
        }
    }

    /// Room for a frame that is kept elsewhere for this socket, or marks the socket as too slow.
    pub fn reserve(&self, bytes: usize) -> bool {
        let fits = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= BYTES_MAX;
        if !fits {
            self.give_back(bytes);
            self.overflow.cancel();
        }
        fits
    }

    /// The room of a frame that will not be sent.
    pub fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Adds a frame that has its room already.
    pub fn push_reserved(&self, frame: Frame) {
        match self.queue.try_send(frame) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.overflow.cancel(),
            // The socket has ended; its task takes the channels back.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// Marks the socket as too slow.
    pub fn overflow(&self) {
        self.overflow.cancel();
    }

    /// Whether it is marked: nothing more is written to it.
    pub fn is_overflowing(&self) -> bool {
        self.overflow.is_cancelled()
    }
}

impl Waiting {
    /// The next frame; none when every [`Outbox`] is gone. The frame counts until [`Waiting::written`].
    pub async fn next(&mut self) -> Option<Frame> {
        self.queue.recv().await
    }

    /// The next frame, if one waits already.
    pub fn ready(&mut self) -> Option<Frame> {
        self.queue.try_recv().ok()
    }

    /// Gives room back.
    pub fn written(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::Binary(Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn a_socket_that_does_not_read_is_marked_and_does_not_grow() {
        let (outbox, mut waiting) = Outbox::new();
        for n in 0..FRAMES_MAX + 10 {
            assert_eq!(waiting.overflow.is_cancelled(), n > FRAMES_MAX);
            outbox.push(frame(1));
        }
        assert_eq!(std::iter::from_fn(|| waiting.ready()).count(), FRAMES_MAX);
    }

    #[test]
    fn what_is_kept_elsewhere_counts_until_it_is_given_back() {
        let (outbox, mut waiting) = Outbox::new();
        assert!(outbox.reserve(BYTES_MAX - 1));
        outbox.give_back(BYTES_MAX - 1);
        assert!(outbox.reserve(BYTES_MAX));
        assert!(!waiting.overflow.is_cancelled());
        assert!(!outbox.is_overflowing());
        outbox.push(frame(1));
        assert!(outbox.is_overflowing() && waiting.overflow.is_cancelled() && waiting.ready().is_none());
    }

    #[test]
    fn few_large_frames_are_too_many_as_well() {
        let (outbox, mut waiting) = Outbox::new();
        let quarter = BYTES_MAX / 4;
        for _ in 0..4 {
            outbox.push(frame(quarter));
        }
        assert!(!waiting.overflow.is_cancelled());
        let length = waiting.ready().unwrap().len();
        waiting.written(length);
        outbox.push(frame(quarter));
        assert!(!waiting.overflow.is_cancelled(), "what is written makes room");
        outbox.push(frame(quarter));
        assert!(waiting.overflow.is_cancelled());
    }
}

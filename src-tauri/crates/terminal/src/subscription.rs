//! Following a terminal's output at one's own pace. A subscription holds a position in the ring and no queue: a slow
//! viewer falls behind alone, and is told so.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::pty::{Exit, Shared};

/// Most bytes of one chunk.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// What a subscription has seen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The bytes at an absolute offset, right behind those of the chunk before.
    Chunk {
        /// Absolute offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The viewer was too slow and bytes are gone: take a new snapshot and subscribe from its offset.
    Lagged,
    /// The program has ended and everything it printed has been seen. Comes again when asked again.
    Ended(Exit),
}

/// A position in a terminal's output.
pub struct Subscription {
    shared: Arc<Shared>,
    end: watch::Receiver<u64>,
    exit: watch::Receiver<Option<Exit>>,
    position: u64,
}

impl Subscription {
    pub(crate) fn new(shared: Arc<Shared>, offset: u64) -> Subscription {
        let kept_from = shared.state().ring.start();
        Subscription {
            end: shared.end.subscribe(),
            exit: shared.exit.subscribe(),
            // Offset 0 means: whatever is kept.
            position: if offset == 0 { kept_from } else { offset },
            shared,
        }
    }

    /// The next thing to see. Cancel safe.
    pub async fn next(&mut self) -> Seen {
        loop {
            // Marked as seen before the ring is read: what comes in between wakes us again.
            self.end.borrow_and_update();
            let exit = self.exit.borrow_and_update().clone();
            let run = self.shared.state().ring.since(self.position, CHUNK_BYTES_MAX);
            if run.from > self.position {
                self.position = run.from;
                return Seen::Lagged;
            }
            if !run.bytes.is_empty() {
                self.position = run.from + run.bytes.len() as u64;
                return Seen::Chunk {
                    offset: run.from,
                    bytes: run.bytes,
                };
            }
            if let Some(exit) = exit {
                return Seen::Ended(exit);
            }
            // The senders live as long as `shared`, which we hold: neither wait can fail.
            tokio::select! {
                _ = self.end.changed() => {}
                _ = self.exit.changed() => {}
            }
        }
    }
}

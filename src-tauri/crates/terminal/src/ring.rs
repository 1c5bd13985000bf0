//! The last bytes a program printed, addressed by their absolute offset since its start.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes kept per terminal. When full, the oldest go.
pub const RING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A run of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Absolute offset of the first byte; larger than what was asked for when older bytes are gone.
    pub from: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Absolute offset behind the newest byte that exists; `from + bytes.len()` unless a limit cut the run.
    pub end: u64,
}

/// The ring itself. Owned by the terminal's shared state, fed by its reader thread only.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
    bytes_max: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Ring {
        Ring {
            bytes: VecDeque::new(),
            end: 0,
            bytes_max,
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let chunk_kept = &chunk[chunk.len().saturating_sub(self.bytes_max)..];
        let overflow = (self.bytes.len() + chunk_kept.len()).saturating_sub(self.bytes_max);
        self.bytes.drain(..overflow);
        self.bytes.extend(chunk_kept);
        self.end += chunk.len() as u64;
    }

    /// Output goes on at `offset`, further on than it came to: what was kept is forgotten, so that no hole is hidden.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.bytes.clear();
        self.end = offset;
    }

    /// Offset of the oldest byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Offset behind the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// At most `bytes_max` bytes from `offset` on; from the oldest kept byte when `offset` is gone already. An
    /// `offset` from the future gives an empty run at the end.
    pub(crate) fn since(&self, offset: u64, bytes_max: usize) -> Output {
        let from = offset.clamp(self.start(), self.end);
        // Both fit: the difference is at most the ring's size.
        let skip = (from - self.start()) as usize;
        let count = (self.bytes.len() - skip).min(bytes_max);
        let mut bytes = Vec::with_capacity(count);
        let (first, second) = self.bytes.as_slices();
        if skip < first.len() {
            let upto = (skip + count).min(first.len());
            bytes.extend_from_slice(&first[skip..upto]);
        }
        let rest = count - bytes.len();
        let second_from = (skip + bytes.len()) - first.len().min(skip + bytes.len());
        bytes.extend_from_slice(&second[second_from..second_from + rest]);
        Output {
            from,
            bytes: Bytes::from(bytes),
            end: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stay_true_when_old_bytes_are_gone() {
        let mut ring = Ring::new(8);
        ring.push(b"abcdef");
        ring.push(b"ghij");
        assert_eq!((ring.start(), ring.end()), (2, 10));
        let all = ring.since(0, 100);
        assert_eq!((all.from, &all.bytes[..], all.end), (2, &b"cdefghij"[..], 10));
        assert_eq!(&ring.since(7, 100).bytes[..], b"hij");
        assert_eq!(&ring.since(4, 3).bytes[..], b"efg");
        let future = ring.since(99, 100);
        assert_eq!((future.from, future.bytes.len()), (10, 0));
    }

    #[test]
    fn every_run_equals_the_plain_slice() {
        let mut ring = Ring::new(13);
        let mut plain: Vec<u8> = Vec::new();
        for round in 0..40u8 {
            let chunk: Vec<u8> = (0..round % 17).map(|i| round.wrapping_mul(31) ^ i).collect();
            ring.push(&chunk);
            plain.extend(&chunk);
            let start = plain.len().saturating_sub(13);
            for offset in start..=plain.len() {
                for limit in [0, 1, 5, 13] {
                    let upto = (offset + limit).min(plain.len());
                    assert_eq!(
                        &ring.since(offset as u64, limit).bytes[..],
                        &plain[offset..upto],
                        "round {round}, offset {offset}, limit {limit}"
                    );
                }
            }
        }
    }
}

//! The output that a holder keeps: the newest [`RING_BYTES_MAX`] bytes and a bit more, by absolute offset.
//!
//! The program's bytes are read straight into it, and sent straight from it. While output comes nothing else is done
//! with it; when it has paused, all but the newest blocks are packed, so that a session at rest costs little memory.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::ring::RING_BYTES_MAX;

/// One block; a frame of output never spans two. With what the C library keeps beside a large block it fills whole
/// pages: 64 KiB would cost a page more each.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024 - 32;
/// Blocks kept: the one that is filled, and full ones for what must be kept.
const BLOCKS_MAX: usize = RING_BYTES_MAX.div_ceil(BLOCK_BYTES) + 1;
/// The newest blocks are never packed: who comes late begins to read there.
const LOOSE_BLOCKS: usize = 2;
/// A block is kept packed when that saves at least a quarter of it.
const PACKED_BYTES_MAX: usize = BLOCK_BYTES / 4 * 3;

enum Block {
    Loose(Box<[u8]>),
    /// It did not become smaller.
    Dense(Box<[u8]>),
    Packed(Box<[u8]>),
}

/// All blocks but the last are full.
pub(crate) struct Kept {
    blocks: VecDeque<Block>,
    /// Offset of the first block.
    start: u64,
    end: u64,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept {
            blocks: VecDeque::new(),
            start: 0,
            end: 0,
        }
    }

    /// Offset of the oldest byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of the last block that are used.
    fn used(&self) -> usize {
        let before = self.blocks.len().saturating_sub(1) * BLOCK_BYTES;
        (self.end - self.start) as usize - before
    }

    /// Offset up to which the next [`space`](Self::space) forgets output.
    pub(crate) fn forgets(&self) -> u64 {
        let is_full = self.blocks.len() == BLOCKS_MAX && self.used() == BLOCK_BYTES;
        self.start + if is_full { BLOCK_BYTES as u64 } else { 0 }
    }

    /// Room for output, never empty; the oldest block goes when there are too many.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let is_full = self.blocks.is_empty() || self.used() == BLOCK_BYTES;
        if is_full {
            let mut memory = None;
            if self.blocks.len() >= BLOCKS_MAX {
                self.start += BLOCK_BYTES as u64;
                memory = match self.blocks.pop_front() {
                    Some(Block::Loose(memory) | Block::Dense(memory)) => Some(memory),
                    Some(Block::Packed(_)) | None => None,
                };
            }
            let memory = memory.unwrap_or_else(|| vec![0; BLOCK_BYTES].into_boxed_slice());
            self.blocks.push_back(Block::Loose(memory));
        }
        let used = self.used();
        match self.blocks.back_mut() {
            Some(Block::Loose(memory)) => &mut memory[used..],
            // The last block is always loose.
            _ => &mut [],
        }
    }

    /// So many bytes of the space hold output now.
    pub(crate) fn fill(&mut self, count: usize) {
        self.end += count as u64;
    }

    /// The bytes from `offset` to `upto` or to the end of their block. Empty where nothing is kept.
    pub(crate) fn run(&self, offset: u64, upto: u64) -> Cow<'_, [u8]> {
        let upto = upto.min(self.end);
        if offset < self.start || offset >= upto {
            return Cow::Borrowed(&[]);
        }
        let at = (offset - self.start) as usize;
        let (number, from) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let count = ((upto - offset) as usize).min(BLOCK_BYTES - from);
        match self.blocks.get(number) {
            Some(Block::Loose(memory) | Block::Dense(memory)) => Cow::Borrowed(&memory[from..from + count]),
            Some(Block::Packed(packed)) => {
                // We packed it ourselves: it can be unpacked. If memory has gone bad, zeros are sent.
                let mut bytes = lz4_flex::block::decompress(packed, BLOCK_BYTES).unwrap_or_default();
                bytes.resize(BLOCK_BYTES, 0);
                Cow::Owned(bytes[from..from + count].to_vec())
            }
            None => Cow::Borrowed(&[]),
        }
    }

    /// Whether [`pack_one`](Self::pack_one) has something to do.
    pub(crate) fn is_loose(&self) -> bool {
        self.oldest_loose().is_some()
    }

    fn oldest_loose(&self) -> Option<usize> {
        let packable = self.blocks.len().saturating_sub(LOOSE_BLOCKS);
        (0..packable).find(|number| matches!(self.blocks.get(*number), Some(Block::Loose(_))))
    }

    /// Packs the oldest block that is not.
    pub(crate) fn pack_one(&mut self) {
        let Some(number) = self.oldest_loose() else { return };
        let Some(block) = self.blocks.get_mut(number) else {
            return;
        };
        if let Block::Loose(memory) = block {
            let packed = lz4_flex::block::compress(memory);
            *block = match packed.len() <= PACKED_BYTES_MAX {
                true => Block::Packed(packed.into_boxed_slice()),
                false => Block::Dense(std::mem::take(memory)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(offset: u64) -> u8 {
        (offset / 7 % 251) as u8
    }

    fn print(kept: &mut Kept, count: usize, most: usize) {
        let upto = kept.end() + count as u64;
        while kept.end() < upto {
            let (end, left) = (kept.end(), (upto - kept.end()) as usize);
            let space = kept.space();
            let count = space.len().min(left).min(most);
            for (at, place) in space[..count].iter_mut().enumerate() {
                *place = byte(end + at as u64);
            }
            kept.fill(count);
        }
    }

    #[test]
    fn offsets_and_bytes_stay_true_when_old_ones_go_and_others_are_packed() {
        let mut kept = Kept::new();
        for round in 0..30 {
            print(&mut kept, 333_333, 4_000);
            while round % 3 == 0 && kept.is_loose() {
                kept.pack_one();
            }
            assert!(kept.end() - kept.start() >= kept.end().min(RING_BYTES_MAX as u64));
            assert!(kept.end() - kept.start() <= (BLOCKS_MAX * BLOCK_BYTES) as u64);
            let mut at = kept.start();
            while at < kept.end() {
                let run = kept.run(at, at + 50_000);
                assert!(!run.is_empty(), "a hole at {at}");
                let wrong = (at..).zip(run.iter()).find(|(offset, is)| byte(*offset) != **is);
                assert_eq!(wrong, None, "round {round}");
                at += run.len() as u64;
            }
            assert_eq!(at, kept.end());
        }
        assert!(kept.run(0, 10).is_empty() && kept.run(kept.end(), u64::MAX).is_empty());
    }

    #[test]
    fn output_that_does_not_become_smaller_is_kept_as_it_is() {
        let mut kept = Kept::new();
        let mut seed = 1_u32;
        let mut wanted = Vec::new();
        for _ in 0..4 * 64 * 1024 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            wanted.push((seed >> 24) as u8);
        }
        for chunk in wanted.chunks(32) {
            kept.space()[..32].copy_from_slice(chunk);
            kept.fill(32);
        }
        while kept.is_loose() {
            kept.pack_one();
        }
        assert!(matches!(kept.blocks[0], Block::Dense(_)));
        assert_eq!(&kept.run(0, 1 << 20)[..], &wanted[..BLOCK_BYTES]);
    }
}

//! The output that a holder keeps: the newest [`RING_BYTES_MAX`] bytes and a bit more, by absolute offset.
//!
//! The program's bytes are read straight into it, and sent straight from it. While output comes nothing else is done
//! with it; when it has paused, all but the newest blocks are packed, and what does not become small enough is put into
//! a file (see [`super::away`]), so that a session at rest costs little memory whatever it has printed.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io;

use crate::holder::away::{Away, PLACES};
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
/// Packed blocks in memory, all together. With the program itself, a painting and the loose blocks a holder at rest
/// stays below 4 MiB.
const MEMORY_BYTES_MAX: usize = 2 * 1024 * 1024;

// Each block has its place in the file.
const _: () = assert!(BLOCKS_MAX <= PLACES as usize);

enum Block {
    Loose(Box<[u8]>),
    /// It did not become smaller, and the disk has refused it.
    Dense(Box<[u8]>),
    Packed(Box<[u8]>),
    /// In the file, at this place.
    Away(u32),
}

/// All blocks but the last are full.
pub(crate) struct Kept {
    blocks: VecDeque<Block>,
    /// Offset of the first block.
    start: u64,
    end: u64,
    /// Bytes of the packed blocks.
    packed: usize,
    away: Away,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept {
            blocks: VecDeque::new(),
            start: 0,
            end: 0,
            packed: 0,
            away: Away::default(),
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
                memory = self.forget_oldest();
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

    /// The oldest block goes; its memory may be used again.
    fn forget_oldest(&mut self) -> Option<Box<[u8]>> {
        match self.blocks.pop_front()? {
            Block::Loose(memory) | Block::Dense(memory) => return Some(memory),
            Block::Packed(packed) => self.packed -= packed.len(),
            Block::Away(place) => self.away.free(place),
        }
        None
    }

    /// So many bytes of the space hold output now.
    pub(crate) fn fill(&mut self, count: usize) {
        self.end += count as u64;
    }

    /// Offset of the block behind the one that `offset` is in.
    pub(crate) fn next_block(&self, offset: u64) -> u64 {
        let blocks = (offset.max(self.start) - self.start) / BLOCK_BYTES as u64;
        self.start + (blocks + 1) * BLOCK_BYTES as u64
    }

    /// The bytes from `offset` to `upto` or to the end of their block. Empty where nothing is kept, and where the disk
    /// does not give back what was put there.
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
            Some(Block::Away(place)) => {
                let mut bytes = vec![0; count];
                match self.away.read(*place, BLOCK_BYTES, from, &mut bytes) {
                    Ok(()) => Cow::Owned(bytes),
                    Err(_) => Cow::Borrowed(&[]),
                }
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

    /// Packs the oldest block that is not, or puts it into the file, which `make` makes when there is none.
    pub(crate) fn pack_one(&mut self, make: impl FnOnce() -> io::Result<File>) {
        let Some(number) = self.oldest_loose() else { return };
        let Some(Block::Loose(memory)) = self.blocks.get_mut(number) else {
            return;
        };
        let memory = std::mem::take(memory);
        let packed = lz4_flex::block::compress(&memory);
        let is_small = packed.len() <= PACKED_BYTES_MAX;
        let has_room = self.packed + packed.len() <= MEMORY_BYTES_MAX;
        let place = match is_small && has_room {
            true => None,
            false => self.away.put(&memory, make).ok(),
        };
        let block = match place {
            Some(place) => Block::Away(place),
            None if is_small => {
                self.packed += packed.len();
                Block::Packed(packed.into_boxed_slice())
            }
            None => Block::Dense(memory),
        };
        if let Some(there) = self.blocks.get_mut(number) {
            *there = block;
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
                kept.pack_one(tempfile::tempfile);
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

    /// What cannot be packed.
    fn noise(count: usize) -> Vec<u8> {
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn print_these(kept: &mut Kept, bytes: &[u8]) {
        for chunk in bytes.chunks(32) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let space = kept.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                kept.fill(count);
                rest = &rest[count..];
            }
        }
    }

    fn pack_all(kept: &mut Kept, mut make: impl FnMut() -> io::Result<File>) {
        while kept.is_loose() {
            kept.pack_one(&mut make);
        }
    }

    fn in_memory(kept: &Kept) -> usize {
        let of = |block: &Block| match block {
            Block::Loose(memory) | Block::Dense(memory) | Block::Packed(memory) => memory.len(),
            Block::Away(_) => 0,
        };
        kept.blocks.iter().map(of).sum()
    }

    fn all(kept: &Kept) -> Vec<u8> {
        let mut all = Vec::new();
        let mut at = kept.start();
        while at < kept.end() {
            let run = kept.run(at, at + 40_000);
            assert!(!run.is_empty(), "a hole at {at}");
            at += run.len() as u64;
            all.extend_from_slice(&run);
        }
        all
    }

    #[test]
    fn output_that_does_not_become_smaller_is_put_away_and_comes_back_byte_for_byte() {
        let mut kept = Kept::new();
        let wanted = noise(6_000_000);
        let (first, second) = wanted.split_at(5_000_000);
        print_these(&mut kept, first);
        pack_all(&mut kept, tempfile::tempfile);
        assert!(
            in_memory(&kept) <= LOOSE_BLOCKS * BLOCK_BYTES,
            "{}",
            in_memory(&kept)
        );
        assert!(matches!(kept.blocks[0], Block::Away(_)));
        assert_eq!(all(&kept), first[kept.start() as usize..]);
        // Old ones go while others are in the file, and their places are used again.
        print_these(&mut kept, second);
        pack_all(&mut kept, tempfile::tempfile);
        assert!(in_memory(&kept) <= LOOSE_BLOCKS * BLOCK_BYTES);
        assert_eq!(all(&kept), wanted[kept.start() as usize..]);
    }

    #[test]
    fn output_that_becomes_only_a_bit_smaller_does_not_fill_the_memory() {
        let mut kept = Kept::new();
        // Two thirds noise, one third nothing.
        let wanted: Vec<u8> = noise(4_000_000)
            .chunks(2_000)
            .flat_map(|chunk| [chunk, &[0; 1_000]].concat())
            .collect();
        print_these(&mut kept, &wanted);
        pack_all(&mut kept, tempfile::tempfile);
        let most = MEMORY_BYTES_MAX + LOOSE_BLOCKS * BLOCK_BYTES;
        assert!(in_memory(&kept) <= most, "{}", in_memory(&kept));
        assert!(
            matches!(kept.blocks[0], Block::Packed(_)),
            "the file is the second choice"
        );
        assert_eq!(all(&kept), wanted[kept.start() as usize..]);
        print_these(&mut kept, &noise(5_000_000));
        assert_eq!(kept.packed, 0, "what is gone is not counted");
    }

    #[test]
    fn what_the_disk_refuses_stays_in_memory_and_nothing_is_lost() {
        let mut kept = Kept::new();
        let wanted = noise(2_000_000);
        print_these(&mut kept, &wanted);
        pack_all(&mut kept, || {
            std::fs::OpenOptions::new().write(true).open("/dev/full")
        });
        assert!(matches!(kept.blocks[0], Block::Dense(_)));
        assert_eq!(all(&kept), wanted);
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_a_gap_and_no_lie() {
        let mut kept = Kept::new();
        print_these(&mut kept, &noise(1_000_000));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let make = || {
            let mut options = File::options();
            options.read(true).write(true).create(true).open(&path)
        };
        pack_all(&mut kept, make);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        assert!(kept.run(0, 1_000).is_empty());
        assert_eq!(kept.next_block(0), BLOCK_BYTES as u64);
        assert_eq!(kept.next_block(BLOCK_BYTES as u64), 2 * BLOCK_BYTES as u64);
        assert!(!kept.run(kept.end() - 1_000, kept.end()).is_empty());
    }
}

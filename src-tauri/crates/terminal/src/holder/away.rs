//! Blocks of output that are too many for a holder at rest, in a file without a name in the holder's own folder.
//!
//! Only [`super::kept`] puts something there, after output has paused, and reads it back when a core wants it. The file
//! is bounded by the number of blocks, goes with the holder however that ends, and is never the only place of anything
//! that the disk has refused: what could not be written whole stays in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Blocks that have room.
pub(crate) const PLACES: u32 = u128::BITS;

/// The file, and which of its places are taken.
#[derive(Default)]
pub(crate) struct Away {
    /// Absent while nothing is in it: an empty one takes no room on the disk.
    file: Option<File>,
    taken: u128,
}

impl Away {
    /// Writes a block into a free place and returns its number. `make` makes the file when there is none.
    pub(crate) fn put(&mut self, block: &[u8], make: impl FnOnce() -> io::Result<File>) -> io::Result<u32> {
        let place = (!self.taken).trailing_zeros();
        if place >= PLACES {
            return Err(io::Error::other("no place is left"));
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => make()?,
        };
        let written = file.write_all_at(block, at(place, block.len(), 0));
        // With nothing in it, it goes again, and with it what was written of this one.
        self.file = Some(file).filter(|_| written.is_ok() || self.taken != 0);
        written?;
        self.taken |= 1 << place;
        Ok(place)
    }

    /// Reads from a block of `size` bytes that was put there.
    pub(crate) fn read(&self, place: u32, size: usize, from: usize, into: &mut [u8]) -> io::Result<()> {
        let file = self
            .file
            .as_ref()
            .ok_or_else(|| io::Error::other("there is no file"))?;
        file.read_exact_at(into, at(place, size, from))
    }

    /// The place may be used again; with the last one the file goes.
    pub(crate) fn free(&mut self, place: u32) {
        self.taken &= !(1 << place);
        if self.taken == 0 {
            self.file = None;
        }
    }
}

fn at(place: u32, size: usize, from: usize) -> u64 {
    u64::from(place) * size as u64 + from as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_freed_is_used_again_and_the_file_goes_with_its_last_block() {
        let mut away = Away::default();
        let make = tempfile::tempfile;
        assert_eq!(away.put(b"one.", make).unwrap(), 0);
        assert_eq!(away.put(b"two.", make).unwrap(), 1);
        away.free(0);
        assert_eq!(away.put(b"tri.", make).unwrap(), 0);
        let mut bytes = [0; 3];
        away.read(0, 4, 1, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ri.");
        away.read(1, 4, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"two");
        away.free(0);
        away.free(1);
        assert!(away.file.is_none() && away.read(0, 4, 0, &mut bytes).is_err());
    }

    #[test]
    fn what_the_disk_refuses_takes_no_place() {
        let mut away = Away::default();
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
        assert!(away.put(b"one.", full).is_err() && away.file.is_none());
        assert!(away.put(b"one.", || Err(io::Error::other("no"))).is_err());
        assert_eq!(away.put(b"one.", tempfile::tempfile).unwrap(), 0);
    }
}

//! Floods: output that comes faster than anybody can read, without a pause. While one lasts, only the screen is kept
//! up to date; the rows that have scrolled off are made from the kept output when somebody asks for them.

use std::time::{Duration, Instant};

use crate::emulator::{Size, scrolled_off};
use crate::history::{HISTORY_ROWS_MAX, History};
use crate::ring::{RING_BYTES_MAX, Ring};

/// Output without a pause that makes a flood, in bytes. Far more than a screenful, far less than a log.
const FLOOD_BYTES: u64 = 256 * 1024;
/// Silence that ends a flood.
const PAUSE: Duration = Duration::from_millis(20);
/// Output from which the rows of a long flood are made, in bytes: enough to fill the history anew.
const REMADE_BYTES: usize = 1024 * 1024;

/// What is known about the output's speed, and where the history has stopped.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    last: Option<Instant>,
    /// Bytes since the last pause.
    bytes: u64,
    /// Offset up to which the history is complete.
    from: u64,
    /// What the screen showed there.
    screen: String,
    /// How many rows have scrolled off since.
    rows: usize,
}

impl Flood {
    /// Whether `count` bytes that come at the moment `now` are part of a flood.
    pub(crate) fn goes_on(&mut self, count: usize, now: Instant) -> bool {
        let paused = self.last.is_none_or(|last| now.duration_since(last) >= PAUSE);
        self.last = Some(now);
        self.bytes = if paused { 0 } else { self.bytes } + count as u64;
        self.bytes > FLOOD_BYTES
    }

    /// From here on the history stands still.
    pub(crate) fn begin(&mut self, offset: u64, screen: Option<String>) {
        self.from = offset;
        self.screen = screen.unwrap_or_default();
        self.rows = 0;
    }

    /// Rows have scrolled off and were not written down.
    pub(crate) fn rows_left(&mut self, count: usize) {
        self.rows += count;
    }

    /// `history` with the rows that have scrolled off since.
    pub(crate) fn rows(&mut self, history: History, size: Size, upto: u64, ring: &Ring) -> History {
        let screen = std::mem::take(&mut self.screen);
        // Few rows in much output, as of a picture that is painted again and again: what was there before stays.
        let renewed = self.rows >= HISTORY_ROWS_MAX;
        let limit = if renewed { REMADE_BYTES } else { RING_BYTES_MAX };
        let from = self.from.max(upto.saturating_sub(limit as u64));
        let run = ring.since(from, limit);
        let count = usize::try_from(upto.saturating_sub(run.from)).unwrap_or(usize::MAX);
        let output = &run.bytes[..count.min(run.bytes.len())];
        if run.from == self.from {
            return scrolled_off(size, screen.as_bytes(), output, history);
        }
        // From the middle of the flood: a line's end is a good place to begin.
        let begin = output
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let before = if renewed { History::default() } else { history };
        scrolled_off(size, b"", &output[begin..], before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Emulator;

    const SIZE: Size = Size { cols: 60, rows: 12 };

    /// The rows of the same output, painted with and without a flood.
    fn both(output: &[u8]) -> (Vec<String>, Vec<String>) {
        let mut ring = Ring::new(RING_BYTES_MAX);
        let (mut plain, mut live) = (Emulator::new(SIZE), Emulator::new(SIZE));
        let now = Instant::now();
        for chunk in output.chunks(4000) {
            ring.push(chunk);
            plain.feed(chunk, &ring);
            live.feed_live(chunk, &ring, now);
        }
        assert_eq!(plain.screen(), live.screen());
        live.catch_up(ring.end(), &ring);
        let texts = |emulator: &Emulator| emulator.rows().into_iter().map(|row| row.text).collect();
        (texts(&plain), texts(&live))
    }

    fn lines(count: usize) -> Vec<u8> {
        let line = |n: usize| format!("\x1b[3{}mline {n}\x1b[m and {}\r\n", n % 8, "x".repeat(n % 90));
        (0..count).flat_map(|n| line(n).into_bytes()).collect()
    }

    #[test]
    fn after_a_flood_the_history_is_what_it_would_have_been() {
        for count in [100, 5_000, 9_000, 20_000, 100_000] {
            let (plain, live) = both(&lines(count));
            assert_eq!(plain.len(), live.len(), "{count} lines");
            assert!(plain == live, "{count} lines");
        }
    }

    #[test]
    fn a_picture_painted_again_and_again_pushes_nothing_out() {
        let mut output = lines(300);
        for n in 0..60_000 {
            output.extend(format!("\x1b[5;1Hframe {n} {}", "y".repeat(40)).into_bytes());
        }
        output.extend(lines(30));
        let (plain, live) = both(&output);
        assert!(
            live.iter().any(|row| row.starts_with("line 3 ")),
            "what was there before is there"
        );
        assert_eq!(plain, live);
    }

    #[test]
    fn rows_are_written_down_again_as_soon_as_the_output_pauses() {
        let mut ring = Ring::new(RING_BYTES_MAX);
        let mut emulator = Emulator::new(SIZE);
        let mut now = Instant::now();
        for chunk in lines(20_000).chunks(4000) {
            ring.push(chunk);
            emulator.feed_live(chunk, &ring, now);
        }
        now += PAUSE;
        for n in 0..40 {
            let chunk = format!("calm {n}\r\n");
            ring.push(chunk.as_bytes());
            emulator.feed_live(chunk.as_bytes(), &ring, now);
        }
        let rows = emulator.rows();
        assert!(rows.len() > 1_900, "{}", rows.len());
        let at = rows.iter().position(|row| row.text == "calm 0").unwrap();
        assert!(rows[at - 1].text.starts_with("line 19999"), "{:?}", rows[at - 1]);
    }
}

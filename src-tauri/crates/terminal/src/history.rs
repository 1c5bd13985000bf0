//! The rows that have left the screen at its top, with their colours: what a viewer that comes late can scroll back
//! to. Bounded; rows of the alternate screen are not kept.

use std::collections::VecDeque;

use alacritty_terminal::term::cell::Cell;

use crate::cells::{Ink, shown, write_cells};
use crate::painted::PaintedRow;

/// Most rows kept.
pub const HISTORY_ROWS_MAX: usize = 2_000;
/// Most bytes of rows kept, escape sequences included.
pub const HISTORY_BYTES_MAX: usize = 512 * 1024;
/// Longest row kept, in bytes; what is longer is left out of the history (the ring has it).
const ROW_BYTES_MAX: usize = 16 * 1024;
/// Most memory of a row that is used again for another, in bytes.
const SPARE_BYTES_MAX: usize = 512;
/// End of each row.
const ROW_END: &str = "\x1b[m\r\n";

/// Rows, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    rows: VecDeque<String>,
    bytes: usize,
}

impl History {
    /// Keeps a row that scrolls off; the oldest ones go when there are too many.
    pub(crate) fn push(&mut self, cells: &[Cell]) {
        let count = shown(cells);
        let mut row = self.spare();
        row.reserve(count + ROW_END.len());
        // Each row begins and ends without attributes, so that any of them can be the first.
        write_cells(cells, count, &mut Ink::default(), &mut row);
        if row.len() > ROW_BYTES_MAX {
            return;
        }
        row.push_str(ROW_END);
        self.bytes += row.len();
        self.rows.push_back(row);
        while self.rows.len() > HISTORY_ROWS_MAX || self.bytes > HISTORY_BYTES_MAX {
            if self.oldest().is_none() {
                break;
            }
        }
    }

    /// Takes the oldest row out.
    fn oldest(&mut self) -> Option<String> {
        let oldest = self.rows.pop_front()?;
        self.bytes -= oldest.len();
        Some(oldest)
    }

    /// An empty row: when the history is full, in the memory of the one that goes next.
    fn spare(&mut self) -> String {
        if self.rows.len() < HISTORY_ROWS_MAX {
            return String::new();
        }
        let mut row = self.oldest().unwrap_or_default();
        row.clear();
        if row.capacity() > SPARE_BYTES_MAX {
            return String::new();
        }
        row
    }

    /// The rows, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = PaintedRow> + '_ {
        self.rows.iter().map(|row| PaintedRow::from_ansi(row))
    }

    /// The text of the newest `count` rows, oldest first.
    pub(crate) fn last_texts(&self, count: usize) -> impl Iterator<Item = String> + '_ {
        let skipped = self.rows.len().saturating_sub(count);
        self.rows.iter().skip(skipped).map(|row| plain(row))
    }

    /// What puts the rows into a viewer's scrollback: the rows, then as many line ends as its screen has rows, so that
    /// none of them stays where the screen will be painted.
    pub(crate) fn write(&self, screen_rows: u16, into: &mut Vec<u8>) {
        if self.rows.is_empty() {
            return;
        }
        into.reserve(self.bytes + usize::from(screen_rows) * 2);
        for row in &self.rows {
            into.extend_from_slice(row.as_bytes());
        }
        for _ in 0..screen_rows {
            into.extend_from_slice(b"\r\n");
        }
    }
}

/// A kept row without its escape sequences, which all end in `m`.
fn plain(row: &str) -> String {
    let row = row.strip_suffix(ROW_END).unwrap_or(row).trim_end();
    // Most rows have no colours.
    if !row.as_bytes().contains(&0x1b) {
        return row.to_owned();
    }
    let mut text = String::with_capacity(row.len());
    for (number, part) in row.split('\u{1b}').enumerate() {
        let shown = if number == 0 {
            part
        } else {
            part.split_once('m').map_or("", |(_, shown)| shown)
        };
        text.push_str(shown);
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::emulator::{Emulator, Size};
    use crate::ring::Ring;

    const SIZE: Size = Size { cols: 40, rows: 10 };

    fn fed(output: &str) -> Emulator {
        let mut ring = Ring::new(1024 * 1024);
        let mut emulator = Emulator::new(SIZE);
        for chunk in output.as_bytes().chunks(7) {
            ring.push(chunk);
            emulator.feed(chunk, &ring);
        }
        emulator
    }

    /// A viewer's own terminal after it has taken the snapshot; scrolled back by `back` rows.
    fn viewed(emulator: &Emulator, back: usize) -> String {
        let side = |cells| NonZeroU16::new(cells).unwrap();
        let mut viewer = vt100::Parser::new(side(SIZE.rows), side(SIZE.cols), 10_000);
        viewer.process(&emulator.snapshot().ansi);
        viewer.screen_mut().set_scrollback(back);
        viewer.screen().contents()
    }

    #[test]
    fn a_late_viewer_sees_the_screen_and_can_scroll_back_to_what_was_before() {
        let output: String = (0..100)
            .map(|n| format!("\x1b[3{}mline {n}\x1b[m\r\n", n % 8))
            .collect();
        let emulator = fed(&output);
        let screen = viewed(&emulator, 0);
        assert!(
            screen.contains("line 99") && screen.contains("line 91") && !screen.contains("line 90"),
            "{screen}"
        );
        let first = viewed(&emulator, usize::MAX);
        assert!(first.starts_with("line 0\nline 1\n"), "{first}");
        let ansi = String::from_utf8(emulator.snapshot().ansi).unwrap();
        assert!(
            ansi.contains("\u{1b}[33m") && ansi.contains("line 11"),
            "colours are kept"
        );
    }

    #[test]
    fn the_newest_rows_are_handed_out_as_text() {
        let output: String = (0..100)
            .map(|n| format!("\x1b[1;3{}mline\x1b[m {n}m\r\n", n % 8))
            .collect();
        let emulator = fed(&output);
        let rows = emulator.last_rows(30);
        assert_eq!(rows.len(), 30);
        assert_eq!(
            (rows[0].as_str(), rows[28].as_str(), rows[29].as_str()),
            ("line 71m", "line 99m", "")
        );
        assert_eq!(emulator.last_rows(3), ["line 98m", "line 99m", ""]);
        assert_eq!(emulator.last_rows(10_000).len(), 101);
    }

    #[test]
    fn rows_of_the_alternate_screen_are_not_kept() {
        let output: String = (0..50).map(|n| format!("pager {n}\r\n")).collect();
        let emulator = fed(&format!("before\r\n\x1b[?1049h{output}\x1b[?1049l"));
        assert!(!viewed(&emulator, usize::MAX).contains("pager"));
    }

    #[test]
    fn the_history_is_bounded_in_rows_and_bytes() {
        let short: String = (0..HISTORY_ROWS_MAX * 2).map(|n| format!("{n}\r\n")).collect();
        let snapshot = fed(&short).snapshot().ansi;
        let rows = String::from_utf8(snapshot).unwrap().matches("\x1b[m\r\n").count();
        assert!(
            (HISTORY_ROWS_MAX - 1..=HISTORY_ROWS_MAX + 1).contains(&rows),
            "{rows}"
        );
        let colourful: String = (0..4_000)
            .map(|_| "\x1b[31mx\x1b[32my".repeat(20) + "\r\n")
            .collect();
        assert!(fed(&colourful).snapshot().ansi.len() < HISTORY_BYTES_MAX + 64 * 1024);
    }
}

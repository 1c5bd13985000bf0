//! The emulated screen: what a person would see, as text. For readiness, dialogs and late viewers; decisions about
//! a turn never come from here.
//!
//! The engine may panic on hostile output and its state is not to be trusted after that: every call into it that
//! digests outside bytes is caught, and the screen is painted again from the output that is still kept.

use std::num::NonZeroU16;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vt100::capture::RowContents;

use crate::caught::caught;
use crate::flood::Flood;
use crate::history::History;
use crate::painted::{PaintedRow, Style};
use crate::ring::Ring;

/// Longest window title that is kept, in characters.
pub const TITLE_CHARS_MAX: usize = 256;
/// Largest screen that is emulated, per side. Beyond any display; bounds the memory of a screen.
const SIDE_CELLS_MAX: u16 = 1_000;
/// Smallest screen, per side: the engine needs room for one wide character.
const SIDE_CELLS_MIN: u16 = 2;
/// How much of the kept output is painted again after the engine gave up, in bytes.
const REPAINT_BYTES_MAX: usize = 256 * 1024;
/// What is lost at most where the engine gave up, in bytes: a chunk is painted again in pieces of this size.
const PIECE_BYTES: usize = 64;
/// Chunk in which kept output is painted: what a terminal's reader takes at once.
const PAINT_BYTES: usize = 8 * 1024;

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// This size, brought into what is emulated (2 to 1000 cells per side).
    pub fn clamped(self) -> Size {
        Size {
            cols: self.cols.clamp(SIDE_CELLS_MIN, SIDE_CELLS_MAX),
            rows: self.rows.clamp(SIDE_CELLS_MIN, SIDE_CELLS_MAX),
        }
    }
}

/// Where the cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Row, 0 at the top.
    pub row: u16,
    /// Column, 0 at the left.
    pub col: u16,
    /// Whether the program shows it.
    pub visible: bool,
}

/// The visible screen as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// One text per row, without trailing blanks and without any control character.
    pub rows: Vec<String>,
    /// The cursor.
    pub cursor: Cursor,
    /// The window title the program set, bounded and without control characters.
    pub title: String,
    /// Size.
    pub size: Size,
    /// All output before this absolute offset is painted.
    pub offset: u64,
}

/// What a viewer that comes late feeds to its own terminal to see what is on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Output from this absolute offset on continues the snapshot.
    pub offset: u64,
    /// Size of the screen it was made from.
    pub size: Size,
    /// Escape sequences and text: the rows that have scrolled off (see [`crate::HISTORY_ROWS_MAX`]), then the screen.
    pub ansi: Vec<u8>,
}

/// Catches the title and the rows that scroll off; everything else a program asks for beyond its screen (clipboard,
/// resize) is dropped here.
#[derive(Default)]
struct Beside {
    title: String,
    history: History,
    /// How it comes, and what of the history is still to be made.
    flood: Flood,
    /// Rows that scroll off are left to [`Emulator::catch_up`].
    defer: bool,
}

impl vt100::Callbacks for Beside {
    fn on_scroll(&mut self, contents: RowContents<'_>, alternate_screen: bool) {
        if alternate_screen {
            return;
        }
        if self.defer {
            self.flood.row();
        } else {
            self.history.push(&contents);
        }
    }

    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        self.title = String::from_utf8_lossy(title)
            .chars()
            .filter(|c| !c.is_control())
            .take(TITLE_CHARS_MAX)
            .collect();
    }
}

/// The engine and what is needed to start it anew.
pub(crate) struct Emulator {
    parser: vt100::Parser<Beside>,
    size: Size,
    offset: u64,
    /// Output before this offset made the engine panic and is not painted again.
    repaint_from: u64,
    rebuilds: u64,
}

impl Emulator {
    pub(crate) fn new(size: Size) -> Emulator {
        let size = size.clamped();
        Emulator {
            parser: parser(size, Beside::default()),
            size,
            offset: 0,
            repaint_from: 0,
            rebuilds: 0,
        }
    }

    /// [`feed`](Self::feed) for output that comes from a running program at the moment `now`: in a flood the rows that
    /// scroll off are not written down one by one, because nearly all of them will have been pushed out again before
    /// anybody looks. That is half of the work.
    pub(crate) fn feed_live(&mut self, chunk: &[u8], ring: &Ring, now: Instant) {
        if !self.parser.callbacks_mut().flood.goes_on(chunk.len(), now) {
            self.catch_up(self.offset, ring);
        } else if !self.parser.callbacks().defer {
            let screen = caught(|| self.parser.screen().state_formatted());
            let beside = self.parser.callbacks_mut();
            beside.flood.begin(self.offset, screen);
            beside.defer = true;
        }
        self.feed(chunk, ring);
    }

    /// Writes down the rows of a flood after all, up to the output before `upto`; they are made again from the output
    /// that is kept. To be called before anybody looks at the history.
    pub(crate) fn catch_up(&mut self, upto: u64, ring: &Ring) {
        let size = self.size;
        let beside = self.parser.callbacks_mut();
        if std::mem::take(&mut beside.defer) {
            let history = std::mem::take(&mut beside.history);
            beside.history = beside.flood.rows(history, size, upto, ring);
        }
    }

    /// Paints `chunk`, which starts at the offset reached so far and is in `ring` already.
    pub(crate) fn feed(&mut self, chunk: &[u8], ring: &Ring) {
        let before = self.offset;
        self.offset += chunk.len() as u64;
        if self.process(chunk) {
            return;
        }
        self.repaint(before, ring);
        let mut at = before;
        for piece in chunk.chunks(PIECE_BYTES) {
            let next = at + piece.len() as u64;
            if !self.process(piece) {
                self.repaint(at, ring);
                self.repaint_from = next;
            }
            at = next;
        }
    }

    /// False when the engine gave up; its state is not to be trusted then.
    fn process(&mut self, bytes: &[u8]) -> bool {
        let parser = &mut self.parser;
        caught(|| parser.process(bytes)).is_some()
    }

    pub(crate) fn resize(&mut self, size: Size, ring: &Ring) {
        self.catch_up(self.offset, ring);
        self.size = size.clamped();
        let (rows, cols) = sides(self.size);
        let parser = &mut self.parser;
        if caught(|| parser.set_size(rows, cols)).is_none() {
            self.repaint(self.offset, ring);
        }
    }

    /// A fresh engine that has seen the kept output up to `upto`, as far as it can digest it.
    fn repaint(&mut self, upto: u64, ring: &Ring) {
        self.rebuilds += 1;
        tracing::warn!(
            offset = self.offset,
            rebuilds = self.rebuilds,
            "the screen emulator gave up on some output and starts anew"
        );
        let from = upto
            .saturating_sub(REPAINT_BYTES_MAX as u64)
            .max(self.repaint_from);
        let run = ring.since(from, REPAINT_BYTES_MAX);
        let count = upto.saturating_sub(run.from).min(run.bytes.len() as u64) as usize;
        let beside = std::mem::take(self.parser.callbacks_mut());
        self.parser = parser(self.size, Beside::default());
        if !self.process(&run.bytes[..count]) {
            self.parser = parser(self.size, Beside::default());
        }
        // What the old output scrolls off once more is in the history already.
        *self.parser.callbacks_mut() = beside;
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// How often the engine gave up and was made anew.
    #[cfg(test)]
    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    pub(crate) fn screen(&self) -> Screen {
        let screen = self.parser.screen();
        let (row, col) = screen.cursor_position();
        let rows = caught(|| screen.rows(0, self.size.cols).map(plain_row).collect());
        Screen {
            rows: rows.unwrap_or_default(),
            cursor: Cursor {
                row,
                col,
                visible: !screen.hide_cursor(),
            },
            title: self.parser.callbacks().title.clone(),
            size: self.size,
            offset: self.offset,
        }
    }

    pub(crate) fn wants_pastes(&self) -> bool {
        self.parser.screen().bracketed_paste()
    }

    /// What has scrolled off, as far as it is kept, then the visible screen. Of the alternate screen, which has no
    /// history, only what is visible.
    pub(crate) fn rows(&self) -> Vec<PaintedRow> {
        let screen = self.parser.screen();
        let visible = caught(|| {
            (0..self.size.rows)
                .map(|row| painted_row(screen, row, self.size.cols))
                .collect::<Vec<_>>()
        });
        let mut rows: Vec<PaintedRow> = match screen.alternate_screen() {
            true => Vec::new(),
            false => self.parser.callbacks().history.rows().collect(),
        };
        rows.extend(visible.unwrap_or_default());
        rows
    }

    /// The text of the newest `count` rows: what has scrolled off, then the visible screen, oldest first.
    pub(crate) fn last_rows(&self, count: usize) -> Vec<String> {
        let mut screen = self.screen().rows;
        let skipped = screen.len().saturating_sub(count);
        screen.drain(..skipped);
        let history = &self.parser.callbacks().history;
        history.last_texts(count - screen.len()).chain(screen).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let screen = self.parser.screen();
        let painted = caught(|| screen.state_formatted());
        let mut ansi = Vec::new();
        self.parser.callbacks().history.write(self.size.rows, &mut ansi);
        ansi.extend(painted.unwrap_or_default().into_bytes());
        Snapshot {
            offset: self.offset,
            size: self.size,
            ansi,
        }
    }
}

/// Without blanks at its end, and without control characters, which hardly ever are there.
fn plain_row(mut row: String) -> String {
    row.truncate(row.trim_end().len());
    if row.chars().any(char::is_control) {
        row.retain(|c| !c.is_control());
    }
    row
}

fn painted_row(screen: &vt100::Screen, row: u16, cols: u16) -> PaintedRow {
    let mut painted = PaintedRow::default();
    for cell in (0..cols).filter_map(|col| screen.cell(row, col)) {
        let style = Style::from(cell);
        if cell.has_contents() {
            cell.contents().chars().for_each(|c| painted.push(c, style));
        } else if !cell.is_wide_continuation() {
            painted.push(' ', style);
        }
    }
    painted.trimmed()
}

/// A history that goes on with the rows which `output` scrolls off a screen that shows `start`.
pub(crate) fn scrolled_off(size: Size, start: &[u8], output: &[u8], history: History) -> History {
    let mut parser = parser(size, Beside::default());
    let _ = caught(|| parser.process(start));
    parser.callbacks_mut().history = history;
    // Where the engine gives up, the rows so far have to do.
    let _ = output
        .chunks(PAINT_BYTES)
        .try_for_each(|chunk| caught(|| parser.process(chunk)));
    std::mem::take(&mut parser.callbacks_mut().history)
}

fn parser(size: Size, beside: Beside) -> vt100::Parser<Beside> {
    let (rows, cols) = sides(size);
    vt100::Parser::new_with_callbacks(rows, cols, 0, beside)
}

/// Rows and columns as the engine wants them; `size` is clamped, so the fallback is never taken.
fn sides(size: Size) -> (NonZeroU16, NonZeroU16) {
    let side = |cells| NonZeroU16::new(cells).unwrap_or(NonZeroU16::MIN);
    (side(size.rows), side(size.cols))
}

/// The screen that a run of output paints: for recordings and for output that was kept from a terminal long gone.
pub fn paint(size: Size, output: &[u8]) -> Screen {
    let mut ring = Ring::new(REPAINT_BYTES_MAX);
    let mut emulator = Emulator::new(size);
    for chunk in output.chunks(PAINT_BYTES) {
        ring.push(chunk);
        emulator.feed(chunk, &ring);
    }
    emulator.screen()
}

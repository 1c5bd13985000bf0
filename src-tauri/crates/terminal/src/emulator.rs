//! The emulated screen: what a person would see, as text. For readiness, dialogs and late viewers; decisions about
//! a turn never come from here.
//!
//! No output is known that makes the engine panic. Should one come, its state is not to be trusted after that: every
//! call into it that digests outside bytes is caught, and the screen is painted again from the output that is kept.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::caught::caught;
use crate::cells;
use crate::engine::{Beside, Engine};
use crate::history::History;
use crate::painted::PaintedRow;
use crate::ring::Ring;
use crate::wire::Painting;

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

/// The engine and what is needed to start it anew.
pub(crate) struct Emulator {
    engine: Engine,
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
            engine: Engine::new(size, Beside::default()),
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
        if !self.engine.beside_mut().flood.goes_on(chunk.len(), now) {
            self.catch_up(self.offset, ring);
        } else if !self.engine.beside().defer {
            let screen = caught(|| self.engine.painting());
            let beside = self.engine.beside_mut();
            beside.flood.begin(self.offset, screen);
            beside.defer = true;
        }
        self.feed(chunk, ring);
    }

    /// Writes down the rows of a flood after all, up to the output before `upto`; they are made again from the output
    /// that is kept. To be called before anybody looks at the history.
    pub(crate) fn catch_up(&mut self, upto: u64, ring: &Ring) {
        let size = self.size;
        let beside = self.engine.beside_mut();
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
        let engine = &mut self.engine;
        caught(|| engine.process(bytes)).is_some()
    }

    pub(crate) fn resize(&mut self, size: Size, ring: &Ring) {
        self.catch_up(self.offset, ring);
        self.size = size.clamped();
        let (size, engine) = (self.size, &mut self.engine);
        if caught(|| engine.resize(size)).is_none() {
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
        let beside = std::mem::take(self.engine.beside_mut());
        self.engine = Engine::new(self.size, Beside::default());
        if !self.process(&run.bytes[..count]) {
            self.engine = Engine::new(self.size, Beside::default());
        }
        // What the old output scrolls off once more is in the history already.
        *self.engine.beside_mut() = beside;
    }

    /// Output goes on at `offset`, and what was before it is not known: nothing of the screen is to be trusted. The
    /// history stays.
    pub(crate) fn skip_to(&mut self, offset: u64, ring: &Ring) {
        self.catch_up(self.offset, ring);
        let beside = std::mem::take(self.engine.beside_mut());
        self.engine = Engine::new(self.size, beside);
        self.offset = offset;
        self.repaint_from = offset;
    }

    /// What shows this screen, with its modes, on one that may show anything.
    pub(crate) fn painting(&self) -> Painting {
        let title = &self.engine.beside().title;
        let mut ansi = String::from("\x18\x1b[?6l\x1b[4l\x1b[r");
        ansi.push_str(match self.engine.is_alternate() {
            true => "\x1b[?1049h",
            false => "\x1b[?1049l",
        });
        ansi.push_str(&format!("\x1b]2;{title}\x07"));
        ansi.push_str(&caught(|| self.engine.painting()).unwrap_or_default());
        ansi.push_str(&self.engine.margins_and_cursor());
        Painting {
            offset: self.offset,
            ansi: ansi.into_bytes(),
        }
    }

    /// Shows what was on the screen at this very offset; false when it does not fit, or cannot be shown.
    pub(crate) fn show(&mut self, painting: &Painting, ring: &Ring) -> bool {
        if painting.offset != self.offset {
            return false;
        }
        self.catch_up(self.offset, ring);
        let shown = self.process(&painting.ansi);
        if !shown {
            self.repaint(self.offset, ring);
        }
        shown
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
        let (row, col) = self.engine.cursor();
        let rows = caught(|| self.engine.rows().map(cells::text).collect());
        Screen {
            rows: rows.unwrap_or_default(),
            cursor: Cursor {
                row,
                col,
                visible: self.engine.shows_cursor(),
            },
            title: self.engine.beside().title.clone(),
            size: self.size,
            offset: self.offset,
        }
    }

    pub(crate) fn wants_pastes(&self) -> bool {
        self.engine.wants_pastes()
    }

    /// What has scrolled off, as far as it is kept, then the visible screen. Of the alternate screen, which has no
    /// history, only what is visible.
    pub(crate) fn rows(&self) -> Vec<PaintedRow> {
        let visible = caught(|| self.engine.rows().map(cells::painted).collect::<Vec<_>>());
        let mut rows: Vec<PaintedRow> = match self.engine.is_alternate() {
            true => Vec::new(),
            false => self.engine.beside().history.rows().collect(),
        };
        rows.extend(visible.unwrap_or_default());
        rows
    }

    /// The text of the newest `count` rows: what has scrolled off, then the visible screen, oldest first.
    pub(crate) fn last_rows(&self, count: usize) -> Vec<String> {
        let mut screen = self.screen().rows;
        let skipped = screen.len().saturating_sub(count);
        screen.drain(..skipped);
        let history = &self.engine.beside().history;
        history.last_texts(count - screen.len()).chain(screen).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let painting = caught(|| self.engine.painting());
        let mut ansi = Vec::new();
        self.engine.beside().history.write(self.size.rows, &mut ansi);
        ansi.extend(painting.unwrap_or_default().into_bytes());
        Snapshot {
            offset: self.offset,
            size: self.size,
            ansi,
        }
    }
}

/// A history that goes on with the rows which `output` scrolls off a screen that shows `start`.
pub(crate) fn scrolled_off(size: Size, start: &[u8], output: &[u8], history: History) -> History {
    let mut engine = Engine::new(size, Beside::default());
    let _ = caught(|| engine.process(start));
    engine.beside_mut().history = history;
    // Where the engine gives up, the rows so far have to do.
    let _ = output
        .chunks(PAINT_BYTES)
        .try_for_each(|chunk| caught(|| engine.process(chunk)));
    std::mem::take(&mut engine.beside_mut().history)
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

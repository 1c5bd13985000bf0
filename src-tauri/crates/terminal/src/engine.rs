//! The screen engine: `alacritty_terminal`'s grid, without its scrollback, its PTY and its event loop. A row that
//! leaves the screen at its top goes into our own history, before the engine forgets it.
//!
//! It answers no query, touches no clipboard and follows no link: what a program asks for beyond its screen ends here.
//! Only [`crate::emulator`] calls it, and catches its panics.

use std::time::Duration;

use alacritty_terminal::Term;
use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::{Dimensions, Grid};
use alacritty_terminal::index::Line;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::term::{Config, TermMode};
use alacritty_terminal::vte::ansi::{
    Attr, ClearMode, CursorShape, CursorStyle, Handler, LineClearMode, Mode, NamedPrivateMode, PrivateMode,
    Processor, TabulationClearMode, Timeout,
};
use unicode_width::UnicodeWidthChar;

use crate::cells::{self, Ink, write_cells};
use crate::emulator::{Size, TITLE_CHARS_MAX};
use crate::flood::Flood;
use crate::history::{HISTORY_ROWS_MAX, History};

/// Most characters without a width of their own on top of one cell; more are dropped.
const ZERO_WIDTH_MAX: usize = 8;
/// Longest string in a sequence that the parser may collect, in bytes: clipboards, pictures, and what never ends. Far
/// beyond any title.
const STRING_BYTES_MAX: usize = 256 * 1024;
/// The mode that shows the alternate screen, 1049.
const ALTERNATE_SCREEN: PrivateMode = PrivateMode::Named(NamedPrivateMode::SwapScreenAndSetRestoreCursor);
/// Two older numbers of it, which the engine does not know, and that of saving the cursor (xterm's control sequences,
/// DECSET).
const ALTERNATE_SCREENS: [u16; 2] = [47, 1047];
const SAVED_CURSOR: u16 = 1048;

/// Frames between `?2026h` and `?2026l` are painted as they come and not held back: all output before an offset is on
/// the screen, also of a program that was stopped in the middle of a frame.
#[derive(Default)]
struct NothingHeldBack;

impl Timeout for NothingHeldBack {
    fn set_timeout(&mut self, _: Duration) {}
    fn clear_timeout(&mut self) {}
    fn pending_timeout(&self) -> bool {
        false
    }
}

struct Sides(Size);

impl Dimensions for Sides {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }
    fn screen_lines(&self) -> usize {
        usize::from(self.0.rows)
    }
    fn columns(&self) -> usize {
        usize::from(self.0.cols)
    }
}

/// What is kept beside the screen, and outlives an engine that gave up.
#[derive(Default)]
pub(crate) struct Beside {
    /// The window title, bounded and without control characters.
    pub(crate) title: String,
    pub(crate) history: History,
    /// How the output comes, and what of the history is still to be made.
    pub(crate) flood: Flood,
    /// Rows that scroll off are left to be made later.
    pub(crate) defer: bool,
}

/// Parser and screen.
pub(crate) struct Engine {
    processor: Processor<NothingHeldBack>,
    /// How much has come since a string began, or more; the parser keeps it all.
    swallowed: usize,
    surface: Surface,
}

impl Engine {
    /// `size` is clamped already.
    pub(crate) fn new(size: Size, beside: Beside) -> Engine {
        let config = Config {
            scrolling_history: 0,
            ..Config::default()
        };
        let mut surface = Surface {
            term: Term::new(config, &Sides(size), VoidListener),
            margins: (0, i32::from(size.rows)),
            cursor_style: None,
            printed: false,
            beside,
        };
        surface.drop_alternate();
        Engine {
            processor: Processor::new(),
            swallowed: 0,
            surface,
        }
    }

    pub(crate) fn process(&mut self, bytes: &[u8]) {
        self.surface.printed = false;
        self.processor.advance(&mut self.surface, bytes);
        // Letters of which none is printed are part of a string, if nothing can have ended it (BEL, CAN, SUB, ESC).
        if self.surface.printed || bytes.iter().any(|byte| matches!(byte, 0x07 | 0x18 | 0x1a | 0x1b)) {
            self.swallowed = 0;
            return;
        }
        self.swallowed += bytes.iter().filter(|byte| **byte >= b' ').count();
        if self.swallowed > STRING_BYTES_MAX {
            // The rest is swallowed by a new parser, which begins within a string.
            self.swallowed = 0;
            self.processor = Processor::new();
            self.processor.advance(&mut self.surface, b"\x1b]");
        }
    }

    pub(crate) fn beside(&self) -> &Beside {
        &self.surface.beside
    }

    pub(crate) fn beside_mut(&mut self) -> &mut Beside {
        &mut self.surface.beside
    }

    fn has_mode(&self, mode: TermMode) -> bool {
        self.surface.term.mode().contains(mode)
    }

    pub(crate) fn is_alternate(&self) -> bool {
        self.has_mode(TermMode::ALT_SCREEN)
    }

    pub(crate) fn wants_pastes(&self) -> bool {
        self.has_mode(TermMode::BRACKETED_PASTE)
    }

    pub(crate) fn shows_cursor(&self) -> bool {
        self.has_mode(TermMode::SHOW_CURSOR)
    }

    /// Row and column; the column is that behind the last one when the next character goes into the next row.
    pub(crate) fn cursor(&self) -> (u16, u16) {
        let cursor = &self.surface.term.grid().cursor;
        let row = u16::try_from(cursor.point.line.0).unwrap_or(0);
        let col = cursor.point.column.0 + usize::from(cursor.input_needs_wrap);
        (row, u16::try_from(col).unwrap_or(u16::MAX))
    }

    /// The cells of the visible rows, from the top.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        visible(self.surface.term.grid())
    }

    /// Changes the size. Lines that were wrapped are wrapped anew; what has no room any more goes into the history,
    /// whose rows stay as they are and never come back onto the screen.
    pub(crate) fn resize(&mut self, size: Size) {
        self.surface.resize(size);
    }

    /// What paints the visible screen on another terminal: its cells, the cursor, and the modes that decide about
    /// input.
    pub(crate) fn painting(&self) -> String {
        let mut ansi = String::new();
        ansi.push_str(match self.shows_cursor() {
            true => "\x1b[?25h",
            false => "\x1b[?25l",
        });
        ansi.push_str("\x1b[m\x1b[H\x1b[J");
        let mut ink = Ink::default();
        let mut flows = false;
        for (number, row) in self.rows().enumerate() {
            // A line that was wrapped is written in one go, so that the other terminal knows that it is one.
            let wrapped = row
                .last()
                .is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE));
            let shown = match wrapped {
                true => row.len(),
                false => cells::shown(row),
            };
            if shown > 0 && !flows {
                ansi.push_str(&format!("\x1b[{};1H", number + 1));
            }
            write_cells(row, shown, &mut ink, &mut ansi);
            flows = wrapped
                && self
                    .rows()
                    .nth(number + 1)
                    .is_some_and(|next| continues(row, next));
        }
        self.write_cursor(&mut ink, &mut ansi);
        self.write_modes(&mut ansi);
        ansi
    }

    fn write_cursor(&self, ink: &mut Ink, ansi: &mut String) {
        let cursor = &self.surface.term.grid().cursor;
        let row = &self.surface.term.grid()[cursor.point.line][..];
        let mut col = cursor.point.column.0;
        if cursor.input_needs_wrap && col > 0 && cells::is_wide(row, col - 1) {
            col -= 1;
        }
        ansi.push_str(&format!("\x1b[{};{}H", cursor.point.line.0 + 1, col + 1));
        if cursor.input_needs_wrap {
            // Only a character in the last column brings it there.
            let before = ansi.len();
            cells::write_cell(row, col, ink, ansi);
            if ansi.len() == before {
                ansi.push(' ');
            }
        }
        ink.change(Ink::of(&cursor.template), ansi);
    }

    /// Where only some rows scroll: which, and once more where the cursor is, because setting them moves it.
    pub(crate) fn margins_and_cursor(&self) -> String {
        let rows = i32::try_from(self.surface.term.screen_lines()).unwrap_or(0);
        let (top, bottom) = self.surface.margins;
        if (top, bottom) == (0, rows) {
            return String::new();
        }
        let cursor = self.surface.term.grid().cursor.point;
        let (row, col) = (cursor.line.0 + 1, cursor.column.0 + 1);
        format!("\x1b[{};{bottom}r\x1b[{row};{col}H", top + 1)
    }

    fn write_modes(&self, ansi: &mut String) {
        let mode = |mode| self.has_mode(mode);
        ansi.push_str(if mode(TermMode::APP_KEYPAD) {
            "\x1b="
        } else {
            "\x1b>"
        });
        let switches = [(TermMode::APP_CURSOR, "1"), (TermMode::BRACKETED_PASTE, "2004")];
        for (switch, number) in switches {
            let on = if mode(switch) { 'h' } else { 'l' };
            ansi.push_str(&format!("\x1b[?{number}{on}"));
        }
        let choices = [
            (TermMode::MOUSE_REPORT_CLICK, "1000"),
            (TermMode::MOUSE_DRAG, "1002"),
            (TermMode::MOUSE_MOTION, "1003"),
            (TermMode::UTF8_MOUSE, "1005"),
            (TermMode::SGR_MOUSE, "1006"),
        ];
        for (_, number) in choices.iter().filter(|(choice, _)| mode(*choice)) {
            ansi.push_str(&format!("\x1b[?{number}h"));
        }
        if let Some(style) = self.surface.cursor_style {
            let steady = match style.shape {
                CursorShape::Underline => 4,
                CursorShape::Beam => 6,
                _ => 2,
            };
            ansi.push_str(&format!("\x1b[{} q", steady - u8::from(style.blinking)));
        }
    }
}

fn visible(grid: &Grid<Cell>) -> impl Iterator<Item = &[Cell]> {
    (0..grid.screen_lines()).map(|line| &grid[Line::from(line)][..])
}

/// A cursor that was behind the last column may now be in the middle of a row, where the next character has room.
fn settle_cursors(grid: &mut Grid<Cell>) {
    let columns = grid.columns();
    for cursor in [&mut grid.cursor, &mut grid.saved_cursor] {
        if cursor.input_needs_wrap && cursor.point.column.0 + 1 < columns {
            cursor.input_needs_wrap = false;
            cursor.point.column += 1;
        }
    }
}

/// Whether a terminal that has written `row` to its end goes on into `next` by itself.
fn continues(row: &[Cell], next: &[Cell]) -> bool {
    let left_free = row
        .last()
        .is_some_and(|cell| cell.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER));
    cells::shown(next) > 0 && (!left_free || cells::is_wide(next, 0))
}

/// The engine's screen, and between it and the parser: us.
struct Surface {
    term: Term<VoidListener>,
    /// First row and row behind the last one of what scrolls, as the engine has them.
    margins: (i32, i32),
    cursor_style: Option<CursorStyle>,
    /// Whether a character has come.
    printed: bool,
    beside: Beside,
}

impl Surface {
    fn is_alternate(&self) -> bool {
        self.term.mode().contains(TermMode::ALT_SCREEN)
    }

    /// Whether the next line feed scrolls.
    #[inline]
    fn at_bottom(&self) -> bool {
        self.term.grid().cursor.point.line.0 + 1 == self.margins.1
    }

    /// The uppermost `count` of the rows that scroll are about to leave.
    fn leaving(&mut self, count: usize) {
        let (top, bottom) = self.margins;
        if top != 0 || self.is_alternate() {
            return;
        }
        let count = count.min(usize::try_from(bottom).unwrap_or(0));
        if self.beside.defer {
            self.beside.flood.rows_left(count);
            return;
        }
        for line in 0..count {
            self.beside.history.push(&self.term.grid()[Line::from(line)][..]);
        }
    }

    /// Before a character that may not fit into its row any more.
    #[cold]
    fn at_right_edge(&mut self, c: char) {
        let cursor = &self.term.grid().cursor;
        let wraps = match c.width() {
            None | Some(0) => false,
            Some(1) => cursor.input_needs_wrap,
            Some(_) => true,
        };
        if wraps && self.at_bottom() && self.term.mode().contains(TermMode::LINE_WRAP) {
            self.leaving(1);
        }
    }

    /// Whether there is still room on the cell that a character without a width would go onto.
    fn bears_more(&self) -> bool {
        let cursor = &self.term.grid().cursor;
        let row = &self.term.grid()[cursor.point.line][..];
        let col = cursor.point.column.0;
        let before = if cursor.input_needs_wrap {
            col
        } else {
            col.saturating_sub(1)
        };
        let on_spacer = |col: usize| {
            row.get(col)
                .is_some_and(|cell| cell.flags.contains(Flags::WIDE_CHAR_SPACER))
        };
        let at = if on_spacer(before) {
            before.saturating_sub(1)
        } else {
            before
        };
        row.get(at)
            .and_then(Cell::zerowidth)
            .is_none_or(|there| there.len() < ZERO_WIDTH_MAX)
    }

    /// Shows the alternate screen, which is made empty each time, or that below it. The engine would keep both for ever,
    /// although few programs have two.
    fn show_alternate(&mut self, on: bool) {
        if self.is_alternate() == on {
            return;
        }
        let (rows, cols) = (self.term.screen_lines(), self.term.columns());
        self.term.swap_alt();
        if !on {
            self.drop_alternate();
            return;
        }
        let mut grid = Grid::new(rows, cols, 0);
        grid.cursor = self.term.grid().cursor.clone();
        grid.saved_cursor = self.term.grid().saved_cursor.clone();
        grid.reset_region(..);
        *self.term.grid_mut() = grid;
    }

    /// While the alternate screen is not shown, there is next to none.
    fn drop_alternate(&mut self) {
        let saved = self.term.grid().saved_cursor.clone();
        self.term.swap_alt();
        *self.term.grid_mut() = Grid::new(1, 1, 0);
        self.term.swap_alt();
        self.term.grid_mut().saved_cursor = saved;
    }

    fn resize(&mut self, size: Size) {
        let (rows, cols) = (usize::from(size.rows), usize::from(size.cols));
        if (self.term.screen_lines(), self.term.columns()) == (rows, cols) {
            return;
        }
        // The screen below the alternate one is changed as if that were not there.
        let alternate = self.is_alternate().then(|| self.term.grid().clone());
        self.show_alternate(false);
        self.term.grid_mut().update_history(HISTORY_ROWS_MAX);
        self.term.resize(Sides(size));
        self.use_room_below(size);
        let grid = self.term.grid();
        for line in (1..=grid.history_size()).rev() {
            let line = i32::try_from(line).unwrap_or(0);
            self.beside.history.push(&grid[Line(-line)][..]);
        }
        self.term.grid_mut().update_history(0);
        // Growing leaves a thousand spare rows.
        self.term.grid_mut().truncate();
        settle_cursors(self.term.grid_mut());
        match alternate {
            Some(mut grid) => {
                grid.resize(false, rows, cols);
                grid.truncate();
                settle_cursors(&mut grid);
                self.show_alternate(true);
                *self.term.grid_mut() = grid;
            }
            None => self.drop_alternate(),
        }
        self.margins = (0, i32::from(size.rows));
    }
}

impl Surface {
    /// Lines that take more rows now have pushed others off, although there may be room below them: they come back.
    fn use_room_below(&mut self, size: Size) {
        let grid = self.term.grid();
        let used = visible(grid).collect::<Vec<_>>();
        let blank = used.iter().rev().take_while(|row| cells::shown(row) == 0).count();
        let below = used
            .len()
            .saturating_sub(usize::try_from(grid.cursor.point.line.0).unwrap_or(0) + 1);
        let room = blank.min(below).min(grid.history_size());
        if room > 0 {
            // A lower screen loses its blank rows, a higher one gets back what is above.
            let rows = size
                .rows
                .saturating_sub(u16::try_from(room).unwrap_or(u16::MAX))
                .max(1);
            self.term.resize(Sides(Size { rows, ..size }));
            self.term.resize(Sides(size));
        }
    }
}

/// Hands what the parser reads on to the engine as it is.
macro_rules! as_it_is {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(#[inline]
        fn $name(&mut self, $($argument: $kind),*) {
            self.term.$name($($argument),*);
        })*
    };
}

/// What is not here is dropped: queries, the clipboard, links, colours of the palette, keyboard protocols.
// Other character sets are left out: one stray byte of binary output (SO, `ESC ( 0`) would turn every letter after it
// into a line-drawing sign, and the box, the prompt's echo and the marker with them.
impl Handler for Surface {
    as_it_is! {
        goto(line: i32, col: usize);
        goto_line(line: i32);
        goto_col(col: usize);
        insert_blank(count: usize);
        move_up(rows: usize);
        move_down(rows: usize);
        move_forward(cols: usize);
        move_backward(cols: usize);
        move_down_and_cr(rows: usize);
        move_up_and_cr(rows: usize);
        backspace();
        carriage_return();
        set_horizontal_tabstop();
        scroll_down(rows: usize);
        insert_blank_lines(count: usize);
        delete_lines(count: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        move_forward_tabs(count: u16);
        save_cursor_position();
        restore_cursor_position();
        clear_line(mode: LineClearMode);
        clear_tabs(mode: TabulationClearMode);
        reverse_index();
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        decaln();
    }

    #[inline]
    fn input(&mut self, c: char) {
        self.printed = true;
        let cursor = &self.term.grid().cursor;
        if cursor.input_needs_wrap || (!c.is_ascii() && cursor.point.column.0 + 1 >= self.term.columns()) {
            self.at_right_edge(c);
        }
        if has_no_width(c) && !self.bears_more() {
            return;
        }
        self.term.input(c);
    }

    #[inline]
    fn linefeed(&mut self) {
        if self.at_bottom() {
            self.leaving(1);
        }
        self.term.linefeed();
    }

    fn newline(&mut self) {
        if self.at_bottom() {
            self.leaving(1);
        }
        self.term.newline();
    }

    fn scroll_up(&mut self, rows: usize) {
        self.leaving(rows);
        self.term.scroll_up(rows);
    }

    /// The engine would leave the tab in the cell, and go into the next row with one behind the last column.
    fn put_tab(&mut self, count: u16) {
        self.term.move_forward_tabs(count);
    }

    /// The engine would take the cursor for one behind the last column still.
    fn move_backward_tabs(&mut self, count: u16) {
        self.term.move_backward_tabs(count);
        self.term.grid_mut().cursor.input_needs_wrap = false;
    }

    /// The engine would scroll the whole screen off, which is no output but a picture that is painted anew.
    fn clear_screen(&mut self, mode: ClearMode) {
        match mode {
            ClearMode::All => self.term.grid_mut().reset_region(..),
            ClearMode::Saved => {}
            ClearMode::Above => {
                // With the cursor in the second row the engine forgets the first.
                let line = self.term.grid().cursor.point.line;
                self.term.grid_mut().reset_region(..line);
                self.term.clear_screen(mode);
            }
            ClearMode::Below => self.term.clear_screen(mode),
        }
    }

    fn reset_state(&mut self) {
        self.term.reset_state();
        self.drop_alternate();
        self.margins = (0, i32::try_from(self.term.screen_lines()).unwrap_or(0));
        self.cursor_style = None;
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        self.term.set_scrolling_region(top, bottom);
        let rows = self.term.screen_lines();
        let bottom = bottom.unwrap_or(rows);
        if top < bottom {
            let row = |number: usize| i32::try_from(number.min(rows)).unwrap_or(0);
            self.margins = (row(top.saturating_sub(1)), row(bottom));
        }
    }

    #[inline]
    fn terminal_attribute(&mut self, attr: Attr) {
        let flags = &mut self.term.grid_mut().cursor.template.flags;
        match attr {
            // One intensity at a time, the newest.
            Attr::Bold => flags.remove(Flags::DIM),
            Attr::Dim => flags.remove(Flags::BOLD),
            // A colour of the line alone is shown to nobody, and costs memory in each cell. The other means a double line
            // to most terminals and nothing to programs.
            Attr::UnderlineColor(_) | Attr::CancelBold => return,
            _ => {}
        }
        self.term.terminal_attribute(attr);
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            ALTERNATE_SCREEN => self.show_alternate(true),
            PrivateMode::Unknown(number) if ALTERNATE_SCREENS.contains(&number) => self.show_alternate(true),
            PrivateMode::Unknown(SAVED_CURSOR) => self.term.save_cursor_position(),
            _ => self.term.set_private_mode(mode),
        }
        self.column_mode(mode);
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            ALTERNATE_SCREEN => self.show_alternate(false),
            PrivateMode::Unknown(number) if ALTERNATE_SCREENS.contains(&number) => self.show_alternate(false),
            PrivateMode::Unknown(SAVED_CURSOR) => self.term.restore_cursor_position(),
            _ => self.term.unset_private_mode(mode),
        }
        self.column_mode(mode);
    }

    fn set_cursor_style(&mut self, style: Option<CursorStyle>) {
        self.cursor_style = style;
    }

    /// No output is known that makes this engine give up: in our tests this character does.
    #[cfg(test)]
    fn substitute(&mut self) {
        panic!("as an engine that gives up");
    }

    fn set_title(&mut self, title: Option<String>) {
        self.beside.title = title
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(TITLE_CHARS_MAX)
            .collect();
    }
}

impl Surface {
    /// Setting the width, either way, takes the margins away.
    fn column_mode(&mut self, mode: PrivateMode) {
        if matches!(mode, PrivateMode::Named(NamedPrivateMode::ColumnMode)) {
            self.margins = (0, i32::try_from(self.term.screen_lines()).unwrap_or(0));
        }
    }
}

/// Whether a character goes onto the one before it. Quick for what is common.
#[inline]
fn has_no_width(c: char) -> bool {
    // ASCII and Latin; lines and boxes; Chinese, Japanese and Korean.
    !matches!(c, '\0'..='\u{2ff}' | '\u{2500}'..='\u{25ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
        && c.width() == Some(0)
}

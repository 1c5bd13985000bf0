//! Painted rows with their attributes, and a screen without a process: for recordings, and for whoever must tell by
//! colour what letters alone do not (an error of the program from a quotation of it, code from text).
//!
//! It never decides what a row means. `provider` reads the rows, `session` feeds recordings.

use crate::emulator::{Emulator, Screen, Size};
use crate::ring::Ring;

/// Output kept for painting again, in bytes: as much as a screen is painted again from.
const KEPT_BYTES: usize = 256 * 1024;

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    /// The terminal's own.
    #[default]
    Default,
    /// One of the 256.
    Index(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How a run of characters is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colour of the letters.
    pub fg: Colour,
    /// Colour behind them.
    pub bg: Colour,
    /// Bold.
    pub bold: bool,
    /// Faint.
    pub dim: bool,
    /// Italic.
    pub italic: bool,
    /// Underlined.
    pub underline: bool,
    /// Colours exchanged.
    pub inverse: bool,
}

/// Characters that follow each other and are painted alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How many characters.
    pub chars: usize,
    /// How they are painted.
    pub style: Style,
}

/// One row, without blanks at its end and without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PaintedRow {
    /// Its text.
    pub text: String,
    /// Its attributes; the characters of all runs together are those of `text`.
    pub runs: Vec<Run>,
}

impl PaintedRow {
    /// A row without attributes.
    pub fn plain(text: &str) -> PaintedRow {
        let mut row = PaintedRow::default();
        for c in text.trim_end().chars() {
            row.push(c, Style::default());
        }
        row
    }

    /// The style of the character at that index.
    pub fn style_at(&self, index: usize) -> Option<Style> {
        let mut end = 0;
        self.runs.iter().find_map(|run| {
            end += run.chars;
            (index < end).then_some(run.style)
        })
    }

    /// From text with SGR sequences, as rows of the history are kept. Anything else in it is dropped.
    pub(crate) fn from_ansi(ansi: &str) -> PaintedRow {
        let mut row = PaintedRow::default();
        let mut style = Style::default();
        let mut chars = ansi.chars();
        while let Some(c) = chars.next() {
            if c != '\u{1b}' {
                row.push(c, style);
                continue;
            }
            let body: String = chars.by_ref().skip(1).take_while(|c| *c != 'm').collect();
            style = style.after(&body);
        }
        row.trimmed()
    }

    pub(crate) fn push(&mut self, c: char, style: Style) {
        if c.is_control() {
            return;
        }
        self.text.push(c);
        match self.runs.last_mut() {
            Some(run) if run.style == style => run.chars += 1,
            Some(_) | None => self.runs.push(Run { chars: 1, style }),
        }
    }

    pub(crate) fn trimmed(mut self) -> PaintedRow {
        let kept = self.text.trim_end().len();
        let mut gone = self.text[kept..].chars().count();
        self.text.truncate(kept);
        while gone > 0 {
            let Some(run) = self.runs.last_mut() else { break };
            let taken = run.chars.min(gone);
            run.chars -= taken;
            gone -= taken;
            if run.chars == 0 {
                self.runs.pop();
            }
        }
        self
    }
}

impl Style {
    /// This style after the parameters of an SGR sequence (ECMA-48 8.3.117); unknown ones change nothing.
    fn after(self, parameters: &str) -> Style {
        let mut style = self;
        let mut numbers = parameters.split(';').map(|number| number.parse().unwrap_or(0u8));
        while let Some(number) = numbers.next() {
            match number {
                0 => style = Style::default(),
                1 => style.bold = true,
                2 => style.dim = true,
                3 => style.italic = true,
                4 => style.underline = true,
                7 => style.inverse = true,
                22 => (style.bold, style.dim) = (false, false),
                23 => style.italic = false,
                24 => style.underline = false,
                27 => style.inverse = false,
                30..=37 => style.fg = Colour::Index(number - 30),
                39 => style.fg = Colour::Default,
                40..=47 => style.bg = Colour::Index(number - 40),
                49 => style.bg = Colour::Default,
                90..=97 => style.fg = Colour::Index(number - 90 + 8),
                100..=107 => style.bg = Colour::Index(number - 100 + 8),
                38 => style.fg = extended(&mut numbers).unwrap_or(style.fg),
                48 => style.bg = extended(&mut numbers).unwrap_or(style.bg),
                _ => {}
            }
        }
        style
    }
}

fn extended(numbers: &mut impl Iterator<Item = u8>) -> Option<Colour> {
    match numbers.next()? {
        5 => numbers.next().map(Colour::Index),
        2 => Some(Colour::Rgb(numbers.next()?, numbers.next()?, numbers.next()?)),
        _ => None,
    }
}

/// A screen that is painted from recorded output, by the same engine as a terminal's own.
pub struct Painter {
    emulator: Emulator,
    ring: Ring,
}

impl Painter {
    /// An empty screen.
    pub fn new(size: Size) -> Painter {
        Painter {
            emulator: Emulator::new(size),
            ring: Ring::new(KEPT_BYTES),
        }
    }

    /// Paints more output.
    pub fn feed(&mut self, output: &[u8]) {
        self.ring.push(output);
        self.emulator.feed(output, &self.ring);
    }

    /// Paints more output that comes from a running program at the moment `now`; of a flood the rows that scroll off are
    /// made when the output pauses.
    pub fn feed_live(&mut self, output: &[u8], now: std::time::Instant) {
        self.ring.push(output);
        self.emulator.feed_live(output, &self.ring, now);
    }

    /// Changes the size.
    pub fn resize(&mut self, size: Size) {
        self.emulator.resize(size, &self.ring);
    }

    /// The visible screen.
    pub fn screen(&self) -> Screen {
        self.emulator.screen()
    }

    /// Whether the program wants to be told what is pasted: every full-screen program does, from its start to its end.
    pub fn wants_pastes(&self) -> bool {
        self.emulator.wants_pastes()
    }

    /// The text of the newest `count` rows: what has scrolled off, then the visible screen, oldest first.
    pub fn last_rows(&self, count: usize) -> Vec<String> {
        self.emulator.last_rows(count)
    }

    /// What has scrolled off, as far as it is kept, then the visible screen.
    pub fn rows(&self) -> Vec<PaintedRow> {
        self.emulator.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { cols: 20, rows: 4 };

    fn painted(output: &str) -> Vec<PaintedRow> {
        let mut painter = Painter::new(SIZE);
        for piece in output.as_bytes().chunks(3) {
            painter.feed(piece);
        }
        painter.rows()
    }

    #[test]
    fn a_row_keeps_its_attributes_when_it_scrolls_off() {
        let row = "a \x1b[38;5;220;1mb\x1b[m \x1b[38;2;1;2;3;48;5;9;4mc\x1b[39;49;24md\x1b[m   \r\n";
        let on_screen = painted(row)[0].clone();
        assert_eq!(on_screen.text, "a b cd");
        let scrolled = painted(&format!("{row}1\r\n2\r\n3\r\n4\r\n"))[0].clone();
        assert_eq!(scrolled, on_screen);
        let style = |index| on_screen.style_at(index).unwrap();
        assert_eq!((style(2).fg, style(2).bold), (Colour::Index(220), true));
        assert_eq!(
            (style(4).fg, style(4).bg),
            (Colour::Rgb(1, 2, 3), Colour::Index(9))
        );
        assert!(style(4).underline && style(5) == Style::default());
        assert_eq!(on_screen.style_at(6), None);
    }

    #[test]
    fn wide_characters_count_once_and_a_plain_row_has_one_run() {
        let rows = painted("완료 [x]\r\n");
        assert_eq!(rows[0], PaintedRow::plain("완료 [x]"));
        assert_eq!(rows[0].runs.len(), 1);
        assert_eq!(rows.len(), usize::from(SIZE.rows));
    }

    #[test]
    fn no_sequence_in_a_kept_row_makes_it_panic() {
        for ansi in [
            "\u{1b}",
            "\u{1b}[",
            "\u{1b}[38;5",
            "\u{1b}[38;9;m",
            "\u{1b}[999;;m x",
            "\u{1b}[48;2;1m",
        ] {
            PaintedRow::from_ansi(ansi);
        }
    }
}

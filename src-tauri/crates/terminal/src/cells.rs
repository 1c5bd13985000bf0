//! What the engine's cells show: text, text with attributes, and the escape sequences that paint them again.

use std::ops::Range;

use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{Color, NamedColor};

use crate::painted::{Colour, PaintedRow, Style};

/// Cells that are not simply one character wide.
const WIDTHS: Flags = Flags::WIDE_CHAR
    .union(Flags::WIDE_CHAR_SPACER)
    .union(Flags::LEADING_WIDE_CHAR_SPACER);
/// Attributes that can be seen on a blank.
const ON_BLANKS: Flags = Flags::INVERSE
    .union(Flags::ALL_UNDERLINES)
    .union(Flags::STRIKEOUT);
/// All attributes.
const ATTRIBUTES: Flags = ON_BLANKS
    .union(Flags::BOLD)
    .union(Flags::DIM)
    .union(Flags::ITALIC)
    .union(Flags::HIDDEN);
/// Attributes and their numbers (ECMA-48 8.3.117, SGR).
const NUMBERS: [(Flags, &str); 7] = [
    (Flags::BOLD, "1"),
    (Flags::DIM, "2"),
    (Flags::ITALIC, "3"),
    (Flags::ALL_UNDERLINES, "4"),
    (Flags::INVERSE, "7"),
    (Flags::HIDDEN, "8"),
    (Flags::STRIKEOUT, "9"),
];
const NO_FOREGROUND: Color = Color::Named(NamedColor::Foreground);
const NO_BACKGROUND: Color = Color::Named(NamedColor::Background);

/// How many cells of a row there are up to the last one that shows anything, its colour included.
pub(crate) fn shown(row: &[Cell]) -> usize {
    let is_shown = |cell: &Cell| {
        cell.c != ' ' || cell.bg != NO_BACKGROUND || cell.flags.intersects(ON_BLANKS) || cell.extra.is_some()
    };
    row.iter().rposition(is_shown).map_or(0, |last| last + 1)
}

/// What a cell shows that is not simply one character wide: nothing where it belongs to the one before it or is the rest
/// of a row, and a blank where the other half of a wide character has been overwritten.
fn shown_by(row: &[Cell], at: usize) -> Option<char> {
    let cell = row.get(at)?;
    if is_wide(row, at) {
        return Some(cell.c);
    }
    let hidden = match cell.flags {
        flags if flags.contains(Flags::WIDE_CHAR_SPACER) => at > 0 && is_wide(row, at - 1),
        flags if flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) => at + 1 == row.len(),
        _ => false,
    };
    (!hidden).then_some(' ')
}

/// Whether a whole wide character begins there.
pub(crate) fn is_wide(row: &[Cell], at: usize) -> bool {
    let has = |at: usize, flag| row.get(at).is_some_and(|cell| cell.flags.contains(flag));
    has(at, Flags::WIDE_CHAR) && has(at + 1, Flags::WIDE_CHAR_SPACER)
}

/// Calls `see` with what those cells of a row show: the cell, its character, and what goes onto that.
#[inline]
fn each(row: &[Cell], cells: Range<usize>, mut see: impl FnMut(&Cell, char, &[char])) {
    for (at, cell) in row.iter().enumerate().take(cells.end).skip(cells.start) {
        let mut c = cell.c;
        if cell.flags.intersects(WIDTHS) {
            match shown_by(row, at) {
                Some(shown) => c = shown,
                None => continue,
            }
        }
        let on_it = match cell.extra.is_some() {
            true => cell.zerowidth().unwrap_or_default(),
            false => &[],
        };
        see(cell, c, on_it);
    }
}

/// The text of a row, without blanks at its end.
pub(crate) fn text(row: &[Cell]) -> String {
    let last = row.iter().rposition(|cell| cell.c != ' ' || cell.extra.is_some());
    let count = last.map_or(0, |last| last + 1);
    let mut text = String::with_capacity(count);
    each(row, 0..count, |_, c, on_it| {
        text.push(c);
        if !on_it.is_empty() {
            text.extend(on_it);
        }
    });
    text.truncate(text.trim_end().len());
    text
}

/// A row with its attributes.
pub(crate) fn painted(row: &[Cell]) -> PaintedRow {
    let mut painted = PaintedRow::default();
    each(row, 0..shown(row), |cell, c, on_it| {
        let style = Style::from(cell);
        painted.push(c, style);
        on_it.iter().for_each(|c| painted.push(*c, style));
    });
    painted.trimmed()
}

/// How a terminal paints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ink {
    fg: Color,
    bg: Color,
    flags: Flags,
}

impl Default for Ink {
    fn default() -> Ink {
        Ink {
            fg: NO_FOREGROUND,
            bg: NO_BACKGROUND,
            flags: Flags::empty(),
        }
    }
}

impl Ink {
    #[inline]
    pub(crate) fn of(cell: &Cell) -> Ink {
        Ink {
            fg: cell.fg,
            bg: cell.bg,
            flags: cell.flags.intersection(ATTRIBUTES),
        }
    }

    /// Writes what makes a terminal paint in that ink from now on.
    pub(crate) fn change(&mut self, to: Ink, ansi: &mut String) {
        if *self == to {
            return;
        }
        let mut from = std::mem::replace(self, to);
        ansi.push_str("\x1b[");
        let begin = ansi.len();
        if to == Ink::default() {
            ansi.push('m');
            return;
        }
        let lost = |was: bool, is: bool| was && !is;
        if !to.flags.contains(from.flags)
            || lost(from.fg != NO_FOREGROUND, to.fg != NO_FOREGROUND)
            || lost(from.bg != NO_BACKGROUND, to.bg != NO_BACKGROUND)
        {
            ansi.push('0');
            from = Ink::default();
        }
        let parted = |ansi: &mut String| {
            if ansi.len() > begin {
                ansi.push(';');
            }
        };
        for (flag, number) in NUMBERS {
            if to.flags.intersects(flag) && !from.flags.intersects(flag) {
                parted(ansi);
                ansi.push_str(number);
            }
        }
        if to.fg != from.fg {
            parted(ansi);
            write_colour(Colour::from(to.fg), 30, ansi);
        }
        if to.bg != from.bg {
            parted(ansi);
            write_colour(Colour::from(to.bg), 40, ansi);
        }
        ansi.push('m');
    }
}

/// `base` is 30 for the letters and 40 for what is behind them.
fn write_colour(colour: Colour, base: u8, ansi: &mut String) {
    use std::fmt::Write;
    // Writing into a text cannot fail.
    let _ = match colour {
        Colour::Default => write!(ansi, "{}", base + 9),
        Colour::Index(index @ 0..=7) => write!(ansi, "{}", base + index),
        Colour::Index(index @ 8..=15) => write!(ansi, "{}", base + 60 + index - 8),
        Colour::Index(index) => write!(ansi, "{};5;{index}", base + 8),
        Colour::Rgb(red, green, blue) => write!(ansi, "{};2;{red};{green};{blue}", base + 8),
    };
}

/// Writes the first `count` cells of a row, from the ink that is there to that of the last of them.
pub(crate) fn write_cells(row: &[Cell], count: usize, ink: &mut Ink, ansi: &mut String) {
    write(row, 0..count, ink, ansi);
}

/// Writes the one cell that is there.
pub(crate) fn write_cell(row: &[Cell], at: usize, ink: &mut Ink, ansi: &mut String) {
    write(row, at..at + 1, ink, ansi);
}

#[inline]
fn write(row: &[Cell], cells: Range<usize>, ink: &mut Ink, ansi: &mut String) {
    each(row, cells, |cell, c, on_it| {
        ink.change(Ink::of(cell), ansi);
        ansi.push(c);
        if !on_it.is_empty() {
            ansi.extend(on_it);
        }
    });
}

impl From<Color> for Colour {
    fn from(colour: Color) -> Colour {
        match colour {
            Color::Indexed(index) => Colour::Index(index),
            Color::Spec(colour) => Colour::Rgb(colour.r, colour.g, colour.b),
            Color::Named(name) => match name as usize {
                index @ 0..=15 => Colour::Index(index as u8),
                _ => Colour::Default,
            },
        }
    }
}

impl From<&Cell> for Style {
    fn from(cell: &Cell) -> Style {
        let has = |flags| cell.flags.intersects(flags);
        Style {
            fg: cell.fg.into(),
            bg: cell.bg.into(),
            bold: has(Flags::BOLD),
            dim: has(Flags::DIM),
            italic: has(Flags::ITALIC),
            underline: has(Flags::ALL_UNDERLINES),
            inverse: has(Flags::INVERSE),
        }
    }
}

//! From painted rows back to the text that was laid out on them.

use terminal::{Colour, PaintedRow, Style};

use super::block::MARKER_START;

/// Cells at the right edge within which a row may have been broken because its next word did not fit. Programs keep a
/// margin of a few cells of their own.
const MARGIN_CELLS: usize = 8;

/// A row of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its text without indentation, with backticks around what is painted as code or as a link.
    text: String,
    /// Cells that it takes, indentation included.
    width: usize,
    /// Cells of its first word.
    first_word: usize,
    /// Some of it is painted as code or as a link.
    decorated: bool,
}

impl Line {
    /// A row from its character `from` on. `ink` is how plain text is painted here.
    pub(super) fn of(row: &PaintedRow, from: usize, ink: Colour) -> Line {
        let body: String = row.text.chars().skip(from).collect();
        let first = body.split_whitespace().next().unwrap_or_default();
        let text = marked_up(row, from, ink).trim_end().to_owned();
        Line {
            decorated: text.chars().filter(|c| *c == '`').count()
                > body.chars().filter(|c| *c == '`').count(),
            text,
            width: width_of(&row.text),
            first_word: width_of(first),
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The lines as text. A line whose first word would not have fitted behind the line before may be its tail, and is
/// joined to it: a marker at the end of a sentence must not look like one that stands alone.
pub(super) fn unwrapped(lines: &[Line], cols: usize) -> String {
    let mut text = String::new();
    let mut before: Option<&Line> = None;
    for line in lines {
        let tail = before.is_some_and(|before| {
            let wrapped = before.width + 1 + line.first_word + MARGIN_CELLS > cols;
            // A marker below a row of code may be the next row of that code.
            let in_code = before.decorated && line.text.trim_start().starts_with(MARKER_START);
            !before.is_blank() && !line.is_blank() && (wrapped || in_code)
        });
        if tail {
            text.push(' ');
            text.push_str(line.text.trim_start());
        } else {
            if before.is_some() {
                text.push('\n');
            }
            text.push_str(&line.text);
        }
        before = Some(line);
    }
    text.trim_end().to_owned()
}

/// For screens without colours. Code, bold and plain text look the same there: where a marker occurs more than once, none of them can be trusted to
/// be meant.
pub(super) fn one_marker(text: String) -> String {
    if text.matches(MARKER_START).count() > 1 {
        text.replace(MARKER_START, &format!("`{MARKER_START}"))
    } else {
        text
    }
}

/// The row's text with backticks around what is not painted like plain text. Bold and italic are emphasis, not code.
fn marked_up(row: &PaintedRow, from: usize, ink: Colour) -> String {
    let mut text = String::new();
    let mut skipped = from;
    let mut chars = row.text.chars().skip(from);
    let mut inside = false;
    for run in &row.runs {
        let taken = skipped.min(run.chars);
        skipped -= taken;
        let piece: String = chars.by_ref().take(run.chars - taken).collect();
        if piece.is_empty() {
            continue;
        }
        // Blanks show no ink.
        let decorated = !piece.trim().is_empty() && is_decorated(run.style, ink);
        if decorated != inside && !piece.trim().is_empty() {
            text.push('`');
            inside = decorated;
        }
        text.push_str(&piece);
    }
    if inside {
        text.push('`');
    }
    text
}

fn is_decorated(style: Style, ink: Colour) -> bool {
    let plain = style.fg == Colour::Default || style.fg == ink;
    !plain || style.underline || style.dim || style.inverse
}

/// Cells that a text takes.
pub(super) fn width_of(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Cells of the indentation that a row below a bullet has: two, or fewer where there are fewer.
pub(super) fn indent_of(text: &str) -> usize {
    text.chars().take(2).take_while(|c| *c == ' ').count()
}

/// The row's text with no-break spaces as blanks.
pub(super) fn blanks(row: &PaintedRow) -> String {
    row.text.replace('\u{a0}', " ")
}

/// The colour of the first character that is no blank, from index `from` on.
pub(super) fn ink_at(row: &PaintedRow, from: usize) -> Option<Style> {
    let index = row
        .text
        .chars()
        .enumerate()
        .skip(from)
        .find(|(_, c)| !c.is_whitespace())?
        .0;
    row.style_at(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rows: &[&str]) -> Vec<Line> {
        rows.iter()
            .map(|row| Line::of(&PaintedRow::plain(row), 2, Colour::Default))
            .collect()
    }

    #[test]
    fn a_row_that_may_be_a_tail_is_joined_and_a_line_of_its_own_is_not() {
        let wrapped = lines(&["  a sentence that ends with the", "  [SEMO:DONE]"]);
        assert_eq!(
            unwrapped(&wrapped, 40),
            "a sentence that ends with the [SEMO:DONE]"
        );
        assert_eq!(
            unwrapped(&wrapped, 80),
            "a sentence that ends with the\n[SEMO:DONE]"
        );
        let apart = lines(&["  a sentence that ends with the", "", "  [SEMO:DONE]"]);
        assert_eq!(
            unwrapped(&apart, 40),
            "a sentence that ends with the\n\n[SEMO:DONE]"
        );
        assert_eq!(unwrapped(&[], 40), "");
    }

    #[test]
    fn what_is_painted_as_code_stands_in_backticks() {
        let mut painter = terminal::Painter::new(terminal::Size { cols: 60, rows: 4 });
        painter.feed(b"  run \x1b[38;5;153m[SEMO:DONE]\x1b[m now\r\n  \x1b[1m[SEMO:DONE]\x1b[m\r\n  \x1b[4m[SEMO:DONE]");
        let rows = painter.rows();
        let text = |index: usize| Line::of(&rows[index], 2, Colour::Default).text;
        assert_eq!(text(0), "run `[SEMO:DONE]` now");
        assert_eq!(text(1), "[SEMO:DONE]");
        assert_eq!(text(2), "`[SEMO:DONE]`");
    }
}
